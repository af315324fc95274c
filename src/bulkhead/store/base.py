"""The contract between the daemon's state and the database that holds it.

A record is a JSON document under (kind, key); a transaction sees and changes any number of them, all or nothing.
Nothing here is SQL, so that a cluster can put etcd behind the same protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from bulkhead.events import Event


class Reader(Protocol):
    """A consistent view of all records."""

    def get(self, kind: str, key: str) -> str | None:
        """The JSON text of one record, None where there is none."""

    def list(self, kind: str, prefix: str = "") -> list[tuple[str, str]]:
        """(key, JSON text) of every record of a kind whose key begins with `prefix`, ordered by key."""


class Transaction(Reader, Protocol):
    """A view that can be changed. What was put is seen by the same transaction at once."""

    def put(self, kind: str, key: str, value: str) -> None:
        """Write a record, in place of the one that is there."""

    def insert(self, kind: str, key: str, value: str) -> bool:
        """Write a record where there is none; False, and nothing written, where the key is taken."""

    def delete(self, kind: str, key: str) -> bool:
        """Remove a record; False where there was none."""


class Store(Protocol):
    """Holds the records and the events. Safe to use from any thread."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Change records: serialisable, committed at the end of the block, rolled back by an exception.

        A second transaction in the same thread, while the first is open, is a RuntimeError.
        """

    def read(self) -> AbstractContextManager[Reader]:
        """Read several records as of one moment, while others may write."""

    def append_event(self, event: Event) -> None:
        """Keep an event; the oldest ones are dropped where there are too many."""

    def events(self, *, since: float = 0.0, until: float | None = None, after: int = 0) -> Iterator[Event]:
        """Events with since <= when < until (seconds since the epoch) and a number above `after`, in the order in
        which they were appended. They have their numbers.
        """

    def check(self) -> list[str]:
        """What is damaged, in words; empty when nothing is. Reads everything: for `doctor` only."""

    def close(self) -> None:
        """Let go of the database; idempotent. Nothing else may be called afterwards."""
