"""Moves between hosts that are worth it, none where none is, and no back and forth."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings

from bulkhead.amounts import Amounts
from bulkhead.cluster.rebalancing import Limits, rebalance, use
from bulkhead.cluster.snapshot import HostView, Snapshot, Term
from bulkhead.model import Isolation
from tests.unit.cluster.checking import carried_out
from tests.unit.cluster.fleets import GIB, fleet, host, large_fleet, placed, seeds

DAY = 86_400.0


def loaded(number: int, count: int, **fields: object) -> HostView:
    return host(
        number,
        *(placed(f"{number}-{index}", memory=4 * GIB, cpu=500_000, written=GIB, **fields) for index in range(count)),
    )


def test_a_hot_host_is_relieved_until_it_is_like_the_others() -> None:
    snapshot = fleet(loaded(1, 14), loaded(2, 2), loaded(3, 2))
    found = rebalance(snapshot)
    after = carried_out(snapshot, [step.move for step in found.steps])
    assert found.before >= 0.5
    assert found.after < 0.1
    assert max(map(use, after.hosts)) - min(map(use, after.hosts)) < 0.2
    assert all(step.gain >= Limits().gain for step in found.steps)
    assert {step.move.source for step in found.steps} == {"00001"}
    assert found.size == len(found.steps) * GIB


def test_nothing_worth_moving_is_an_answer_with_its_reason() -> None:
    found = rebalance(fleet(loaded(1, 6), loaded(2, 5), loaded(3, 4)))
    assert found.steps == ()
    assert found.reason == "nothing worth moving: the fullest host is 6.2% above the mean; it may be 15%"
    assert rebalance(fleet(loaded(1, 6))).reason == "nothing worth moving: there are not two hosts that are ready"


def test_what_costs_more_than_it_brings_stays() -> None:
    heavy = host(1, *(placed(f"w{index}", memory=4 * GIB, written=900 * GIB, disk=0) for index in range(12)))
    found = rebalance(fleet(heavy, loaded(2, 1)))
    assert found.steps == ()
    assert "worth its cost" in found.reason
    slow = fleet(loaded(1, 14), loaded(2, 2))
    assert rebalance(slow, Limits(most_downtime=0.1)).steps == ()
    live = fleet(loaded(1, 14, level=Isolation.VM, resident=GIB, live=True), loaded(2, 2))
    assert rebalance(live, Limits(most_downtime=0.5)).steps[0].move.cost.how == "live"


def test_limits_of_bytes_and_moves_hold() -> None:
    snapshot = fleet(loaded(1, 14), loaded(2, 2), loaded(3, 2))
    assert len(rebalance(snapshot, Limits(most_moves=2)).steps) == 2
    assert rebalance(snapshot, Limits(most_bytes=3 * GIB)).size <= 3 * GIB


def test_what_others_must_be_near_to_does_not_go_alone() -> None:
    anchor = placed("db", memory=30 * GIB)
    others = [placed(f"app{index}", memory=8 * GIB, terms=(Term("db"),)) for index in range(3)]
    assert rebalance(fleet(host(1, anchor, *others), host(2))).steps == ()
    free = [placed(f"app{index}", memory=8 * GIB) for index in range(3)]
    assert rebalance(fleet(host(1, anchor, *free), host(2))).steps


def test_measured_use_counts_and_not_what_is_sold() -> None:
    busy = [placed(f"b{index}", memory=4 * GIB, used=Amounts(cpu=12_000_000)) for index in range(4)]
    idle = [placed(f"i{index}", memory=12 * GIB, used=Amounts()) for index in range(4)]
    snapshot = fleet(host(1, *busy), host(2, *idle), host(3, placed("x", used=Amounts(cpu=12_000_000))))
    found = rebalance(snapshot)
    assert {step.move.source for step in found.steps} == {"00001"}
    carried_out(snapshot, [step.move for step in found.steps])


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_no_step_breaks_anything_and_a_second_run_finds_nothing_new(seed: int) -> None:
    dice = random.Random(seed)
    hosts = large_fleet(dice, 6, 60)
    # Two of them are much fuller than the others.
    hosts = [
        view if number < 2 else replace(view, instances=view.instances[:2], sold=sum_of(view, 2))
        for number, view in enumerate(hosts)
    ]
    snapshot = Snapshot(tuple(hosts), spare=dice.random() < 0.5)
    found = rebalance(snapshot, Limits(start=0.05, settle=0.03, gain=0.01), now=DAY)
    after = carried_out(snapshot, [step.move for step in found.steps], now=DAY)
    assert found == rebalance(snapshot, Limits(start=0.05, settle=0.03, gain=0.01), now=DAY)
    assert rebalance(after, Limits(start=0.05, settle=0.03, gain=0.01), now=DAY + 60).size <= found.size // 2


def sum_of(view: HostView, count: int) -> Amounts:
    return sum((each.amounts for each in view.instances[:count]), Amounts())


@settings(max_examples=4, deadline=None)
@given(seeds)
def test_run_every_hour_under_noise_it_moves_next_to_nothing(seed: int) -> None:
    """Each instance's use goes up and down by half of it from one run to the next, for a week."""
    dice = random.Random(seed)
    snapshot = fleet(
        *(loaded(number, 4 + number % 3, used=Amounts(memory=2 * GIB, cpu=400_000)) for number in range(8))
    )
    moves = 0
    for hour in range(24 * 7):
        now = DAY + hour * 3600
        noisy = Snapshot(
            tuple(
                replace(
                    view,
                    instances=tuple(
                        replace(each, used=Amounts(memory=int(2 * GIB * dice.uniform(0.5, 1.5)), cpu=400_000))
                        for each in view.instances
                    ),
                )
                for view in snapshot.hosts
            )
        )
        found = rebalance(noisy, now=now)
        moves += len(found.steps)
        snapshot = carried_out(noisy, [step.move for step in found.steps], now=now)
    assert moves <= 4
