"""The search finds an order where there is one, and only there: held to trying every order there is."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.linearizing import Call, Unclear, order


def write(value: int) -> Callable[[int], Iterable[int]]:
    return lambda _: [value]


def read(value: int) -> Callable[[int], Iterable[int]]:
    return lambda state: [state] if state == value else []


def add(seen: int) -> Callable[[int], Iterable[int]]:
    """Counts up; was told what there was before."""
    return lambda state: [state + 1] if state == seen else []


def call(began: float, ended: float, step: Callable[[int], Iterable[int]], *, optional: bool = False) -> Call[int]:
    return Call(began, ended, step, optional)


def test_nothing_is_in_order() -> None:
    assert order([], 0) == []


def test_one_after_the_other() -> None:
    calls = [call(0, 1, write(1)), call(2, 3, read(1)), call(4, 5, write(2)), call(6, 7, read(2))]
    assert order(calls, 0) == calls


def test_what_was_read_is_old() -> None:
    assert order([call(0, 1, write(1)), call(2, 3, read(0))], 0) is None


def test_two_that_overlap_are_in_whichever_order_explains_what_was_read() -> None:
    one, other = call(0, 10, write(1)), call(1, 9, write(2))
    assert order([one, other, call(11, 12, read(1))], 0) is not None
    assert order([one, other, call(11, 12, read(2))], 0) is not None
    assert order([one, other, call(11, 12, read(1)), call(13, 14, read(2))], 0) is None


def test_readers_do_not_go_back() -> None:
    """While a write goes on one reader may see it and one may not, but not the later one."""
    writing = call(0, 10, write(1))
    assert order([writing, call(1, 2, read(0)), call(3, 4, read(1))], 0) is not None
    assert order([writing, call(1, 2, read(1)), call(3, 4, read(0))], 0) is None
    assert order([writing, call(1, 4, read(1)), call(2, 3, read(0))], 0) is not None


def test_a_lost_update() -> None:
    assert order([call(0, 3, add(0)), call(1, 4, add(0))], 0) is None
    assert order([call(0, 3, add(0)), call(1, 4, add(1))], 0) is not None


def test_an_unknown_end_may_be_any_time_or_never() -> None:
    unknown = call(0, math.inf, write(1), optional=True)
    assert order([unknown, call(1, 2, read(0)), call(3, 4, read(1)), call(5, 6, read(1))], 0) is not None
    assert order([unknown, call(1, 2, read(0)), call(3, 4, read(0))], 0) is not None
    assert order([unknown, call(1, 2, read(1)), call(3, 4, read(0))], 0) is None
    assert order([call(5, math.inf, write(1), optional=True), call(1, 2, read(1))], 0) is None, "before it began"


def test_what_may_not_have_happened_happened_before_its_end() -> None:
    maybe = call(0, 2, write(1), optional=True)
    assert order([maybe, call(3, 4, read(0)), call(5, 6, read(1))], 0) is None
    assert order([maybe, call(3, 4, read(1))], 0) is not None


def test_a_step_that_can_come_about_in_several_ways() -> None:
    either = call(0, 1, lambda _: [1, 2])
    assert order([either, call(2, 3, read(2))], 0) is not None
    assert order([either, call(2, 3, read(3))], 0) is None


def test_it_gives_up_rather_than_guess() -> None:
    calls = [call(0, 100, write(number)) for number in range(20)] + [call(101, 102, read(99))]
    with pytest.raises(Unclear):
        order(calls, 0, most=1000)


def test_long_histories_of_few_at_a_time_take_no_time() -> None:
    """A thousand calls, some of them never ended: without memory it would not end."""
    dice, calls, value = random.Random(1), [], 0
    for number in range(1000):
        if dice.random() < 0.5:
            value = number
            calls.append(call(number, number + 1.5, write(value)))
        else:
            calls.append(call(number + 0.6, number + 1.0, read(value)))
    calls += [call(number * 200, math.inf, write(-1), optional=True) for number in range(4)]
    assert order(calls, 0) is not None
    calls.append(call(2000, 2001, read(12345)))
    assert order(calls, 0) is None


def brute(calls: list[Call[int]], initial: int) -> bool:
    """Every subset that leaves out optional ones alone, in every order."""
    needed = [each for each in calls if not each.optional]
    spare = [each for each in calls if each.optional]
    for size in range(len(spare) + 1):
        for extra in itertools.combinations(spare, size):
            for row in itertools.permutations([*needed, *extra]):
                if all(later.ended >= earlier.began for earlier, later in itertools.combinations(row, 2)) and run(
                    row, initial
                ):
                    return True
    return False


def run(row: Iterable[Call[int]], initial: int) -> bool:
    states = {initial}
    for each in row:
        states = {after for state in states for after in each.step(state)}
    return bool(states)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**48))
def test_as_trying_everything_says(seed: int) -> None:
    dice, calls = random.Random(seed), []
    for _ in range(dice.randint(1, 6)):
        began = dice.randint(0, 8)
        optional = dice.random() < 0.3
        ended = math.inf if optional and dice.random() < 0.5 else began + dice.randint(0, 5)
        step = dice.choice((write, read, add))(dice.randint(0, 2))
        calls.append(call(began, ended, step, optional=optional))
    found = order(calls, 0)
    assert (found is not None) == brute(calls, 0)
    if found is not None:
        assert run(found, 0)
