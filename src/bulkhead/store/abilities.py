"""What only a store that a fleet shares can do: Protocols of their own, so that nothing has to raise "not here".

Ask with isinstance: `if isinstance(store, Leases)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from bulkhead.store.base import Reader, Transaction

EVERY = ""
"""As the kind of a watch: records of all kinds, each commit's followed by a change of kind COMMITTED."""
COMMITTED = "~at"
"""All changes of this revision have been told."""


class Lease(Protocol):
    """A claim on time: records put under it vanish when its holder stops renewing it, which it does by itself.

    The holder never believes longer than the store does that it holds the lease: its time is counted from before
    the request of the last renewal was sent, on a clock that runs on while the host is suspended, less a margin for
    clocks that run at different speeds.
    """

    @property
    def id(self) -> int:
        """The store's own number of it."""

    @property
    def ttl(self) -> float:
        """Seconds that one renewal is good for."""

    @property
    def lost(self) -> Event:
        """Set, for good, when the store says that the lease is gone, or when no renewal came through in time."""

    def remaining(self) -> float:
        """Seconds for which it is certainly held if no further renewal succeeds; 0.0 when it is lost.

        Right also where the thread that renews it was stopped: who is about to do what only a holder may do asks
        this, not `lost`.
        """

    def revoke(self) -> None:
        """Give it up: its records vanish now, or when the store does not answer, in at most `ttl`. Idempotent."""


@runtime_checkable
class Hurries(Protocol):
    """A store that may be long in answering, and can be told not to be waited for."""

    def hurry(self) -> None:
        """Whoever uses it is about to end: where it does not answer soon, calls end in Unavailable, also those that are
        under way. Idempotent.
        """


@runtime_checkable
class Leases(Protocol):
    """A store with leases."""

    def grant(self, ttl: float) -> Lease:
        """A new lease of at least `ttl` seconds (whole ones, at least 2), renewed by a thread until it is revoked,
        lost, or the store is closed; closing revokes nothing. Raises Unavailable.
        """

    def put_leased(self, transaction: Transaction, kind: str, key: str, value: str, *, lease: Lease) -> None:
        """Transaction.put of a record that vanishes with `lease`; a later `put` without lease makes it stay.

        A commit with a lease that is gone raises Conflict, and changes nothing: what is written in the same
        transaction is written by the lease's holder or not at all.
        """


@dataclass(frozen=True, slots=True)
class Change:
    """A record as it is since `revision`."""

    kind: str
    key: str
    value: str | None
    """None: it was removed, or its lease has ended."""
    revision: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Changes up to `revision` are no longer known one by one: list again. The watch goes on after `revision`.

    A list that is made now is of a later moment: changes up to its revision that come afterwards are in it already.
    """

    revision: int


class Watch(Protocol):
    """Changes as they come; blocks while there are none. Resumes by itself, over broken connections and the loss of
    members, with nothing left out and nothing told twice. Several changes may have one revision: one transaction's.
    """

    def __iter__(self) -> Iterator[Change | Behind]:
        """Itself."""

    def __next__(self) -> Change | Behind:
        """The next change; StopIteration after `close`."""

    def next(self, timeout: float) -> Change | Behind | None:
        """The same, None after about `timeout` seconds without any, and after `close`."""

    def close(self) -> None:
        """End it, from any thread; idempotent."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """close."""


class Dated(Reader, Protocol):
    """A Reader of one moment that says which it is."""

    @property
    def revision(self) -> int:
        """What it has read is as of this revision; 0: it has read nothing yet."""


@runtime_checkable
class Watches(Protocol):
    """A store that tells what changes."""

    def revision(self) -> int:
        """The revision of the newest change of anything. Raises Unavailable."""

    def newest(self) -> int:
        """The revision of the newest commit of any client of this store; 0: there is none. Raises Unavailable.

        Whoever has seen all changes up to it has seen all that was committed before this was asked.
        """

    def dated(self) -> Dated:
        """A reader of one moment: what to `watch` after is its revision."""

    def listing(self, kind: str, prefix: str = "", *, stale: bool = False) -> tuple[list[tuple[str, str]], int]:
        """Reader.list, with the revision that it is as of: what to `watch` after."""

    def watch(self, kind: str, prefix: str = "", *, after: int) -> Watch:
        """Changes of a kind's records (or EVERY) whose keys begin with `prefix`, with a revision above `after`."""
