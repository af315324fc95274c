"""Watching records in etcd: a thread that reads the stream of one member, and goes on with the next where it ends."""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import urllib3
from urllib3.exceptions import HTTPError

from bulkhead.errors import Unavailable
from bulkhead.store.abilities import EVERY, Behind, Change
from bulkhead.store.etcd.gateway import Gateway, Unsure
from bulkhead.store.etcd.layout import KeyValue, Layout, pack

QUIET = 5.0
"""Seconds without a word after which the stream is opened anew: a member that was stopped says nothing, for ever."""
_AHEAD = 1_000
"""Changes that wait for whoever reads them."""
_PAUSE = 0.2
_JOIN = 2.0
_END = None


class _Compacted(Exception):
    """What is asked for is no longer kept."""


class RecordWatch:
    """A Watch. `ended` is called when it is closed."""

    def __init__(
        self,
        gateway: Gateway,
        layout: Layout,
        kind: str,
        prefix: str,
        *,
        after: int,
        ended: Callable[[RecordWatch], None],
    ) -> None:
        self._gateway, self._layout, self._ended = gateway, layout, ended
        self._first, self._end = layout.every() if kind == EVERY else layout.records(kind, prefix)
        self._after = after
        self._changes: queue.Queue[Change | Behind | None] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._guard = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._follow, name=f"watch-{kind or 'all'}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Change | Behind]:
        return self

    def __next__(self) -> Change | Behind:
        while not self._closed.is_set():
            found = self.next(60.0)
            if found is not None:
                return found
        raise StopIteration

    def next(self, timeout: float) -> Change | Behind | None:
        """See Watch.next."""
        if self._closed.is_set():
            return None
        with suppress(queue.Empty):
            return self._changes.get(timeout=timeout)
        return None

    def close(self) -> None:
        """See Watch.close."""
        self._closed.set()
        self._ended(self)
        with self._guard:
            if self._socket:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(queue.Empty):
            while True:  # whoever waits for room
                self._changes.get_nowait()
        with suppress(queue.Full):
            self._changes.put_nowait(_END)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside

    def _follow(self) -> None:
        while not self._closed.is_set():
            member = self._gateway.order()[0]
            try:
                self._read(member)
            except _Compacted:
                self._skip()
            except (Unsure, Unavailable):
                self._closed.wait(_PAUSE)

    def _read(self, member: int) -> None:
        """Pass on what one stream tells, until it ends or is quiet. Raises Unsure, Unavailable, _Compacted."""
        wanted = {"key": pack(self._first), "range_end": pack(self._end), "start_revision": str(self._after + 1)}
        response = self._gateway.open(member, "watch", {"create_request": wanted}, quiet=QUIET)
        begun = False
        try:
            self._hold(response)
            for line in _lines(response):
                answer = json.loads(line).get("result")
                if answer is None:
                    begun = False
                    break
                begun = True
                if answer.get("canceled"):
                    if int(answer.get("compact_revision", 0)):
                        raise _Compacted
                    begun = False
                    break
                self._tell(answer)
        except (HTTPError, OSError, ValueError):
            pass  # quiet, or cut off: from where we are
        finally:
            self._hold(None)
            response.close()
        if not begun:
            self._gateway.failed(member)
            self._closed.wait(_PAUSE)

    def _tell(self, answer: dict[str, Any]) -> None:
        """All of a revision comes in one answer, so that where we are is between revisions."""
        changes = []
        for event in answer.get("events", []):
            found = KeyValue.of(event["kv"])
            value = None if event.get("type") == "DELETE" else found.value.decode()
            kind, key = (part.decode() for part in self._layout.split(found.key))
            changes.append(Change(kind, key, value, found.modified))
        for change in changes:
            self._put(change)
        if changes:
            self._after = max(change.revision for change in changes)

    def _skip(self) -> None:
        """What came in between is not known any more."""
        try:
            answer = self._gateway.call("kv/range", {"key": pack(self._first), "count_only": True})
        except Unavailable:
            return
        self._after = int(answer["header"]["revision"])
        self._put(Behind(self._after))

    def _put(self, change: Change | Behind) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._changes.put(change, timeout=1.0)
                return

    def _hold(self, response: urllib3.BaseHTTPResponse | None) -> None:
        """Keep the stream's socket where `close` finds it; a descriptor of its own, which ends with the stream."""
        with self._guard:
            if self._socket:
                self._socket.close()
                self._socket = None
            connection = response.connection if response is not None else None
            made = getattr(connection, "sock", None)
            if made is not None:
                self._socket = socket.socket(fileno=os.dup(made.fileno()))
        if response is not None and self._closed.is_set():
            raise OSError("closed")


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Lines as they come; chunks of the transfer end where they like."""
    rest = b""
    for chunk in response.stream(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
