"""Single questions with answers that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bulkhead.advise.packing import Answer, HostType, Item, Place, Problem, check, pack, quick
from bulkhead.advise.packing.building import build
from bulkhead.advise.packing.columns import Generator
from bulkhead.advise.packing.core import Core
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.greedy import by_host, weighings
from bulkhead.advise.packing.model import Floats
from bulkhead.advise.packing.pricing import Pricer
from bulkhead.errors import Refused


def crowd(number: int, columns: int, *, seed: int = 0, low: float = 0.1, high: float = 0.4) -> Problem:
    """Items by chance on one host type of size 1."""
    sizes = np.random.default_rng(seed).uniform(low, high, (number, columns))
    items = tuple(Item(f"i{index}", size) for index, size in enumerate(sizes))
    return Problem(tuple(f"r{column}" for column in range(columns)), (HostType("h", np.ones(columns)),), items)


def test_triples_that_fill_hosts_to_the_brim_are_found() -> None:
    """Three sizes of each host add up to it exactly: nothing may be wasted, and first fit wastes."""
    rng = np.random.default_rng(3)
    sizes = []
    for _ in range(20):
        first, second = rng.integers(380, 490), rng.integers(260, 300)
        sizes += [first, second, 1000 - first - second]
    items = tuple(Item(f"i{index}", (size,)) for index, size in enumerate(sizes))
    problem = Problem(("r",), (HostType("h", (1000,)),), items)
    answer = pack(problem, seconds=20)
    assert answer.hosts == 20 and answer.proven


def test_what_peaks_at_different_times_shares_a_host() -> None:
    day = tuple(Item(f"day{index}", [[8, 8, 1, 1]]) for index in range(5))
    night = tuple(Item(f"night{index}", [[1, 1, 8, 8]]) for index in range(5))
    answer = pack(Problem(("cpu",), (HostType("h", (10,)),), (*day, *night)), seconds=5)
    assert answer.hosts == 5 and answer.proven


def test_a_month_of_steps_is_packed_by_all_of_them() -> None:
    rng = np.random.default_rng(5)
    time = np.arange(2000)
    items = []
    for index in range(40):
        wave = 0.1 + 0.08 * np.sin(2 * np.pi * (time / 288 + rng.random())) + 0.02 * rng.random((2, 2000))
        items.append(Item(f"i{index}", wave))
    problem = Problem(("cpu", "memory"), (HostType("h", (1.0, 1.0)),), tuple(items))
    answer = pack(problem, seconds=10)
    peaks = sum(float(np.asarray(item.demand).max()) for item in items)
    assert check(problem, answer) == []
    assert answer.hosts < np.ceil(peaks), "no better than by peaks alone"
    assert 0 < answer.bound <= answer.hosts


def test_the_cheapest_mixture_of_hosts_is_found() -> None:
    hosts = (HostType("small", (4, 8), 3.0), HostType("large", (16, 32), 10.0, 1))
    items = tuple(Item(f"i{index}", (4, 8)) for index in range(6))
    answer = pack(Problem(("cpu", "memory"), hosts, items), seconds=5)
    assert answer.cost == 16 and answer.proven
    assert sum(place.type == "large" for place in answer.places.values()) == 4


def test_moving_is_done_where_it_pays() -> None:
    """Staying is free, a move costs 2 and a host 5: three hosts become one, and nothing else moves."""
    hosts = tuple(HostType(name, (10,), 5.0, 1) for name in "abc")
    where = {"i0": "a", "i1": "b", "i2": "c"}
    items = tuple(
        Item(name, (3,), extra={other: 2.0 for other in "abc" if other != here}) for name, here in where.items()
    )
    start = {name: Place(here, 0) for name, here in where.items()}
    answer = pack(Problem(("cpu",), hosts, items, start=start), seconds=5)
    assert answer.cost == 9 and answer.hosts == 1 and answer.proven
    dear = tuple(replace(item, extra=dict.fromkeys(item.extra, 6.0)) for item in items)
    assert pack(Problem(("cpu",), hosts, dear, start=start), seconds=5).places == start


def test_too_few_hosts_leave_items_over_and_say_so() -> None:
    hosts = (HostType("h", (10,), 1.0, 2),)
    answer = pack(Problem(("cpu",), hosts, tuple(Item(f"i{index}", (6,)) for index in range(3))), seconds=2)
    assert len(answer.unplaced) == 1 and not answer.complete and not answer.proven
    assert check(Problem(("cpu",), hosts, tuple(Item(f"i{index}", (6,)) for index in range(3))), answer) == []


def test_fixed_items_stay_and_leave_room_for_others() -> None:
    hosts = (HostType("h", (10,), 1.0, 3),)
    items = tuple(Item(f"i{index}", (4,)) for index in range(4))
    rules = {"fixed": {"i0": Place("h", 2)}, "affinity": (frozenset({"i0", "i1"}),)}
    answer = pack(Problem(("cpu",), hosts, items, **rules), seconds=2)
    assert answer.places["i0"] == answer.places["i1"] == Place("h", 2)
    assert answer.hosts == 2 and answer.proven


def test_everything_that_is_wrong_is_told_at_once() -> None:
    items = (Item("a", (1, 2)), Item("a", (1,)), Item("b", (-1,)), Item("c", (99,)), Item("d", (1,), frozenset({"x"})))
    problem = Problem(
        ("cpu",),
        (HostType("h", (10,), -1.0), HostType("g", (float("nan"),))),
        items,
        anti_affinity=(frozenset({"a", "nobody"}),),
        fixed={"b": Place("y", 0)},
    )
    with pytest.raises(Refused) as refused:
        pack(problem)
    text = "\n".join(each.what for each in refused.value.problems)
    for part in (
        "item a is there 2 times",
        "shape (2,)",
        "b: its demand",
        "x is no host",
        "cost is -1",
        "nan",
        "nobody",
        "y",
    ):
        assert part in text, part


def test_what_no_host_holds_is_refused_by_name() -> None:
    items = (Item("giant", (99, 1)), Item("ogre", (1, 99)), Item("dwarf", (1, 1)))
    with pytest.raises(Refused) as refused:
        pack(Problem(("cpu", "memory"), (HostType("h", (10, 10)),), items))
    assert [each.what.split()[0] for each in refused.value.problems] == ["giant", "ogre"]


def test_rules_that_contradict_one_another_are_refused() -> None:
    pair = (frozenset({"a", "b"}),)
    items = (Item("a", (6,)), Item("b", (5,)))
    hosts = (HostType("h", (10,)),)
    with pytest.raises(Refused, match="apart and together"):
        pack(Problem(("cpu",), hosts, items, anti_affinity=pair, affinity=pair))
    with pytest.raises(Refused, match="together"):
        pack(Problem(("cpu",), hosts, items, affinity=pair), seconds=1)
    with pytest.raises(Refused, match="more than it has"):
        pack(Problem(("cpu",), hosts, items, fixed={"a": Place("h", 0), "b": Place("h", 0)}))


def test_nothing_to_pack_costs_nothing() -> None:
    answer = pack(Problem(("cpu",), (HostType("h", (1,)),), ()), seconds=1)
    assert (answer.cost, answer.bound, answer.hosts, answer.proven) == (0, 0, 0, True)


def test_thousands_are_packed_within_the_time_with_a_gap() -> None:
    problem = crowd(3000, 3)
    answer = pack(problem, seconds=8)
    assert check(problem, answer) == [] and answer.complete
    assert answer.bound <= answer.cost and answer.gap < 0.25


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answer: {"places": {**answer.places, "i1": answer.places["i0"]}}, "has 1 r0"),
        (lambda answer: {"unplaced": ("i0",)}, "a place and none"),
        (
            lambda answer: {"places": {name: place for name, place in answer.places.items() if name != "i2"}},
            "i2 is not told",
        ),
        (lambda answer: {"cost": answer.cost - 1}, "is told"),
        (lambda answer: {"bound": answer.cost + 1}, "below the bound"),
        (lambda answer: {"places": {**answer.places, "i0": Place("x", 0)}}, "no host type"),
        (lambda answer: {"places": {**answer.places, "nobody": Place("h", 0)}}, "is no item"),
    ],
)
def test_the_checker_finds_what_is_wrong(change: object, said: str) -> None:
    problem = crowd(6, 2, low=0.6, high=0.7)
    answer: Answer = pack(problem, seconds=1)
    assert check(problem, answer) == []
    assert callable(change)
    assert any(said in one for one in check(problem, replace(answer, **change(answer))))


def test_the_checker_knows_every_rule() -> None:
    items = tuple(Item(f"i{index}", (1,), hosts=frozenset({"h"})) for index in range(3))
    problem = Problem(
        ("cpu",),
        (HostType("h", (10,), 1.0, 2), HostType("g", (10,), 1.0)),
        items,
        (frozenset({"i0", "i1"}),),
        (frozenset({"i1", "i2"}),),
        fixed={"i2": Place("h", 1)},
    )
    places = {"i0": Place("g", 0), "i1": Place("g", 0), "i2": Place("h", 7)}
    told = "\n".join(check(problem, Answer(places, (), 2.0, 0.0, "", False, 0.0)))
    for part in ("i0 may not be", "to be apart", "to be together", "fixed on h 1", "there are 2 of them"):
        assert part in told, part


def test_sets_that_are_forgotten_are_gone_from_the_program_and_cost_no_optimum() -> None:
    core = build(crowd(30, 2)).core
    generator = Generator(core, Effort.of(60))
    generator.converge(Effort.of(60), float("inf"))
    first = generator.master.solve()
    assert not generator.master.trim(len(generator.master.columns), first)
    assert generator.master.trim(35, first)
    again = generator.master.solve()
    assert len(again.used) == len(generator.master.columns) == 35
    assert again.cost == pytest.approx(first.cost)
    for (_, classes), much in zip(generator.master.columns, again.used, strict=True):
        assert much <= 1e-9 or core.fits(0, classes)


def best_of_all_sets(core: Core, profit: Floats) -> float:
    """By looking at every one of them."""
    chosen = (np.arange(1 << len(profit))[:, None] >> np.arange(len(profit))) & 1
    return float((chosen @ profit)[(chosen @ core.size <= core.room[0]).all(axis=1)].max())


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (0.05, 0.1), (0.04, 0.09)])
def test_no_set_is_worth_more_than_the_ceiling_of_the_pricing(low: float, high: float) -> None:
    """However few sets it keeps, and however many items a host holds."""
    for seed in range(4):
        core = build(crowd(15, 2, seed=seed, low=low, high=high)).core
        profit = 1.0 + 0.1 * np.random.default_rng(seed).random(15)
        best = best_of_all_sets(core, profit)
        for width in (1, 2, 10, 400):
            found = Pricer(core, Effort.of(60)).price(0, profit, core.count, 0.9 * best, width)
            assert found.ceiling >= best - 1e-9, (seed, width)
            assert all(core.fits(0, one) for one in found.sets)
        assert found.values.max() >= 0.97 * best


def test_many_are_packed_no_worse_than_the_quick_way() -> None:
    problem = crowd(1500, 2)
    answer = pack(problem, seconds=6)
    assert check(problem, answer) == []
    assert answer.hosts <= quick(problem).hosts


def test_a_clock_that_stands_still_ends_nothing_and_one_that_runs_away_ends_the_search_with_an_answer() -> None:
    problem = crowd(60, 3)
    ticks = iter(range(10**9))
    hurried = pack(problem, seconds=10, clock=lambda: float(next(ticks)))
    assert hurried.cut and hurried.complete and check(problem, hurried) == []
    still = pack(problem, seconds=1, clock=lambda: 0.0)
    assert not still.cut and still.places == pack(problem, seconds=1, clock=lambda: 0.0).places


@pytest.mark.parametrize("rule", ["dot", "norm", "pairs"])
@pytest.mark.parametrize("columns", [2, 20])
def test_hosts_are_filled_as_far_as_anything_fits(rule: str, columns: int) -> None:
    core = build(crowd(300, columns)).core
    packing = by_host(core, weighings(core)["average"], rule, Effort.of(60), "average")
    assert sorted(one for _, held in packing.bins for one in held) == list(range(300)) and not packing.left
    left = np.ones(300, np.bool_)
    for kind, held in packing.bins:
        assert core.fits(kind, held)
        left[list(held)] = False
        for one in np.nonzero(left)[0].tolist():
            assert not core.fits(kind, (*held, one))
