"""Whether calls that overlapped could have been one after the other: Wing and Gong's search, with Lowe's memory.

Each call takes effect at one moment between its begin and its end. What is looked for is an order of such moments in
which every call does what it was seen to do. A call that is *optional* may also never take effect: one of which nobody
knows how it ended has no end (math.inf), and may take effect at any time after its begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")
"""Of the thing that is called; has to be hashable."""
MOST = 2_000_000
"""Situations that are looked at before the search gives up."""


@dataclass(frozen=True, slots=True)
class Call(Generic[State]):
    """One moment that is looked for."""

    began: float
    ended: float
    step: Callable[[State], Iterable[State]]
    """What it makes of a state: one for each way in which it can have come about, none where it cannot."""
    optional: bool = False
    words: str = ""


class Unclear(Exception):
    """There are too many situations to look at: it is not known."""


@dataclass(slots=True)
class _Situation(Generic[State]):
    """So far: who has taken effect (a bit each), what came of it, and who may be next."""

    done: int
    state: State
    floor: float
    """The latest begin of those: nothing that ended before it can still take effect."""
    choices: Iterator[tuple[int, State]]


def order(calls: Iterable[Call[State]], initial: State, *, most: int = MOST) -> list[Call[State]] | None:
    """One order in which all of them are possible; None where there is none. Raises Unclear.

    Whoever is optional and is not in it never took effect.
    """
    sorted_calls = sorted(calls, key=lambda call: (call.began, call.ended))
    wanted = sum(1 << number for number, call in enumerate(sorted_calls) if not call.optional)
    path: list[int] = []
    seen = {(0, initial)}
    stack = [_Situation(0, initial, -math.inf, _choices(sorted_calls, 0, initial, -math.inf))]
    while stack:
        here = stack[-1]
        if here.done & wanted == wanted:
            return [sorted_calls[number] for number in path]
        found = next(here.choices, None)
        if found is None:
            stack.pop()
            if path:
                path.pop()
            continue
        number, state = found
        done = here.done | 1 << number
        if (done, state) in seen:
            continue
        if len(seen) >= most:
            raise Unclear(f"{len(sorted_calls)} calls: more than {most} situations")
        seen.add((done, state))
        path.append(number)
        floor = max(here.floor, sorted_calls[number].began)
        stack.append(_Situation(done, state, floor, _choices(sorted_calls, done, state, floor)))
    return None


def _choices(calls: Sequence[Call[State]], done: int, state: State, floor: float) -> Iterator[tuple[int, State]]:
    """Who may be next, with what comes of it: nobody who began after somebody who is still to come had ended."""
    horizon = math.inf
    open_calls = []
    for number in range((~done & (done + 1)).bit_length() - 1, len(calls)):  # from the first that is still to come
        call = calls[number]
        if call.began > horizon:
            break
        if done >> number & 1:
            continue
        if not call.optional:
            horizon = min(horizon, call.ended)
        open_calls.append(number)
    for number in open_calls:
        call = calls[number]
        if call.began <= horizon and call.ended >= floor:
            for after in call.step(state):
                yield number, after
