"""The contract between the daemon's state and the database that holds it.

A record is a JSON document under (kind, key); a transaction sees and changes any number of them, all or nothing.
Nothing here is SQL: one host keeps its state in SQLite, a fleet in etcd, and both pass tests/contract/stores.
What etcd alone can do is in `abilities`, as Protocols of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from bulkhead.events import Event

T = TypeVar("T")


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
    """Holds the records and the events. Safe to use from any thread.

    A store that others reach over a network raises Unavailable, within a bounded time, where it does not answer.
    """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Change records: serialisable, committed at the end of the block, rolled back by an exception.

        A second transaction in the same thread, while the first is open, is a RuntimeError. The end of the block may
        raise Contended where the store does not make writers wait for one another: somebody else has changed what
        this transaction has read, and nothing is changed by this one. Who can begin anew uses `attempt`. Undecided
        (an Unavailable) says that the store could not be asked in time whether the change was made; it was made
        whole, or not at all, or will be yet.
        """

    def attempt(self, body: Callable[[Transaction], T]) -> T:
        """Carry out `body` as one transaction, and again where it was Contended; what it returned the last time.

        `body` does nothing but read and write records, since it may be carried out several times. Its exceptions end
        the attempt. Raises Contended where even the last of a bounded number of tries was.
        """

    def read(self, *, stale: bool = False) -> AbstractContextManager[Reader]:
        """Read several records as of one moment, while others may write.

        With `stale` a moment that is past is good enough: a fleet's store then answers from any one member, also
        while there is no majority of them.
        """

    def append_event(self, event: Event) -> None:
        """Keep an event; the oldest ones are dropped where there are too many."""

    def events(self, *, since: float = 0.0, until: float | None = None, after: int = 0) -> Iterator[Event]:
        """Events with since <= when < until (seconds since the epoch) and a number above `after`, in the order in
        which they were appended. They have their numbers, which grow, but need not follow one another.
        """

    def check(self) -> list[str]:
        """What is damaged, in words; empty when nothing is. Reads everything: for `doctor` only."""

    def close(self) -> None:
        """Let go of the database; idempotent. Nothing else may be called afterwards."""
