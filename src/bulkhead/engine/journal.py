"""Events: kept in the store, and handed on to those who follow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bulkhead.events import Event
from bulkhead.store import State

LISTEN_SECONDS = 0.5
"""How often a follower is asked whether anybody still listens."""


class Journal:
    """Events can be read, and followed."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._guard = threading.Lock()
        self._followers: set[queue.SimpleQueue[Event]] = set()

    @contextmanager
    def recording(self, event: Event) -> Iterator[None]:
        """One transaction of what the block changes and of the event that tells of it; then tell the followers."""
        with self._state.atomic():
            yield
            self._state.append_event(event)
        with self._guard:
            for follower in self._followers:
                follower.put(event)

    def read(self, *, since: float, until: float | None, follow: Callable[[], bool] | None) -> Iterator[Event]:
        """Events from `since` on, the oldest first; with `follow` also new ones while it says true."""
        if follow is None:
            yield from self._state.events(since=since, until=until)
            return
        arriving: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._guard:
            self._followers.add(arriving)
        try:
            # What is kept before it is told of can be in both.
            past = list(self._state.events(since=since, until=until))
            yield from past
            while follow() and (until is None or time.time() < until):
                try:
                    event = arriving.get(timeout=LISTEN_SECONDS)
                except queue.Empty:
                    continue
                if event not in past:
                    yield event
        finally:
            with self._guard:
                self._followers.discard(arriving)
