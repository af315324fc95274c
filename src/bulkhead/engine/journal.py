"""Events: kept in the store, and told to those who follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bulkhead.events import Event
from bulkhead.store import State

LISTEN_SECONDS = 0.5
"""How often a follower is asked whether anybody still listens."""


class Journal:
    """Events can be read, and followed. Followers read from the store: however slow one is, nothing piles up."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._grown = threading.Condition()
        self._generation = 0

    @contextmanager
    def recording(self, event: Event) -> Iterator[None]:
        """One transaction of what the block changes and of the event that tells of it; then tell the followers."""
        with self._state.atomic():
            yield
            self._state.append_event(event)
        with self._grown:
            self._generation += 1
            self._grown.notify_all()

    def read(
        self, *, since: float, until: float | None, follow: Callable[[], bool] | None, after: int = 0
    ) -> Iterator[Event]:
        """Events from `since` on with numbers above `after`, the oldest first; with `follow` also new ones while it
        says true.
        """
        last = after
        while True:
            seen = self._generation
            for event in self._state.events(since=since, until=until, after=last):
                last = event.number
                yield event
            if follow is None:
                return
            while follow() and (until is None or time.time() < until):
                with self._grown:
                    if self._generation != seen or self._grown.wait(LISTEN_SECONDS):
                        break
            else:
                return
