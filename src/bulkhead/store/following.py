"""A fleet's records as they are, kept by a watch: who asks pays for one small question instead of for all of them.

What is kept is always as of the end of one commit. An answer is never older than its question: the store is asked for
its newest commit first, and changes are waited for until that one. Where the watch has lost its
place everything is read anew; while it is not up to date in time, the question is answered by reading everything.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from bulkhead.errors import BulkheadError
from bulkhead.fleet import Fleet, Host, Place
from bulkhead.store.abilities import COMMITTED, EVERY, Behind, Change, Dated, Watch
from bulkhead.store.records import Records
from bulkhead.store.seen import ALIVE, SELF, SOLD, Seen, Sold, parse_sold

log = logging.getLogger(__name__)
PATIENCE = 2.0
"""Seconds for which changes are waited for before everything is read instead."""
AGAIN_SECONDS = 1.0
"""After which everything is read again where that failed."""
COMPLETE_SECONDS = 0.05
"""Without a word, after which all changes of a revision have come: what ends with a lease is no commit."""
_LOOK_SECONDS = 1.0
MANY = 10_000
"""Places above which what is kept is no longer looked through by Python's collector."""


class Watched(Protocol):
    """What is asked of the store."""

    def newest(self) -> int:
        """See Watches.newest."""

    def dated(self) -> Dated:
        """See Watches.dated."""

    def watch(self, kind: str, prefix: str = "", *, after: int) -> Watch:
        """See Watches.watch."""


