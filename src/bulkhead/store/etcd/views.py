"""Reading etcd as of one revision; transactions: what was read is compared, what is written waits for the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bulkhead.errors import Contended, Unavailable
from bulkhead.store.etcd.gateway import PATIENCE, Gateway, Rejected, Unsure
from bulkhead.store.etcd.layout import KeyValue, Layout, pack

Pairs = list[tuple[str, str]]
KeyValues = list[KeyValue]
Bodies = list[dict[str, Any]]
_PAGE = 1_000
"""Records per answer."""


class Source(Protocol):
    """What a reader reads from."""

    def get(self, kind: str, key: str) -> str | None:
        """See Reader.get."""

    def list(self, kind: str, prefix: str = "") -> Pairs:
        """See Reader.list."""


class View:
    """A Reader: the source without what changes it."""

    __slots__ = ("_source",)

    def __init__(self, source: Source) -> None:
        self._source = source

    def get(self, kind: str, key: str) -> str | None:
        return self._source.get(kind, key)

    def list(self, kind: str, prefix: str = "") -> Pairs:
        return self._source.list(kind, prefix)


class DatedView(View):
    """One that says what it is as of."""

    __slots__ = ("_snapshot",)

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._snapshot = snapshot

    @property
    def revision(self) -> int:
        """See Dated.revision."""
        return self._snapshot.revision


class Snapshot:
    """Reads as of the revision that the first of them found; what was read is not asked for again.

    With `stale` any one member answers, and goes on answering as long as it does.
    """

    def __init__(self, gateway: Gateway, layout: Layout, *, stale: bool = False) -> None:
        self._gateway, self._layout, self._stale = gateway, layout, stale
        self.revision = 0
        """0: nothing was read yet."""
        self.found: dict[bytes, KeyValue | None] = {}
        self.scanned: dict[tuple[str, str], KeyValues] = {}

    def get(self, kind: str, key: str) -> str | None:
        """See Reader.get."""
        found = self.look(self._layout.record(kind, key))
        return None if found is None else found.value.decode()

    def list(self, kind: str, prefix: str = "") -> Pairs:
        """See Reader.list."""
        return [(self._layout.name(kind, one.key), one.value.decode()) for one in self.scan(kind, prefix)]

    def look(self, key: bytes) -> KeyValue | None:
        """One key."""
        if key not in self.found:
            pairs = self._ask({"key": pack(key)}).get("kvs", [])
            self.found[key] = KeyValue.of(pairs[0]) if pairs else None
        return self.found[key]

    def scan(self, kind: str, prefix: str) -> KeyValues:
        """A kind's keys that begin so."""
        if (kind, prefix) not in self.scanned:
            self.scanned[kind, prefix] = self.range(*self._layout.records(kind, prefix))
        return self.scanned[kind, prefix]

    def range(self, first: bytes, end: bytes) -> KeyValues:
        """All keys from `first` up to `end`, a page at a time."""
        pairs: KeyValues = []
        while True:
            answer = self._ask({"key": pack(first), "range_end": pack(end), "limit": _PAGE})
            pairs += map(KeyValue.of, answer.get("kvs", []))
            if not answer.get("more"):
                return pairs
            first = pairs[-1].key + b"\0"

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.revision:
            body["revision"] = str(self.revision)
        try:
            answer = self._any(body) if self._stale else self._gateway.call("kv/range", body)
        except Rejected as error:
            if error.compacted:
                raise Contended("what was read has changed since, and etcd no longer knows what it was") from error
            raise error.error() from error
        self.revision = self.revision or int(answer["header"]["revision"])
        return answer

    def _any(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Of the first member that answers: one that has not seen the revision yet does not."""
        problem = ""
        for member in self._gateway.order():
            try:
                return self._gateway.ask(member, "kv/range", {**body, "serializable": True}, timeout=PATIENCE)
            except (Unsure, Unavailable) as error:
                problem = str(error)
            except Rejected as error:
                if not error.future:
                    raise
                problem = f"{self._gateway.url(member)} is behind"
        raise self._gateway.unavailable(problem)


class Changes:
    """A Transaction. See docs/design/0028-etcd-store.md for what is compared, and why that is enough."""

    def __init__(self, snapshot: Snapshot, layout: Layout) -> None:
        self.snapshot, self._layout = snapshot, layout
        self.written: dict[tuple[str, str], str | None] = {}
        """None: removed."""
        self.leases: dict[tuple[str, str], int] = {}
        self.events: list[bytes] = []

    def get(self, kind: str, key: str) -> str | None:
        """See Reader.get."""
        if (kind, key) in self.written:
            return self.written[kind, key]
        return self.snapshot.get(kind, key)

    def list(self, kind: str, prefix: str = "") -> Pairs:
        """See Reader.list."""
        found = dict(self.snapshot.list(kind, prefix))
        for (of, key), value in self.written.items():
            if of == kind and key.startswith(prefix):
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        return sorted(found.items(), key=lambda item: item[0].encode())

    def put(self, kind: str, key: str, value: str) -> None:
        """See Transaction.put."""
        self._layout.record(kind, key)
        value.encode()  # what cannot be kept fails here, not at the end
        self.written[kind, key] = value
        self.leases.pop((kind, key), None)

    def insert(self, kind: str, key: str, value: str) -> bool:
        """See Transaction.insert."""
        if self.get(kind, key) is not None:
            return False
        self.put(kind, key, value)
        return True

    def delete(self, kind: str, key: str) -> bool:
        """See Transaction.delete."""
        if self.get(kind, key) is None:
            return False
        self.written[kind, key] = None
        self.leases.pop((kind, key), None)
        return True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit. What was only read was all there at one revision."""
        return not self.written and not self.events

    @property
    def size(self) -> int:
        """Bytes of what is written, about: names of kinds and the like aside."""
        records = sum(len(key.encode()) + len((value or "").encode()) for (_, key), value in self.written.items())
        return records + sum(map(len, self.events))

    def compares(self) -> Bodies:
        """What must still be so when the changes are made.

        A key that was looked at: its last change is that one (0: it is not there). A range: nothing in it is newer than
        the revision that was read, nor has a record of the kind been removed since. A lease that ends removes without
        a word, so keys of the range that have one count as looked at.
        """
        newest = str(self.snapshot.revision + 1)
        looked = {key: found.modified if found else 0 for key, found in self.snapshot.found.items()}
        ranges: Bodies = []
        for (kind, prefix), found in self.snapshot.scanned.items():
            first, end = self._layout.records(kind, prefix)
            ranges.append(_older(newest, first, end))
            looked.update((one.key, one.modified) for one in found if one.lease)
        generations = {self._layout.generation(kind) for kind, _ in self.snapshot.scanned}
        ranges += [_older(newest, key) for key in sorted(generations)]
        return [*(modified(key, revision) for key, revision in looked.items()), *ranges]

    def operations(self, event_name: str) -> Bodies:
        """What changes, each key once. `event_name` begins the keys of the events."""
        made: Bodies = []
        removed: set[str] = set()
        for (kind, key), value in self.written.items():
            raw = self._layout.record(kind, key)
            if value is None:
                made.append({"request_delete_range": {"key": pack(raw)}})
                removed.add(kind)
            else:
                made.append(put(raw, value.encode(), lease=self.leases.get((kind, key), 0)))
        made += [put(self._layout.generation(kind), b"") for kind in sorted(removed)]
        made += [
            put(self._layout.event(f"{event_name}/{number:04d}"), event) for number, event in enumerate(self.events)
        ]
        return made


def put(key: bytes, value: bytes, *, lease: int = 0) -> dict[str, Any]:
    """An operation of a transaction."""
    body = {"key": pack(key), "value": pack(value)}
    return {"request_put": {**body, "lease": str(lease)} if lease else body}


def modified(key: bytes, revision: int) -> dict[str, Any]:
    """Compare: the last change of `key` is of this revision; 0: it is not there."""
    return {"key": pack(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def _older(revision: str, key: bytes, end: bytes = b"") -> dict[str, Any]:
    """Compare: everything there has changed before this revision. True as well where nothing is there."""
    body = {"key": pack(key), "target": "MOD", "result": "LESS", "mod_revision": revision}
    return {**body, "range_end": pack(end)} if end else body
