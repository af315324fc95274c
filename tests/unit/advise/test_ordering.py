"""Orders of moves can be carried out, says a checker that shares nothing with them; and it finds what is wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.advise import checking, ordering
from bulkhead.advise.ordering import Step


def wants(*amounts: float) -> np.ndarray:
    return np.array([[amount, amount / 2] for amount in amounts])


def test_a_server_is_freed_and_retired() -> None:
    now, then = {"a": "s1", "b": "s2"}, {"a": "s1", "b": "s1"}
    demand = {"a": wants(1.0), "b": wants(2.0)}
    capacity = {"s1": (4.0,), "s2": (4.0,)}
    ordered = ordering.order(now, then, demand, capacity)
    assert [str(step) for step in ordered.steps] == [
        "prepare s1",
        "enclose a on s1",
        "move b from s2 to s1",
        "retire s2",
    ]
    assert checking.check(ordered.steps, now, then, demand, capacity) == []


def test_a_circle_takes_a_detour() -> None:
    now, then = {"a": "s1", "b": "s2", "c": "s3"}, {"a": "s2", "b": "s1", "c": "s3"}
    demand = {"a": wants(3.0), "b": wants(3.0), "c": wants(1.0)}
    capacity = dict.fromkeys(("s1", "s2", "s3"), (4.0,))
    ordered = ordering.order(now, then, demand, capacity)
    assert ordered.stuck == () and sum(step.what == "move" for step in ordered.steps) == 3
    assert checking.check(ordered.steps, now, then, demand, capacity) == []


def test_a_circle_without_room_is_told() -> None:
    now, then = {"a": "s1", "b": "s2"}, {"a": "s2", "b": "s1"}
    ordered = ordering.order(now, then, {"a": wants(3.0), "b": wants(3.0)}, {"s1": (4.0,), "s2": (4.0,)})
    assert ordered.stuck == ("a", "b")


@st.composite
def changes(
    draw: st.DrawFn,
) -> tuple[dict[str, str], dict[str, str], dict[str, np.ndarray], dict[str, tuple[float, ...]]]:
    """Two placements that fit, over one to three resources and slots."""
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    resources, slots = chance.randint(1, 3), chance.randint(1, 3)
    hosts = [f"s{at}" for at in range(chance.randint(1, 5))]
    demand = {
        f"w{at}": np.array([[chance.uniform(0, 4) for _ in range(slots)] for _ in range(resources)])
        for at in range(chance.randint(1, 9))
    }
    now = {name: chance.choice([*hosts, ""]) for name in demand}
    then = {name: chance.choice(hosts) for name in demand}
    capacity = {}
    for host in hosts:
        needs = [
            sum((demand[name] for name in demand if where[name] == host), np.zeros((resources, slots)))
            for where in (now, then)
        ]
        capacity[host] = tuple(
            max(float(need[row].max()) for need in needs) + chance.uniform(0.1, 3) for row in range(resources)
        )
    return now, then, demand, capacity


@settings(max_examples=200, deadline=None)
@given(changes())
def test_every_order_can_be_carried_out(change: tuple) -> None:  # type: ignore[type-arg]
    now, then, demand, capacity = change
    ordered = ordering.order(now, then, demand, capacity)
    assert ordered == ordering.order(now, then, demand, capacity)
    if ordered.stuck:
        # Up to there it holds all the same.
        reached = dict(now)
        for step in ordered.steps:
            if step.what in ("move", "create"):
                reached[step.workload] = step.host
        then = {name: reached[name] for name in then if reached[name]}
        now = {name: now[name] for name in then}
        wrong = checking.check(ordered.steps, now, then, demand, capacity)
        assert not [line for line in wrong if "wanted in slot" in line or "it is on" in line], wrong
        return
    assert checking.check(ordered.steps, now, then, demand, capacity) == []


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ([Step("move", "s1", "b", "s2")], "is no host then"),
        ([Step("prepare", "s1"), Step("enclose", "s1", "a")], "b ends on s2 instead of s1"),
        ([Step("prepare", "s1"), Step("move", "s1", "b", "s2")], "a stays on s1 and never gets its wall"),
        (
            [Step("prepare", "s1"), Step("enclose", "s1", "a"), Step("retire", "s2"), Step("move", "s1", "b", "s2")],
            "needs it",
        ),
        ([Step("prepare", "s1"), Step("enclose", "s1", "a"), Step("move", "s1", "b", "s3")], "it is on s2"),
        ([Step("prepare", "s1"), Step("enclose", "s1", "b")], "it is not there"),
    ],
)
def test_the_checker_finds_what_is_wrong(steps: list[Step], word: str) -> None:
    now, then = {"a": "s1", "b": "s2"}, {"a": "s1", "b": "s1"}
    demand, capacity = {"a": wants(1.0), "b": wants(2.0)}, {"s1": (4.0,), "s2": (4.0,), "s3": (4.0,)}
    assert any(word in line for line in checking.check(steps, now, then, demand, capacity))


def test_the_checker_counts_both_copies() -> None:
    now, then = {"a": "s1", "b": "s2"}, {"a": "s2", "b": "s2"}
    demand, capacity = {"a": wants(3.0), "b": wants(2.0)}, {"s1": (4.0,), "s2": (4.0,)}
    steps = [Step("prepare", "s2"), Step("enclose", "s2", "b"), Step("move", "s2", "a", "s1"), Step("retire", "s1")]
    assert any("5 are wanted in slot 0" in line for line in checking.check(steps, now, then, demand, capacity))