@dataclass(slots=True)
class Kept:
    """The records, and what has changed since somebody last looked."""

    hosts: dict[str, Host] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    sold: dict[str, Sold] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    there: dict[str, dict[str, Place]] = field(default_factory=lambda: defaultdict(dict))
    """By host: what is placed there, or is about to come there."""
    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By tenant."""
    fleet: Fleet | None = None
    changed: set[str] = field(default_factory=set)
    """Ids of hosts of which something has changed, also of those that are gone."""

    def put_place(self, place: Place) -> None:
        """A place that is new or has changed."""
        self.drop_place(place.id)
        self.places[place.id] = place
        self.names[place.tenant].add(place.name)
        for host in (place.host, place.target):
            if host is not None:
                self.there[host][place.id] = place
                self.changed.add(host)

    def drop_place(self, instance_id: str) -> None:
        """A place that is free."""
        old = self.places.pop(instance_id, None)
        if old is None:
            return
        self.names[old.tenant].discard(old.name)
        for host in (old.host, old.target):
            if host is not None:
                self.there[host].pop(instance_id, None)
                self.changed.add(host)


class Following:
    """Safe to use from any thread. Nothing is kept before `begin`."""

    def __init__(self, store: Watched) -> None:
        self._store = store
        self._fleets = Records("fleet", Fleet, lambda _: SELF)
        self._hosts = Records("host", Host, lambda host: host.id)
        self._places = Records("place", Place, lambda place: place.id)
        self._kept = Kept()
        self._revision = 0
        """That the records are as of; 0: they are not to be used."""
        self._changed = threading.Condition()
        self._seen: Seen | None = None
        self._reading = False
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._follow, name="fleet-records", daemon=True)

    def begin(self) -> None:
        """Read everything, and follow what changes, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """End it. Idempotent."""
        self._closed.set()
        with self._changed:
            self._revision = 0
            watch = self._watch
            self._changed.notify_all()
        if watch is not None:
            watch.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def revision(self) -> int:
        """What the records are as of; 0 while they are not to be used."""
        return self._revision

    def seen(self) -> Seen | None:
        """The fleet as it is; None where it is to be read instead. Raises Unavailable where nobody knows."""
        with self.latest() as kept:
            if kept is None:
                return None
            if self._seen is None:
                self._seen = Seen(
                    hosts=tuple(sorted(kept.hosts.values(), key=lambda host: host.name)),
                    alive=frozenset(kept.alive),
                    sold=dict(kept.sold),
                    places=tuple(kept.places[key] for key in sorted(kept.places)),
                    fleet=kept.fleet,
                )
            return self._seen

    @contextmanager
    def latest(self) -> Iterator[Kept | None]:
        """The records as they are, which do not change within the block; None where they are to be read instead.

        Raises Unavailable where nobody knows.
        """
        newest = self._store.newest()
        with self._changed:
            ready = newest > 0 and self._reaches(newest)
            yield self._kept if ready and not self._closed.is_set() else None

    def _reaches(self, revision: int) -> bool:
        """Wait for it. While everything is being read nobody gains by reading it as well."""
        while not self._changed.wait_for(lambda: self._is_of(revision), PATIENCE):
            if not self._reading:
                return False
        return True

    def _is_of(self, revision: int) -> bool:
        return self._closed.is_set() or self._revision >= revision

    # --- the thread

    def _follow(self) -> None:
        said = ""
        while not self._closed.is_set():
            try:
                revision = self._read()
                said = ""
                with self._store.watch(EVERY, after=revision) as watch:
                    self._watch = watch
                    self._listen(watch)
            except BulkheadError as error:
                if error.what != said:
                    log.warning("the fleet's records are not followed: %s", error.what)
                said = error.what
                self._lost()
                self._closed.wait(AGAIN_SECONDS)
            except RuntimeError:  # the store is closed
                self._lost()
                return
            finally:
                self._watch = None

    def _read(self) -> int:
        """Everything, as of one revision."""
        self._reading = True
        try:
            return self._read_all()
        finally:
            self._reading = False

    def _read_all(self) -> int:
        reader, kept = self._store.dated(), Kept()
        kept.hosts = {key: self._hosts.read(key, text) for key, text in reader.list("host")}
        kept.alive = {key for key, _ in reader.list(ALIVE)}
        kept.sold = {key: parse_sold(text) for key, text in reader.list(SOLD)}
        for key, text in reader.list("place"):
            kept.put_place(self._places.read(key, text))
        own = reader.get("fleet", SELF)
        kept.fleet = None if own is None else self._fleets.read(SELF, own)
        with self._changed:
            kept.changed |= {*kept.hosts, *self._kept.hosts}
            self._kept, self._seen = kept, None
            if len(kept.places) > MANY:
                gc.collect()
                gc.freeze()
            self._revision = reader.revision
            self._changed.notify_all()
        return reader.revision

    def _lost(self) -> None:
        with self._changed:
            self._revision = 0

    def _listen(self, watch: Watch) -> None:
        """Until it is closed, or has lost its place. Raises HostError where a record cannot be read."""
        waiting: list[Change] = []
        while not self._closed.is_set():
            found = watch.next(COMPLETE_SECONDS if waiting else _LOOK_SECONDS)
            if isinstance(found, Behind):
                self._lost()
                return
            if waiting and (found is None or found.revision > waiting[-1].revision):
                self._apply(waiting)
                waiting = []
            if found is not None:
                waiting.append(found)
                if found.kind == COMMITTED:
                    self._apply(waiting)
                    waiting = []

    def _apply(self, changes: list[Change]) -> None:
        """All of one revision, at once."""
        with self._changed:
            for change in changes:
                apply = self._appliers.get(change.kind)
                if apply is not None:
                    apply(self, change.key, change.value)
                    self._seen = None
            self._revision = changes[-1].revision
            self._changed.notify_all()

    def _host(self, key: str, text: str | None) -> None:
        self._kept.changed.add(key)
        if text is None:
            self._kept.hosts.pop(key, None)
        else:
            self._kept.hosts[key] = self._hosts.read(key, text)

    def _alive(self, key: str, text: str | None) -> None:
        self._kept.changed.add(key)
        (self._kept.alive.discard if text is None else self._kept.alive.add)(key)

    def _sold(self, key: str, text: str | None) -> None:
        self._kept.changed.add(key)
        if text is None:
            self._kept.sold.pop(key, None)
        else:
            self._kept.sold[key] = parse_sold(text)

    def _place(self, key: str, text: str | None) -> None:
        if text is None:
            self._kept.drop_place(key)
        else:
            self._kept.put_place(self._places.read(key, text))

    def _of_fleet(self, key: str, text: str | None) -> None:
        if key == SELF:
            self._kept.fleet = None if text is None else self._fleets.read(key, text)

    _appliers: dict[str, Callable[[Following, str, str | None], None]] = {
        "host": _host,
        ALIVE: _alive,
        SOLD: _sold,
        "place": _place,
        "fleet": _of_fleet,
    }
