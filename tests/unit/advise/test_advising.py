"""The whole analysis on small estates, and on one that was made up by a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bulkhead.advise import Workload, advising, asking, generating, report, simulating, sizing
from bulkhead.advise.advising import Advice, Effort, advise
from bulkhead.advise.arranging import Wish
from bulkhead.advise.estate import Estate
from bulkhead.advise.prices import Prices
from bulkhead.errors import Refused
from bulkhead.model import Isolation
from tests.unit.advise.estates import GIB, estate, load, server

PRICES = Prices()
QUICK = Effort(2.0)


def four() -> Estate:
    """Four servers that do little, of which one would do."""
    servers = [server(f"s{at}") for at in range(4)]
    return estate(servers, [load(f"w{at}", f"s{at}", [1.0 + at / 4] * 336) for at in range(4)])


@pytest.fixture(scope="module")
def made_up() -> Advice:
    return advise(generating.generate(20, days=15, step=1800, seed=3), PRICES, effort=Effort(6.0))


def test_four_idle_servers_become_one() -> None:
    advice = advise(four(), PRICES, effort=QUICK)
    assert len(advice.after.hosts) == 1 and advice.verdict.worth
    [host] = advice.after.hosts
    assert host.host and set(host.workloads) == {"w0", "w1", "w2", "w3"}
    assert (
        sum(step.what == "move" for step in advice.steps) == 3
        and sum(step.what == "retire" for step in advice.steps) == 3
    )
    assert advice.played.short == 0.0 and 0.6 < advice.played.saved < 0.75
    assert advice.verdict.payback == pytest.approx(advice.once.total / advice.verdict.saved)


def test_nothing_worth_doing_is_an_answer() -> None:
    busy = estate([server("a"), server("b")], [load(name, on, [14.0] * 48) for name, on in (("w", "a"), ("v", "b"))])
    advice = advise(busy, PRICES, effort=QUICK)
    assert not advice.verdict.worth and "no arrangement" in advice.verdict.reason
    assert report.lines(advice)[0].startswith("nothing worth doing: ")
    dear = advise(four(), PRICES.changed([("staff", 5000, "test"), ("payback", 0.25, "test")]), effort=QUICK)
    assert not dear.verdict.worth


def test_peaks_that_do_not_meet_share_a_host_and_those_that_must_not_wait_do_not() -> None:
    day = np.where(np.arange(336) % 24 < 12, 11.0, 1.0)
    night = np.where(np.arange(336) % 24 < 12, 1.0, 11.0)
    servers = [server("a"), server("b")]
    shared = advise(estate(servers, [load("day", "a", day), load("night", "b", night)]), PRICES, effort=QUICK)
    assert len(shared.after.hosts) == 1 and shared.played.short == 0.0
    low = [load("day", "a", day, latency="low"), load("night", "b", night, latency="low")]
    assert len(advise(estate(servers, low), PRICES, effort=QUICK).after.hosts) == 2


def test_rules_between_workloads_are_kept() -> None:
    loads = list(four().loads)
    loads[0] = replace(loads[0], apart=("w1",))
    loads[2] = replace(loads[2], near=("w1",))
    loads[3] = replace(loads[3], downtime=1.0)
    advice = advise(replace(four(), loads=tuple(loads)), PRICES, effort=QUICK)
    places = advice.arrangement.places
    assert places["w0"] != places["w1"] == places["w2"]
    # It may not be away for even a restart: it stays as it is, and its server is nobody's host.
    assert places["w3"] == "s3" and "w3" in advice.arrangement.bare
    assert [host.workloads for host in advice.after.hosts if host.server == "s3"] == [("w3",)]


def test_a_server_whose_own_load_leaves_no_room_for_a_host_stays_as_it_is() -> None:
    servers = [server("full", memory=32), server("idle", memory=16)]
    loads = [load("big", "full", [1.0] * 48, memory=31), load("small", "idle", [1.0] * 48, memory=2)]
    advice = advise(estate(servers, loads), PRICES, effort=QUICK)
    assert advice.arrangement.places["big"] == "full" and "big" in advice.arrangement.bare
    assert not any(step.workload == "big" or step.host == "full" for step in advice.steps)


def test_what_if_a_server_were_gone_or_there_were_more() -> None:
    gone = advise(four(), PRICES, Wish(frozenset({"s0", "s1"})), QUICK)
    assert {host.server for host in gone.after.hosts} <= {"s2", "s3"}
    with pytest.raises(Refused, match="there is no such server"):
        advise(four(), PRICES, Wish(frozenset({"s9"})), QUICK)
    asked = asking.parse_added("3:8G,2x2,50G:web:1", "--add")
    grown = advise(advising.more(four(), asking.loads(four(), asked, 1)), PRICES, effort=QUICK)
    # What was asked for is what it gets, and what it is made of is known.
    assert asked.image == "web:1" and str(grown.sizes["new1-2"].plan) == "2 x 2 GHz, 8G, 50G, 0bit/s"
    assert grown.sizes["new1-2"].wants[1].max() == 8 * GIB
    assert sum(step.what == "create" for step in grown.steps) == 3
    with pytest.raises(Refused, match="there is no room for"):
        asked = asking.parse_added("9:20G,2x2,50G", "--add")
        advise(advising.more(four(), asking.loads(four(), asked, 1)), PRICES, effort=QUICK)


def test_how_many_more_fit() -> None:
    advice = advise(four(), PRICES, effort=QUICK)
    found = advising.fit(advice, asking.parse_plan("4G,1x1,1G", "--fit").amounts)
    [host] = advice.after.hosts
    # 31 GiB for workloads, 4 times 4 GiB with the margin taken.
    assert found == {host.server: 3}
    assert advising.fit(advice, asking.parse_plan("64G,1x1,1G", "--fit").amounts) == {host.server: 0}


@pytest.mark.parametrize("text", ["512M", "512M,2,5G", "x,2x2,5G", "512M,2x2,5G,1G,1G", "0,2x2,5G"])
def test_plans_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="--fit"):
        asking.parse_plan(text, "--fit")


@pytest.mark.parametrize("text", ["512M,2x2,5G", "0:512M,2x2,5G", "x:512M,2x2,5G", "99999:512M,2x2,5G"])
def test_numbers_of_plans_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="--add"):
        asking.parse_added(text, "--add")


# --- an estate that was made up


def test_an_estate_is_the_seeds_alone() -> None:
    one, two = (generating.generate(5, days=2, step=3600, seed=7) for _ in range(2))
    assert all((a.use == b.use).all() and a.workload == b.workload for a, b in zip(one.loads, two.loads, strict=True))
    assert (one.loads[0].use != generating.generate(5, days=2, step=3600, seed=8).loads[0].use).any()


def test_a_made_up_estate_is_as_published() -> None:
    whole = generating.generate(200, days=7, step=3600, seed=1)
    parts = [each.cpu_mean / whole.server(each.server).capacity[0] for each in whole.loads]
    assert 0.09 < sum(parts) / len(parts) < 0.13
    assert 0.1 < sum(part < 0.02 for part in parts) / len(parts) < 0.35
    month = generating.generate(40, seed=1)
    peaks = sorted(float(each.use[0].max() / each.use[0].mean()) for each in month.loads)
    assert 6 < peaks[len(peaks) // 2] < 12


def test_nobody_is_short_and_power_is_saved(made_up: Advice) -> None:
    assert made_up.verdict.worth and len(made_up.after.hosts) < len(made_up.before.hosts) / 2
    assert made_up.played.short <= 0.001 and made_up.played.saved > 0.4
    # Two that share no code agree on the power.
    assert made_up.played.kwh_before == pytest.approx(made_up.before.kwh, rel=0.01)
    assert made_up.played.kwh_after == pytest.approx(made_up.after.kwh, rel=0.02)


def test_the_front_has_the_answer_and_doing_nothing(made_up: Advice) -> None:
    found = {each.name: each for each in made_up.variants}
    assert {"as it is", "recommended"} <= set(found)
    assert found["as it is"].best and found["as it is"].loss <= min(each.loss for each in found.values())
    for one in found.values():
        beaten = any(o.cost <= one.cost and o.loss <= one.loss and o is not one for o in found.values())
        assert one.best or beaten


def test_walls_are_those_of_the_rules(made_up: Advice) -> None:
    for each in made_up.estate.loads:
        if each.workload.trust == "public" or each.workload.system or each.workload.needs_kernel:
            assert made_up.walls[each.name].level is Isolation.VM


def test_the_simulation_finds_who_is_short() -> None:
    whole = four()
    names = {each.name: "s0" for each in whole.loads}
    levels = {each.name: Isolation.CONTAINER for each in whole.loads}
    folded = sizing.slots(whole)
    plans = {each.name: sizing.size(each, None, 2.0, folded, PRICES).plan for each in whole.loads}
    fine = simulating.play(whole, names, frozenset(), levels=levels, plans=plans, prices=PRICES)
    assert fine.short == 0.0 and fine.worst == ""
    peak = replace(whole.loads[0], use=whole.loads[0].use.copy())
    peak.use[0, 5] = 15.0
    crowded = replace(whole, loads=(peak, *whole.loads[1:]))
    found = simulating.play(crowded, names, frozenset(), levels=levels, plans=plans, prices=PRICES)
    assert found.short == pytest.approx(1 / 336) and found.worst == "w0"
    small = {**plans, "w1": replace(plans["w1"], memory=GIB)}
    assert simulating.play(whole, names, frozenset(), levels=levels, plans=small, prices=PRICES).worst_short == 1.0


def test_hostile_ones_and_what_is_worth_most_are_apart_in_a_variant() -> None:
    loads = list(four().loads)
    loads[0] = replace(loads[0], workload=Workload("own", hostile_input=True))
    loads[1] = replace(loads[1], data="secret")
    advice = advise(replace(four(), loads=tuple(loads)), PRICES, effort=QUICK)
    apart = next(each for each in advice.variants if each.name == "apart")
    assert apart.hosts == 2 and apart.loss < next(e for e in advice.variants if e.name == "recommended").loss
