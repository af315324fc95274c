"""Server-sent events: numbered, so that a client that comes back misses nothing, with a heartbeat while it is quiet."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import Request
from starlette.responses import Response

from bulkhead.api import problems
from bulkhead.api.responses import Pipe, ThreadResponse
from bulkhead.api.service import service_of
from bulkhead.errors import BulkheadError, Refused

EVENT_STREAM = "text/event-stream"
BEAT_SECONDS = 15.0
"""The longest that nothing is sent: less than proxies wait, and how a client that has gone is found out."""
RETRY_MILLISECONDS = 2000
_MOST_DIGITS = 18


def wants_stream(request: Request) -> bool:
    """Whether the client asks for server-sent events."""
    kinds = [each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "").split(",")]
    return EVENT_STREAM in kinds


def last_seen(request: Request, after: int) -> int:
    """The number of the last event that the client has: its header's, else `after`. Raises Refused."""
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return after
    if not (given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS):
        raise Refused(f"Last-Event-ID {given[:40]!r} is not a number that an event had")
    return int(given)


class Stream:
    """One client's stream, from the thread that writes it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._sent = time.monotonic()
        self._write(b"retry: %d\n\n" % RETRY_MILLISECONDS)

    def alive(self) -> bool:
        """Whether anybody listens. Asked at least once a second by whoever waits; keeps the connection awake."""
        if self._pipe.alive() and time.monotonic() - self._sent >= BEAT_SECONDS:
            self._write(b": still here\n\n")
        return self._pipe.alive()

    def send(self, event: str, data: bytes, *, number: int | None = None) -> None:
        """One event; `data` is JSON, so it is one line."""
        numbered = b"" if number is None else b"id: %d\n" % number
        self._write(b"%bevent: %b\ndata: %b\n\n" % (numbered, event.encode(), data))

    def _write(self, data: bytes) -> None:
        self._pipe.write(data)
        self._sent = time.monotonic()


def stream(request: Request, produce: Callable[[Stream], None]) -> Response:
    """An answer that `produce` writes in a thread of its own. An error in the middle is an event `problem`."""
    answer = ThreadResponse(
        service_of(request), lambda pipe: produce(Stream(pipe)), media_type=EVENT_STREAM, late=_problem
    )
    answer.headers["cache-control"] = "no-store"
    answer.headers["x-accel-buffering"] = "no"
    return answer


def _problem(error: BulkheadError) -> bytes:
    return b"event: problem\ndata: " + problems.encode(error) + b"\n\n"
