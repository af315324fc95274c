"""Which rules are broken on which host, for all hosts at once. Each function here is one of `rules`, over columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bulkhead.amounts import RESOURCES
from bulkhead.cluster.columns import LEVELS, NOBODY, Bools, Columns, Ints
from bulkhead.cluster.lookup import Lookup
from bulkhead.cluster.rules import Rule
from bulkhead.cluster.snapshot import Label, Speed, Term, Wanted
from bulkhead.cluster.spare import Measure, Standing

_BITS = {rule: 1 << position for position, rule in enumerate(Rule)}


class Broken:
    """A bit for each rule, a number for each row."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.top = columns, columns.top
        self._bits: Ints = np.zeros(self.top, np.int64)
        self._alive = columns.alive[: self.top].copy()
        self._marked: list[Rule] = []

    def mark(self, rule: Rule, where: Bools) -> None:
        """It is broken on these rows."""
        self._bits[where] |= _BITS[rule]
        self._marked.append(rule)

    def fits(self) -> Bools:
        """Hosts on which nothing is broken."""
        fits: Bools = self._alive & (self._bits == 0)
        return fits

    def refused(self) -> Ints:
        """Rows of hosts on which something is."""
        return np.flatnonzero(self._alive & (self._bits != 0))

    def breaks(self, row: int, rule: Rule) -> bool:
        """Whether it is broken on one row."""
        return bool(self._bits[row] & _BITS[rule])

    def firsts(self) -> dict[Rule, Ints]:
        """For each rule the rows of which it is the first that is broken."""
        first = np.where(self._alive, self._bits & -self._bits, 0)
        found = {rule: np.flatnonzero(first == _BITS[rule]) for rule in Rule if rule in self._marked}
        return {rule: rows for rule, rows in found.items() if len(rows)}

    def rows(self, rows: Iterable[int]) -> Bools:
        """A mask of these."""
        mask = np.zeros(self.top, np.bool_)
        mask[np.fromiter(rows, np.int64)] = True
        return mask


def host(found: Broken, wanted: Wanted, lookup: Lookup) -> None:
    """What concerns the host itself."""
    columns, top = found.columns, found.top
    found.mark(Rule.STATE, ~columns.ready[:top])
    if wanted.host:
        found.mark(Rule.PINNED, ~found.rows(lookup.names.rows(wanted.host)))
    if wanted.avoid:
        # A name may be another host's id.
        rows = (row for host_id in wanted.avoid for row in lookup.host_ids.rows(host_id))
        found.mark(Rule.REFUSED, found.rows(rows))
    found.mark(Rule.ARCHITECTURE, columns.architecture[:top] != columns.number(wanted.architecture))
    found.mark(Rule.LEVEL, ~columns.works[LEVELS.index(wanted.level), :top])
    if wanted.cpu_model:
        found.mark(Rule.BASELINE, ~found.rows(lookup.cpu_models.rows(wanted.cpu_model)))
    for label in wanted.requires:
        found.mark(Rule.LABELS, found.rows(_labelled(label, lookup)) == label.absent)


def _labelled(label: Label, lookup: Lookup) -> Iterable[int]:
    if not label.values:
        return lookup.keys.rows(label.key)
    return (row for value in label.values for row in lookup.labels.rows((label.key, value)))


def room(found: Broken, wanted: Wanted, speeds: Sequence[Speed]) -> Ints:
    """What of the host is sold. Returns what the instance takes: a row for each of RESOURCES, a column for each host,
    or one column where it takes the same on all of them.
    """
    columns, top, need = found.columns, found.top, wanted.need
    if need.widest:
        found.mark(Rule.CORES, columns.cores[:top] < need.widest)
    if need.core_khz:
        found.mark(Rule.SPEED, columns.core[:top] < need.core_khz)
    amounts = [need.on(speed) for speed in speeds]
    table = np.array([[each.of(name) for each in amounts] for name in RESOURCES], np.int64).reshape(len(RESOURCES), -1)
    takes = table if table.shape[1] == 1 else table[:, columns.kind[:top]]
    for position, name in enumerate(RESOURCES):
        if table[position].any():
            found.mark(Rule(name), takes[position] > np.maximum(columns.free[position, :top], 0))
    return takes


def tenants(found: Broken, wanted: Wanted) -> None:
    """Who else is there."""
    columns, top = found.columns, found.top
    own = columns.number(wanted.tenant)

    def others(column: Ints) -> Bools:
        somebody: Bools = (column[:top] != NOBODY) & (column[:top] != own)
        return somebody

    alone = others(columns.dedicated)
    found.mark(Rule.TENANTS, alone | others(columns.tenant) if wanted.dedicated else alone)
    if wanted.on_host_kernel:
        found.mark(Rule.KERNEL, others(columns.foreign if wanted.trusted else columns.sharing))


def affinity(
    found: Broken,
    wanted: Wanted,
    lone: frozenset[Term],
    rows_of: Callable[[Term], list[int]],
    shunning: Sequence[int],
) -> None:
    """Hard terms, its own and the others'. `rows_of`: the rows with what a term is about."""
    for term in wanted.terms:
        if term.hard and not term.away and term not in lone:
            found.mark(Rule.NEAR, ~found.rows(rows_of(term)))
        elif term.hard and term.away:
            found.mark(Rule.AWAY, found.rows(rows_of(term)))
    if shunning:
        found.mark(Rule.AWAY, found.rows(shunning))


def reserve(found: Broken, takes: Ints, by: Measure, stands: Standing) -> None:
    """`spare.stays_covered`, for each host in turn as the one that the instance is placed on.

    Only that host's row changes, so sums and the largest of the others follow from those of all.
    """
    columns, top, largest = found.columns, found.top, stands.largest
    takes_loss, carries = columns.takes[:top], columns.carries[:top]
    sold = [(position, unit) for position, unit in enumerate(by.units) if unit]
    parts = [(columns.free[position, :top] - takes[position]) // unit for position, unit in sold]
    after = np.minimum.reduce(parts) if parts else np.zeros(top, np.int64)
    room, rooms = np.where(takes_loss, np.maximum(after, 0), 0), columns.room[:top]
    sure, sure_after = np.maximum(rooms - largest, 0), np.maximum(room - largest, 0)
    total = sure.sum() - sure + sure_after
    big, big_after = takes_loss & (rooms >= largest), takes_loss & (room >= largest)
    bigs = big.sum() - big + big_after
    carrying = carries > 0
    # Of the hosts that do not change: what the loss of the fullest wants, and whether one stands alone.
    wants = _most_of_others(np.where(carrying, carries + sure, 0))
    others = carrying.sum() - carrying
    lone_big = (big & carrying).sum() - (big & carrying)
    fails = (others > 0) & ((wants > total + largest) | (bigs == 0))
    fails |= (bigs == 1) & ~big_after & (lone_big > 0)
    # Of the host itself; what it carries afterwards may still be nothing.
    own = carries + stands.adds
    fails |= (own > 0) & ((bigs - big_after < 1) | (own + sure_after > total + largest))
    found.mark(Rule.SPARE, fails)


def _most_of_others(values: Ints) -> Ints:
    """For each row the largest value of all other rows; 0 where there is none."""
    if len(values) < 2:
        return np.zeros_like(values)
    second, first = np.partition(values, len(values) - 2)[-2:].tolist()
    # Where two are the largest, each has the other: `second` is as large.
    most: Ints = np.where(values == first, second, first)
    return most
