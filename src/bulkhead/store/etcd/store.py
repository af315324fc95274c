"""The state of a fleet in etcd: optimistic transactions, reads of one revision (docs/design/0028-etcd-store.md)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import TypeVar

from bulkhead.errors import Conflict, Contended, Refused
from bulkhead.events import Event
from bulkhead.store.abilities import Lease
from bulkhead.store.base import T, Transaction
from bulkhead.store.etcd import checking
from bulkhead.store.etcd.commits import Commits
from bulkhead.store.etcd.events import MAX_EVENTS, Events, encoded, new_name
from bulkhead.store.etcd.gateway import TLS, Gateway, Rejected
from bulkhead.store.etcd.layout import KeyValue, Layout, pack
from bulkhead.store.etcd.leases import HeldLease
from bulkhead.store.etcd.views import Changes, DatedView, Snapshot, View
from bulkhead.store.etcd.watches import RecordWatch

MOST_BYTES = 4 << 20
SERVER_FLAGS = (
    "--max-txn-ops=4096",
    f"--max-request-bytes={MOST_BYTES}",
    "--quota-backend-bytes=4294967296",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=1h",
)
"""What the etcd of a fleet is started with. With its defaults (128, 1.5 MiB, never compacted) the store works as well,
but refuses larger transactions, and etcd grows until it takes no more changes."""
Running = TypeVar("Running", HeldLease, RecordWatch)
TRIES = 60
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.005, 0.5
"""Seconds; what is waited for is below it, evenly distributed."""


class EtcdStore:
    """A Store, with Leases and Watches, on the members at `endpoints`, the nearest first.

    Opening it connects to nothing. Every call ends within about twice `timeout` seconds. Raises Refused for endpoints
    and names of clusters that are none, HostError for TLS files that cannot be used.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        cluster: str,
        tls: TLS | None = None,
        timeout: float = 10.0,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self._layout = Layout(cluster)
        self._gateway = Gateway(endpoints, tls=tls, timeout=timeout)
        self._commits = Commits(self._gateway, self._layout)
        self._events = Events(self._gateway, self._layout, most=max_events)
        self._open = local()
        self._guard = threading.Lock()
        self._running: set[HeldLease | RecordWatch] = set()
        self._closed = False

    # --- the protocol

    @contextmanager
    def transaction(self) -> Iterator[Changes]:
        """See Store.transaction."""
        self._check_open()
        if self._changes() is not None:
            raise RuntimeError("a transaction is already open in this thread")
        changes = Changes(Snapshot(self._gateway, self._layout), self._layout)
        self._open.changes = changes
        try:
            yield changes
        finally:
            del self._open.changes
        self._commit(changes)

    def attempt(self, body: Callable[[Transaction], T]) -> T:
        """See Store.attempt."""
        for number in range(TRIES):
            try:
                with self.transaction() as transaction:
                    return body(transaction)
            except Contended:
                if number == TRIES - 1:
                    raise
            backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(number, 10))
            time.sleep(random.uniform(0, backoff))  # noqa: S311 - only spreads them
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def read(self, *, stale: bool = False) -> Iterator[View]:
        """See Store.read. Inside of this thread's own transaction it is a view of that."""
        self._check_open()
        yield View(self._changes() or Snapshot(self._gateway, self._layout, stale=stale))

    def append_event(self, event: Event) -> None:
        """See Store.append_event. Part of this thread's transaction where one is open."""
        self._check_open()
        changes = self._changes()
        if changes is not None:
            changes.events.append(encoded(event))
        else:
            self._events.append(event)

    def events(self, *, since: float = 0.0, until: float | None = None, after: int = 0) -> Iterator[Event]:
        """See Store.events."""
        self._check_open()
        return self._events.read(since=since, until=until, after=after)

    def check(self) -> list[str]:
        """See Store.check: the members, whether they hold the same, and whether the records can be read."""
        self._check_open()
        return checking.check(self._gateway, self._layout)

    def hurry(self) -> None:
        """See Hurries.hurry."""
        self._gateway.hurry()

    def close(self) -> None:
        """See Store.close."""
        with self._guard:
            self._closed = True
            running = list(self._running)
        for one in running:
            one.close()
        self._commits.close()
        self._gateway.close()

    # --- leases and watches

    def grant(self, ttl: float) -> HeldLease:
        """See Leases.grant."""
        self._check_open()
        return self._keep(HeldLease.granted(self._gateway, ttl, ended=self._forget))

    def put_leased(self, transaction: Transaction, kind: str, key: str, value: str, *, lease: Lease) -> None:
        """See Leases.put_leased."""
        if not isinstance(transaction, Changes):
            raise TypeError("the transaction is another store's")
        transaction.put(kind, key, value)
        transaction.leases[kind, key] = lease.id

    def revision(self) -> int:
        """See Watches.revision."""
        self._check_open()
        answer = self._gateway.call("kv/range", {"key": pack(self._layout.everything()[0]), "count_only": True})
        return int(answer["header"]["revision"])

    def newest(self) -> int:
        """See Watches.newest."""
        self._check_open()
        found = self._gateway.call("kv/range", {"key": pack(self._layout.newest())}).get("kvs", [])
        return KeyValue.of(found[0]).modified if found else 0

    def dated(self) -> DatedView:
        """See Watches.dated."""
        self._check_open()
        return DatedView(Snapshot(self._gateway, self._layout))

    def listing(self, kind: str, prefix: str = "", *, stale: bool = False) -> tuple[list[tuple[str, str]], int]:
        """See Watches.listing."""
        self._check_open()
        snapshot = Snapshot(self._gateway, self._layout, stale=stale)
        return snapshot.list(kind, prefix), snapshot.revision

    def watch(self, kind: str, prefix: str = "", *, after: int) -> RecordWatch:
        """See Watches.watch."""
        self._check_open()
        return self._keep(RecordWatch(self._gateway, self._layout, kind, prefix, after=after, ended=self._forget))

    # --- inside

    def _commit(self, changes: Changes) -> None:
        if changes.empty:
            return
        operations = changes.operations(new_name())
        if changes.size > MOST_BYTES:
            what = f"the change is too large for etcd: {changes.size} bytes, of at most {MOST_BYTES}"
            raise Refused(what, hint="change fewer records at once, or smaller ones")
        try:
            self._commits.commit(changes.compares(), operations)
        except Rejected as error:
            if error.no_lease and changes.leases:
                hint = "whoever held it has to begin anew"
                raise Conflict("the lease that a record was to be put under is gone", hint=hint) from error
            raise error.error() from error
        if changes.events:
            self._events.appended(len(changes.events))

    def _changes(self) -> Changes | None:
        changes: Changes | None = getattr(self._open, "changes", None)
        return changes

    def _keep(self, one: Running) -> Running:
        """End it with the store."""
        with self._guard:
            if not self._closed:
                self._running.add(one)
                return one
        one.close()
        raise RuntimeError("the store is closed")

    def _forget(self, one: HeldLease | RecordWatch) -> None:
        """It has ended by itself, or was closed."""
        with self._guard:
            self._running.discard(one)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the store is closed")
