"""Whole hosts are freed where that saves something."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from bulkhead.cluster.consolidating import Thrift, consolidate
from bulkhead.cluster.rebalancing import use
from bulkhead.cluster.snapshot import PowerCurve, Snapshot, Term
from bulkhead.model import Isolation
from tests.unit.cluster.checking import carried_out
from tests.unit.cluster.fleets import GIB, fleet, host, large_fleet, placed, seeds

CURVE = PowerCurve((100.0, 200.0))


def test_a_power_curve_is_read_between_its_points() -> None:
    curve = PowerCurve((100.0, 180.0, 250.0))
    assert [curve.at(use) for use in (-1, 0, 0.25, 0.5, 0.75, 1, 2)] == [100, 100, 140, 180, 215, 250, 250]


def test_half_idle_hosts_become_one_and_the_power_saved_is_told() -> None:
    hosts = [host(number, placed(f"a{number}", cpu=4_800_000), power=CURVE) for number in range(1, 4)]
    snapshot = fleet(*hosts)
    found = consolidate(snapshot)
    after = carried_out(snapshot, [move for each in found.freed for move in each.moves])
    assert sum(not view.instances for view in after.hosts) == 2
    # 2 x (100 W idle + 10 W of its tenth) less 10 W more elsewhere each.
    assert found.watts == pytest.approx(200)
    assert found.reason == ""


def test_sleeping_hosts_are_not_woken() -> None:
    found = consolidate(fleet(host(1, placed("a"), power=CURVE), host(2, power=CURVE)))
    assert found.freed == ()
    assert found.reason.startswith("nothing worth moving: h1: ")


def test_others_do_not_get_too_full() -> None:
    snapshot = fleet(host(1, placed("a", memory=20 * GIB)), host(2, placed("b", memory=40 * GIB)))
    assert consolidate(snapshot).freed == ()
    assert len(consolidate(snapshot, Thrift(fill=0.95)).freed) == 1


def test_what_saves_too_little_or_carries_too_much_is_left() -> None:
    hosts = [host(number, placed(f"a{number}", written=5 * GIB), power=PowerCurve((10.0, 20.0))) for number in (1, 2)]
    assert consolidate(fleet(*hosts)).reason == "nothing worth moving: h1: it would save 10 W"
    found = consolidate(fleet(*hosts), Thrift(least_watts=1, most_bytes=GIB))
    assert found.reason == "nothing worth moving: h1: there is too much to carry"
    assert len(consolidate(fleet(*hosts), Thrift(least_watts=1)).freed) == 1


def test_without_a_curve_the_host_is_freed_and_no_watts_are_claimed() -> None:
    (freed,) = consolidate(fleet(host(1, placed("a")), host(2, placed("b")))).freed
    assert freed.watts is None


def test_what_belongs_together_goes_together_or_not_at_all() -> None:
    vm = placed("vm", id="vm1", level=Isolation.VM, memory=8 * GIB)
    inner = placed("in", inside="vm1", memory=0, cpu=0)
    app = placed("app", memory=4 * GIB, terms=(Term("vm"),))
    snapshot = fleet(
        host(1, vm, inner, app), host(2, placed("x", memory=16 * GIB)), host(3, placed("y", memory=45 * GIB))
    )
    found = consolidate(snapshot)
    assert [move.name for move in found.freed[0].moves] == ["vm", "in", "app"]
    assert {move.target for move in found.freed[0].moves} == {"00002"}, "h3 would get too full"
    carried_out(snapshot, found.freed[0].moves)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_whatever_is_freed_breaks_nothing_and_a_second_run_moves_nothing_back(seed: int) -> None:
    dice = random.Random(seed)
    snapshot = Snapshot(tuple(large_fleet(dice, 6, dice.choice((12, 30, 60)))), spare=dice.random() < 0.5)
    found = consolidate(snapshot, now=1e6)
    after = carried_out(snapshot, [move for each in found.freed for move in each.moves], now=1e6)
    assert all(not after.host(each.host).instances for each in found.freed)
    grown = [view.id for view in after.hosts if len(view.instances) > len(snapshot.host(view.id).instances)]
    assert all(use(after.host(each)) <= max(0.8, use(snapshot.host(each))) for each in grown)
    again = consolidate(after, now=1e6 + 3600)
    moved = {move.instance for each in found.freed for move in each.moves}
    assert not moved & {move.instance for each in again.freed for move in each.moves}
