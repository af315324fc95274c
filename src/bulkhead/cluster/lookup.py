"""Which hosts have an instance, a label or an image of a kind: sets of rows, kept as hosts change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from bulkhead.cluster.snapshot import HostView, Placed, Wanted

Key = TypeVar("Key", bound=Hashable)
Trait = tuple[str, str, str]
"""Tenant, label ("": it is a name), value."""


class Counted(Generic[Key]):
    """For each key the rows that it is on, and how often."""

    def __init__(self) -> None:
        self._rows: dict[Key, Counter[int]] = {}

    def add(self, key: Key, row: int) -> None:
        """Once more."""
        self._rows.setdefault(key, Counter())[row] += 1

    def take(self, key: Key, row: int) -> None:
        """Once less."""
        rows = self._rows[key]
        rows[row] -= 1
        if not rows[row]:
            del rows[row]
            if not rows:
                del self._rows[key]

    def rows(self, key: Key) -> Counter[int]:
        """Not to be changed."""
        return self._rows.get(key, _NONE)


_NONE: Counter[int] = Counter()


class Lookup:
    """Everything by which rows are found."""

    def __init__(self) -> None:
        self.traits: Counted[Trait] = Counted()
        """What instances are."""
        self.shunned: Counted[Trait] = Counted()
        """What instances must be away from."""
        self.labels: Counted[tuple[str, str]] = Counted()
        self.keys: Counted[str] = Counted()
        """Hosts' labels, with their values and without."""
        self.images: Counted[str] = Counted()
        self.cpu_models: Counted[str] = Counted()
        self.names: Counted[str] = Counted()
        """Hosts by id or name."""
        self.host_ids: Counted[str] = Counted()
        self.ids: Counted[str] = Counted()
        """Instances."""

    def change(self, row: int, old: HostView | None, new: HostView | None) -> None:
        """A host comes (no `old`), changes or goes (no `new`)."""
        before = {id(placed): placed for placed in old.instances} if old else {}
        after = {id(placed): placed for placed in new.instances} if new else {}
        for key, placed in before.items():
            if key not in after:
                self._instance(placed, row, gone=True)
        for key, placed in after.items():
            if key not in before:
                self._instance(placed, row, gone=False)
        if old and new and _same_host(old, new):
            return
        if old:
            self._host(old, row, gone=True)
        if new:
            self._host(new, row, gone=False)

    def _instance(self, placed: Placed, row: int, *, gone: bool) -> None:
        wanted = placed.wanted
        _count(self.ids, wanted.id, row, gone=gone)
        for trait in traits_of(wanted):
            _count(self.traits, trait, row, gone=gone)
        for term in wanted.terms:
            if term.hard and term.away:
                _count(self.shunned, (wanted.tenant, term.key, term.value), row, gone=gone)

    def _host(self, host: HostView, row: int, *, gone: bool) -> None:
        for key, value in host.labels.items():
            _count(self.labels, (key, value), row, gone=gone)
            _count(self.keys, key, row, gone=gone)
        for digest in host.images:
            _count(self.images, digest, row, gone=gone)
        for model in host.cpu_models:
            _count(self.cpu_models, model, row, gone=gone)
        _count(self.host_ids, host.id, row, gone=gone)
        for name in {host.id, host.name}:
            _count(self.names, name, row, gone=gone)


def _same_host(old: HostView, new: HostView) -> bool:
    before = old.labels, old.images, old.cpu_models, old.name
    return before == (new.labels, new.images, new.cpu_models, new.name)


def traits_of(wanted: Wanted) -> Iterator[Trait]:
    """All that a term can be about."""
    yield (wanted.tenant, "", wanted.name)
    for key, value in wanted.labels.items():
        yield (wanted.tenant, key, value)


def _count(counted: Counted[Key], key: Key, row: int, *, gone: bool) -> None:
    if gone:
        counted.take(key, row)
    else:
        counted.add(key, row)
