"""Events in etcd: each under a key of its own, so that no host waits for another; numbered by their revision."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress

from bulkhead.errors import BulkheadError
from bulkhead.events import Event
from bulkhead.store.etcd.gateway import Gateway, Json, Rejected
from bulkhead.store.etcd.layout import KeyValue, Layout, pack, span

MAX_EVENTS = 10_000
"""In etcd everything is in memory, of each member."""
TRIM_EVERY = 500
_PER_REVISION = 1024
"""A number is a revision times this, and the event's place in its transaction."""
_PAGE = 2 * _PER_REVISION
_DELETED_AT_ONCE = 100


class Events:
    """Safe to use from any thread."""

    def __init__(self, gateway: Gateway, layout: Layout, *, most: int) -> None:
        self._gateway, self._layout, self._most = gateway, layout, most
        self._first, self._end = span(layout.event(""))
        self._guard = threading.Lock()
        self._appended = 0

    def append(self, event: Event) -> None:
        """Keep one. May be carried out twice: the second time the same is written to the same key."""
        key = self._layout.event(f"{new_name()}/0000")
        try:
            self._gateway.call("kv/put", {"key": pack(key), "value": pack(encoded(event))})
        except Rejected as error:
            raise error.error() from error
        self.appended(1)

    def appended(self, number: int) -> None:
        """So many more are kept: drop the oldest now and then."""
        every = min(TRIM_EVERY, self._most)
        with self._guard:
            before, self._appended = self._appended, self._appended + number
            due = self._appended // every > before // every
        if due:
            with suppress(BulkheadError, Rejected):  # next time; what was appended is
                self._trim()

    def read(self, *, since: float, until: float | None, after: int) -> Iterator[Event]:
        """See Store.events. Reads a page at a time."""
        begin = after // _PER_REVISION
        last = after
        while True:
            found, more = self._page(begin)
            if more:  # the last revision may go on in the next page
                begin = found[-1].created
                found = [one for one in found if one.created < begin]
            numbered = sorted((_number(one), one.value) for one in found)
            for number, value in numbered:
                if number <= last:
                    continue
                last = number
                event = Event(**{**json.loads(value), "number": number})
                if event.when >= since and (until is None or event.when < until):
                    yield event
            if not more:
                return

    def _page(self, begin: int) -> tuple[list[KeyValue], bool]:
        answer = self._range({"min_create_revision": str(begin), "limit": _PAGE})
        return [KeyValue.of(raw) for raw in answer.get("kvs", [])], bool(answer.get("more"))

    def _range(self, body: Json) -> Json:
        """The oldest first."""
        bounds = {"key": pack(self._first), "range_end": pack(self._end)}
        try:
            return self._gateway.call("kv/range", {**bounds, "sort_target": "CREATE", "sort_order": "ASCEND", **body})
        except Rejected as error:
            raise error.error() from error

    def _trim(self) -> None:
        counted = self._range({"count_only": True})
        surplus = int(counted.get("count", 0)) - self._most
        if surplus <= 0:
            return
        # As of the same revision, so that two who do this at once remove the same.
        body = {"keys_only": True, "limit": surplus, "revision": counted["header"]["revision"]}
        keys = [raw["key"] for raw in self._range(body).get("kvs", [])]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            chosen = keys[start : start + _DELETED_AT_ONCE]
            self._gateway.call("kv/txn", {"success": [{"request_delete_range": {"key": key}} for key in chosen]})


def new_name() -> str:
    """Begins the keys of one transaction's events."""
    return secrets.token_hex(16)


def encoded(event: Event) -> bytes:
    """The event's value."""
    fields = {field: getattr(event, field) for field in Event.__dataclass_fields__ if field != "number"}
    return json.dumps(fields, separators=(",", ":")).encode()


def _number(found: KeyValue) -> int:
    return found.created * _PER_REVISION + int(found.key[-4:])
