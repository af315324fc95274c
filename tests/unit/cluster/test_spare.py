"""The reserve for the loss of one host keeps what it promises: everything finds room again, one after the other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from bulkhead.amounts import RESOURCES, Amounts
from bulkhead.cluster import spare
from bulkhead.cluster.placing import place
from bulkhead.cluster.rules import Rule
from bulkhead.cluster.snapshot import HostView, Placed, Snapshot
from tests.unit.cluster.fleets import GIB, any_host, any_need, fleet, host, onto, placed, seeds, wanted


def fits(view: HostView, takes: Amounts) -> bool:
    return all(takes.of(name) <= max(0, view.free.of(name)) for name in RESOURCES)


def homeless(lost: HostView, others: list[HostView], dice: random.Random) -> list[Placed]:
    """What finds no room where everything that was lost comes in any order and takes any host that has room."""
    others = list(others)
    waiting = list(lost.instances)
    dice.shuffle(waiting)
    left = []
    for each in waiting:
        able = [spot for spot, view in enumerate(others) if fits(view, each.wanted.need.on(view.speed))]
        if not able:
            left.append(each)
            continue
        spot = dice.choice(able)
        others[spot] = onto(others[spot], each.wanted)
    return left


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_whichever_host_is_lost_everything_on_it_finds_room(seed: int) -> None:
    dice = random.Random(seed)
    hosts = [any_host(dice, number) for number in range(dice.randint(2, 5))]
    snapshot = Snapshot(tuple(hosts), spare=True)
    for number in range(12):
        decision = place(snapshot, wanted(f"n{number}", need=any_need(dice)), "pack")
        if not decision.chosen:
            continue
        snapshot = snapshot.having(onto(snapshot.host(decision.chosen.id), decision.wanted))
        for lost in snapshot.hosts:
            others = [view for view in snapshot.hosts if view.id != lost.id and view.state == "ready"]
            if lost.state in spare.CARRYING:
                assert not homeless(lost, others, dice)


def test_two_hosts_are_filled_to_the_half_and_no_further() -> None:
    snapshot = fleet(host(1), host(2), spare=True)
    count = 0
    while (decision := place(snapshot, wanted(f"n{count}", memory=4 * GIB, cpu=0, disk=0), "pack")).chosen:
        snapshot = snapshot.having(onto(snapshot.host(decision.chosen.id), decision.wanted))
        count += 1
    assert count == 16, "64 GiB of 128: what either of them carries, the other has room for"
    assert decision.counts == {Rule.MEMORY: 1, Rule.SPARE: 1}
    reason = decision.examples[Rule.SPARE].reasons[0]
    assert reason.what == (
        "the loss of one host would not be covered: this instance is 6.2% of a usual host; h2 carries 100.0% and the "
        "others have 93.8% for sure, where the largest instance takes 6.2%"
    )


def test_ten_hosts_are_filled_to_almost_nine_tenths() -> None:
    snapshot = Snapshot(tuple(host(number) for number in range(10)), spare=True)
    count = 0
    while (decision := place(snapshot, wanted(f"n{count}", memory=2 * GIB, cpu=0, disk=0), "spread")).chosen:
        snapshot = snapshot.having(onto(snapshot.host(decision.chosen.id), decision.wanted))
        count += 1
    assert 0.85 * 10 * 32 <= count <= 0.9 * 10 * 32


def test_a_fleet_of_one_cannot_promise_anything() -> None:
    assert set(place(fleet(host(1), spare=True), wanted(), "pack").counts) == {Rule.SPARE}
    assert place(fleet(host(1)), wanted(), "pack").chosen


def test_an_instance_for_which_no_second_host_is_large_enough_is_refused() -> None:
    small = host(2, placed(memory=40 * GIB, cpu=0, disk=0))
    assert set(place(fleet(host(1), small, spare=True), wanted(memory=30 * GIB), "pack").counts) == {
        Rule.MEMORY,
        Rule.SPARE,
    }


@pytest.mark.parametrize("state", ["unreachable", "fenced"])
def test_what_is_lost_already_is_not_covered_and_takes_nothing(state: str) -> None:
    lost = host(3, placed(memory=60 * GIB, cpu=0, disk=0), state=state)
    assert place(fleet(host(1), host(2), lost, spare=True), wanted(), "pack").chosen
    assert not place(fleet(host(1), lost, spare=True), wanted(), "pack").chosen
