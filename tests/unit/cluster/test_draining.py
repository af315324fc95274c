"""Everything off a host: in which order, what stays and why."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings

from bulkhead.cluster.costs import BLACKOUT, cost
from bulkhead.cluster.draining import drain, lost
from bulkhead.cluster.snapshot import Snapshot, Term
from bulkhead.model import Isolation
from tests.unit.cluster.checking import carried_out
from tests.unit.cluster.fleets import GIB, SLOW, fleet, host, large_fleet, placed, seeds

RATE = 100_000_000


def test_what_matters_most_goes_first_and_the_quickest_of_like_ones() -> None:
    full = host(
        1,
        placed("big", priority=1, written=4 * GIB),
        placed("small", priority=1, written=GIB),
        placed("last", written=1),
        placed("first", priority=9, written=8 * GIB),
    )
    plan = drain(fleet(full, host(2), host(3)), "00001", 1e6)
    assert [each.move.name for each in plan.moves] == ["first", "small", "big", "last"]
    assert plan.moves[0].begins == 0
    assert all(one.ends == two.begins for one, two in zip(plan.moves, plan.moves[1:], strict=False))
    assert plan.seconds == plan.moves[-1].ends


def test_a_deadline_leaves_what_would_end_too_late() -> None:
    full = host(
        1, placed("first", priority=1, written=4 * GIB), placed("huge", written=99 * GIB), placed("tiny", written=1)
    )
    plan = drain(fleet(full, host(2)), "00001", 60.0, rate=RATE)
    assert [each.move.name for each in plan.moves] == ["first", "tiny"]
    (left,) = plan.left
    assert (left.wanted.name, left.hint) == ("huge", "a later deadline")
    assert left.reason.endswith("the deadline is 60 s")
    assert plan.seconds <= 60


def test_what_finds_no_host_stays_with_the_reason() -> None:
    full = host(1, placed("a", memory=60 * GIB), placed("pinned", host="h1"), placed("b"))
    plan = drain(fleet(full, host(2, placed("x", memory=30 * GIB))), "00001", 1e6)
    assert [each.move.name for each in plan.moves] == ["b"]
    assert {left.wanted.name: left.reason for left in plan.left} == {
        "a": "memory: 60G asked for, 34G left: 30G of 64G are sold",
        "pinned": "--host h1 was asked for",
    }
    assert drain(fleet(full), "00001", 1e6).moves == ()


def test_what_must_be_together_moves_one_after_the_other_to_one_host() -> None:
    pair = [placed("db", priority=1), placed("app", terms=(Term("db"),), memory=20 * GIB)]
    full = host(1, *pair, placed("z", priority=5))
    snapshot = fleet(full, host(2, placed("x", memory=50 * GIB)), host(3))
    plan = drain(snapshot, "00001", 1e6)
    assert [(each.move.name, each.move.target) for each in plan.moves][1:] == [("db", "00003"), ("app", "00003")]
    carried_out(snapshot, [each.move for each in plan.moves])


def test_what_must_be_apart_is_apart_afterwards() -> None:
    away = (Term("web", "app", away=True),)
    full = host(1, placed("a", labels={"app": "web"}, terms=away))
    snapshot = fleet(
        full, host(2, placed("b", labels={"app": "web"}, terms=away)), host(3, placed("x", memory=40 * GIB))
    )
    assert [each.move.target for each in drain(snapshot, "00001", 1e6).moves] == ["00003"]


def test_how_a_move_goes_and_what_it_costs_follows_the_level_and_the_hosts() -> None:
    source, same, other = host(1), host(2), host(3, speed=SLOW)
    vm = placed(level=Isolation.VM, written=10 * RATE, resident=10 * RATE, live=True)
    live = cost(vm, source, same, RATE)
    assert (live.how, live.size, live.downtime) == ("live", 23 * RATE, BLACKOUT)
    assert cost(vm, source, other, RATE).how == "copied", "kvm and tcg do not take over from one another"
    assert cost(replace(vm, live=False), source, same, RATE).how == "copied", "its host says that it cannot"
    copied = cost(placed(written=10 * RATE), source, same, RATE)
    assert (copied.how, copied.downtime, copied.seconds) == ("copied", 10.5, 10.5)
    assert cost(placed(written=RATE, running=False), source, same, RATE).downtime == 0


def test_after_a_loss_what_has_a_policy_comes_back_by_priority() -> None:
    here = [placed("low", restart="always"), placed("no", priority=9), placed("high", priority=5, restart="on-failure")]
    gone = placed("stopped", restart="always", running=False)
    snapshot = fleet(host(1, *here, gone, state="fenced"), host(2))
    assert [each.name for each in lost(snapshot, "00001")] == ["high", "low"]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_drain_breaks_nothing_and_accounts_for_everything(seed: int) -> None:
    dice = random.Random(seed)
    hosts = large_fleet(dice, 6, dice.choice((30, 60, 150)))
    hosts[0] = replace(
        hosts[0],
        instances=tuple(
            replace(each, wanted=replace(each.wanted, terms=(Term(hosts[0].instances[0].wanted.name),), tenant="t1"))
            if spot in (1, 2)
            else replace(each, wanted=replace(each.wanted, tenant="t1", host="h0" if dice.random() < 0.1 else ""))
            for spot, each in enumerate(hosts[0].instances)
        ),
    )
    snapshot = Snapshot(tuple(hosts))
    plan = drain(snapshot, "00000", dice.choice((30.0, 100.0, 1e6)))
    after = carried_out(snapshot, [each.move for each in plan.moves])
    assert {each.id for each in after.host("00000").instances} == {left.wanted.id for left in plan.left}
