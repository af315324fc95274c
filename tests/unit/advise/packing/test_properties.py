"""What holds of every answer: rules kept, bounds honest, nothing better by hand where everything can be tried."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bulkhead.advise.packing import Answer, HostType, Item, Problem, check, pack, quick
from bulkhead.errors import Refused
from tests.unit.advise.packing.brute import least_cost
from tests.unit.advise.packing.problems import problems

PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SECONDS = 30.0


def packed(problem: Problem) -> Answer:
    """An answer, or no example where the rules leave none: rules that contradict are another test's."""
    try:
        return pack(problem, seconds=SECONDS)
    except Refused:
        assume(False)
        raise


@PATIENT
@given(problems())
def test_small_ones_are_packed_for_the_least_cost(problem: Problem) -> None:
    answer = packed(problem)
    least = least_cost(problem)
    assert check(problem, answer) == []
    if least is None:
        assert not answer.complete
        return
    assert answer.complete
    assert answer.bound <= least + 1e-6
    assert answer.cost == pytest.approx(least), "not the least cost"


@PATIENT
@given(problems())
def test_the_same_question_has_the_same_answer(problem: Problem) -> None:
    one, other = packed(problem), packed(problem)
    assume(not one.cut and not other.cut)
    assert (one.places, one.cost, one.bound) == (other.places, other.cost, other.bound)


@PATIENT
@given(problems(), st.integers(0, 3))
def test_more_hosts_or_less_demand_cost_no_more_than_the_gap_tells(problem: Problem, which: int) -> None:
    answer = packed(problem)
    assume(answer.complete)
    if which == 0:
        easier = replace(problem, hosts=tuple(replace(host, count=None) for host in problem.hosts))
    elif which == 1:
        items = tuple(replace(item, demand=np.asarray(item.demand) * 0.9) for item in problem.items)
        easier = replace(problem, items=items)
    elif which == 2:
        easier = replace(problem, anti_affinity=())
    else:
        assume(
            problem.items and problem.items[-1].name not in {*problem.fixed, *(n for r in problem.affinity for n in r)}
        )
        last = problem.items[-1].name
        rules = tuple(rule - {last} for rule in problem.anti_affinity)
        easier = replace(problem, items=problem.items[:-1], anti_affinity=rules)
    found = packed(easier)
    assert found.complete
    # The easier one's least cost is no more than this answer's; so no more than its own gap is lost.
    assert found.cost * (1 - found.gap) <= answer.cost + 1e-6


@st.composite
def crowds(draw: st.DrawFn) -> Problem:
    """Some dozens of items, one host type: too many to try everything."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    columns = draw(st.integers(1, 8))
    number = draw(st.integers(10, 60))
    low, high = draw(st.sampled_from(((0.05, 0.3), (0.1, 0.45), (0.0, 1.0), (0.25, 0.7))))
    sizes = rng.uniform(low, high, (number, columns))
    if draw(st.booleans()):
        sizes = np.round(sizes, 1)
    items = tuple(Item(f"i{index}", size) for index, size in enumerate(sizes))
    apart = tuple(
        frozenset(f"i{index}" for index in rng.choice(number, 3, replace=False)) for _ in range(draw(st.integers(0, 4)))
    )
    return Problem(tuple(f"r{column}" for column in range(columns)), (HostType("h", np.ones(columns)),), items, apart)


@settings(max_examples=15, deadline=None)
@given(crowds())
def test_crowds_keep_the_rules_and_are_no_worse_than_the_quick_way(problem: Problem) -> None:
    answer, simple = pack(problem, seconds=1.0), quick(problem)
    assert check(problem, answer) == [] and check(problem, simple) == []
    assert answer.complete and answer.bound <= answer.cost
    # What a busy machine's clock has cut short is honest all the same, and may be no better.
    assert answer.cut or answer.cost <= simple.cost
    assert answer.bound >= math.ceil(max(np.array([item.demand for item in problem.items]).sum(axis=0)) - 1e-6) - 1e-9
    assert max(answer.bound, simple.bound) <= min(answer.cost, simple.cost) + 1e-9
