"""Eight placers at once, each by a snapshot of a while ago: nothing is oversold, no rule broken, everybody gets on."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bulkhead.cluster.policies import Policy
from tests.unit.cluster.fleets import any_fleet, any_wanted, large_fleet, random_wanted
from tests.unit.cluster.simulation import Simulation, Store

PLACERS = 8


def simulate(seed: int, hosts: int, requests: int, policy: Policy, *, spare: bool, strict: bool) -> Simulation:
    """`strict`: small hosts and instances with every kind of rule, so that most of them are in one another's way."""
    dice = random.Random(seed)
    if strict:
        views = list(any_fleet(dice, hosts).hosts)
        while len(views) < hosts:
            views = list(any_fleet(dice, hosts).hosts)
        views = [replace(view, instances=(), sold=type(view.sold)(), state="ready") for view in views]
        asked = [any_wanted(dice, f"n{number}") for number in range(requests)]
    else:
        views = large_fleet(dice, hosts, 0)
        asked = [random_wanted(dice, f"n{number}") for number in range(requests)]
    asked = [replace(each, restart=dice.choice(("no", "always", "always"))) for each in asked]
    simulation = Simulation(Store(views), dice, policy, spare)
    simulation.waiting.extend(asked)
    for number in range(requests // 4):
        simulation.after(number * 0.02, lambda: simulation.delete_some(2))
    for number in range(8):
        simulation.after(0.3 + number, simulation.drain_one)
        simulation.after(0.9 + number, simulation.undrain_one)
    for number in range(3):
        simulation.after(1.0 + 2 * number, simulation.lose_one)
    simulation.run(PLACERS)
    assert set(simulation.ended) >= {each.id for each in asked}, "every request ends"
    return simulation


def test_thousands_of_requests_while_hosts_drain_and_die() -> None:
    found = simulate(1, 40, 2500, "pack", spare=False, strict=False)
    told = found.told
    assert told["placed"] + told["refused"] == 2500 + told["again"]
    assert told["placed"] > 1500
    assert told["lost"] == 3
    assert told["again"] > 0
    assert told["conflicts"] > 50, "placers were in one another's way"
    # Each change can fail at most those who had decided by what was there before it.
    assert told["conflicts"] + told["looked again"] <= PLACERS * len(found.store.changes)


def test_placers_that_spread_are_less_in_one_anothers_way_than_those_that_pack() -> None:
    spread, packed = (simulate(2, 40, 400, policy, spare=False, strict=False).told for policy in ("spread", "pack"))
    assert min(spread["placed"], packed["placed"]) > 300
    assert spread["conflicts"] < packed["conflicts"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", ["pack", "spread", "balance"])
def test_every_kind_of_rule_holds_where_everything_is_in_the_way(seed: int, policy: Policy) -> None:
    told = simulate(seed, 7, 120, policy, spare=seed % 2 == 0, strict=True).told
    assert told["placed"] > 5
    assert told["refused"] > 5


def test_the_reserve_holds_whoever_decides_at_the_same_time() -> None:
    told = simulate(4, 8, 700, "pack", spare=True, strict=False).told
    assert told["placed"] > 200
    assert told["refused"] > 50, "it was filled up to the reserve"
