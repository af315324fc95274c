"""The index decides as the plain functions do, whatever has been put into it and taken out before."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.cluster.index import Index
from bulkhead.cluster.placing import Decision, place
from bulkhead.cluster.policies import POLICIES, Policy
from bulkhead.cluster.snapshot import HostView, Placed, Snapshot
from tests.unit.cluster.fleets import any_fleet, any_wanted, large_fleet, random_wanted, seeds

policies = st.sampled_from(POLICIES)


def told(decision: Decision) -> tuple[object, ...]:
    """All of it, with its refusals in their order."""
    return (
        decision.wanted,
        decision.chosen,
        decision.ranking,
        decision.whole,
        decision.feasible,
        list(decision.counts.items()),
        list(decision.examples.items()),
        list(decision.refusals.items()),
    )


@settings(max_examples=1000, deadline=None)
@given(seeds, policies)
def test_index_and_plain_functions_decide_the_same(seed: int, policy: Policy) -> None:
    dice = random.Random(seed)
    snapshot, it = any_fleet(dice), any_wanted(dice)
    index = Index(snapshot.hosts, spare=snapshot.spare)
    assert told(index.place(it, policy)) == told(place(snapshot, it, policy))
    assert index.snapshot() == snapshot


@settings(max_examples=200, deadline=None)
@given(seeds, policies)
def test_what_was_in_the_index_before_leaves_no_trace(seed: int, policy: Policy) -> None:
    dice = random.Random(seed)
    before, after, it = any_fleet(dice), any_fleet(dice), any_wanted(dice)
    index = Index(before.hosts, spare=after.spare)
    index.place(it, policy)
    gone = {host.id for host in before.hosts} - {host.id for host in after.hosts}
    steps: list[str | HostView] = [*sorted(gone), *after.hosts]
    dice.shuffle(steps)
    for step in steps:
        if isinstance(step, HostView):
            index.put(step)
        else:
            index.drop(step)
        index.place(it, policy)
    assert told(index.place(it, policy)) == told(place(after, it, policy))


@settings(max_examples=200, deadline=None)
@given(seeds, policies)
def test_an_instance_that_is_somewhere_already_is_no_neighbour_of_its_own(seed: int, policy: Policy) -> None:
    dice = random.Random(seed)
    snapshot = any_fleet(dice)
    index = Index(snapshot.hosts, spare=snapshot.spare)
    for it in [placed.wanted for host in snapshot.hosts for placed in host.instances][:4]:
        assert told(index.place(it, policy)) == told(place(snapshot, it, policy))


def test_reasons_are_those_of_the_moment_of_the_decision() -> None:
    dice = random.Random(3)
    hosts = large_fleet(dice, 40, 400)
    index = Index(hosts)
    decision = index.place(replace(random_wanted(dice, "new"), host="h7"), "pack")
    plain = place(Snapshot(tuple(hosts)), decision.wanted, "pack")
    for view in hosts:
        index.put(replace(view, state="draining", sold=view.has.free(view.sold)))
    index.drop(hosts[0].id)
    assert told(decision) == told(plain)


def test_a_fleet_that_is_filled_by_the_index_is_filled_as_by_the_plain_functions() -> None:
    dice = random.Random(11)
    hosts = large_fleet(dice, 30, 300)
    index, snapshot = Index(hosts, spare=True), Snapshot(tuple(hosts), spare=True)
    placed = 0
    for number in range(250):
        it = random_wanted(dice, f"n{number}")
        policy = POLICIES[number % 3]
        found, plain = index.place(it, policy), place(snapshot, it, policy)
        assert told(found) == told(plain)
        if found.chosen:
            placed += 1
            view = index.host(found.chosen.id)
            view = replace(view.holding(Placed(it, it.need.on(view.speed))), version=view.version + 1)
            index.put(view)
            snapshot = snapshot.having(view)
    assert placed > 50
