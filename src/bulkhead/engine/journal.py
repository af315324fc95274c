"""Events: kept in the store, and handed on to those who follow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from bulkhead.events import Event
from bulkhead.store import State

LISTEN_SECONDS = 0.5
"""How often a follower is asked whether anybody still listens."""


class Journal:
    """An EventSink that can be read and followed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._guard = threading.Lock()
        self._followers: set[queue.SimpleQueue[Event]] = set()

    def emit(self, event: Event) -> None:
        """Keep an event and hand it to those who follow."""
        with self._guard:
            self._state.append_event(event)
            for follower in self._followers:
                follower.put(event)

    def read(self, *, since: float, until: float | None, follow: Callable[[], bool] | None) -> Iterator[Event]:
        """Events from `since` on, the oldest first; with `follow` also new ones while it says true."""
        if follow is None:
            yield from self._state.events(since=since, until=until)
            return
        arriving: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._guard:
            # Under the guard nothing is appended, so no event is in both or in neither.
            past = list(self._state.events(since=since, until=until))
            self._followers.add(arriving)
        try:
            yield from past
            while follow() and (until is None or time.time() < until):
                try:
                    yield arriving.get(timeout=LISTEN_SECONDS)
                except queue.Empty:
                    continue
        finally:
            with self._guard:
                self._followers.discard(arriving)
