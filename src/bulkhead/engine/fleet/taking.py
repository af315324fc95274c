"""The place that the current request has been given by whoever judged where it goes, while it is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from bulkhead.fleet import Place


@dataclass(slots=True)
class Taken:
    """A reserved place. Used by the threads that work for the request."""

    place: Place
    made: bool = False
    """Whether the instance is there: from then on nobody else is asked to make it."""
    recovering: bool = False
    """It is the place of what a lost host had: whatever goes wrong, it stays."""


_current: ContextVar[Taken | None] = ContextVar("bulkhead.place", default=None)


@contextmanager
def taking(place: Place, *, recovering: bool = False) -> Iterator[Taken]:
    """For what is done in this context, and in threads that get a copy of it."""
    taken = Taken(place, recovering=recovering)
    before = _current.set(taken)
    try:
        yield taken
    finally:
        _current.reset(before)


def current() -> Taken | None:
    """The place of the instance that this request makes; None where it has none."""
    return _current.get()
