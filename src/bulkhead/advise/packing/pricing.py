"""Which set of items is worth most on one host: a knapsack with several columns, the question that column generation
asks again and again.

A search in levels: all sets of one item, of two, of three, each level one array. What a set can still become is
bounded by the relaxation of the knapsack (each column has a price, an item is worth its profit less the price of its
sizes), and sets that cannot reach what is wanted are dropped; if there are more than the width, the most promising are
kept and the best bound among the others is remembered, so that the answer still bounds the worth of every set.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from bulkhead.advise.packing.core import Bools, Core, Ints
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.linear import quiet
from bulkhead.advise.packing.listing import Listing, listed
from bulkhead.advise.packing.model import Floats

WORTHLESS = 1e-7
NARROW = 500
"""Of this width and less it is a search in any case; beyond, all sets are listed where that can be done."""
FAR = 8
"""Items that may still be put to a set are counted up to here."""
MOST = 400_000
"""Sets that are looked at in one level before the least promising are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Sets of classes that are worth more than was wanted, the best first; `ceiling`: none is worth more than this."""

    sets: list[tuple[int, ...]]
    values: Floats
    ceiling: float


class Pricer:
    """The knapsack of each kind of host of one core."""

    def __init__(self, core: Core, effort: Effort) -> None:
        self.core, self.effort = core, effort
        self._pairs: dict[int, Bools] = {}
        self._listings: dict[int, Listing | None] = {}
        self._relaxed: dict[int, _Relaxed] = {}

    def pairs(self, kind: int) -> Bools:
        """(C, C): whether two items may share a host of this kind."""
        found = self._pairs.get(kind)
        if found is None:
            size, room = self.core.size, self.core.room[kind]
            found = np.empty((len(size), len(size)), np.bool_)
            for row in range(len(size)):
                found[row] = (size + size[row] <= room).all(axis=1)
            if self.core.clash is not None:
                found &= ~self.core.clash
            self.effort.spend(size.size * len(size) * 0.002)
            self._pairs[kind] = found
        return found

    def _listing(self, kind: int) -> Listing | None:
        if kind not in self._listings:
            self._listings[kind] = listed(self.core, kind, self.pairs(kind), self.effort.part(0.15))
        return self._listings[kind]

    def price(self, kind: int, profit: Floats, count: Ints, wanted: float, width: int) -> Found:
        """Sets that are worth more than `wanted`; `profit` (C,) of one item, `count` (C,) how many there are."""
        core = self.core
        listing = self._listing(kind) if width > NARROW else None
        if listing is not None:
            self.effort.spend(listing.work)
            return Found(*listing.best(np.where(count > 0, profit, 0.0), wanted, width))
        some = np.nonzero((profit > WORTHLESS) & (count > 0) & core.allowed[:, kind])[0]
        if len(some) == 0:
            return Found([], np.zeros(0), wanted)
        relaxed = self._relaxed.get(kind)
        if relaxed is None:
            relaxed = self._relaxed[kind] = _Relaxed(core, kind)
        prices, pivots = relaxed.prices(some, profit, count)
        gain = profit[some] - core.size[some] @ prices
        order = np.argsort(-gain, kind="stable")
        some, gain = some[order], gain[order]
        self.effort.spend(400 + pivots * 20 + len(some) * 0.3)
        ladder = _Ladder(
            core.size[some],
            profit[some],
            gain,
            count[some],
            room=core.room[kind],
            base=float(core.room[kind] @ prices),
            pairs=self.pairs(kind)[np.ix_(some, some)],
        )
        sets, values, ceiling, work = ladder.climb(wanted, width)
        self.effort.spend(work)
        return Found([tuple(sorted(some[list(one)].tolist())) for one in sets], values, ceiling)


class _Relaxed:
    """The knapsack with parts of items, by the simplex method: the prices of its columns."""

    def __init__(self, core: Core, kind: int) -> None:
        self.classes, columns = core.size.shape
        # Columns that nothing of can be over have the price 0.
        load = (core.count[:, None] * core.size).sum(axis=0)
        self.tight = np.nonzero(load > core.room[kind])[0]
        self.columns = columns
        self.model = quiet()
        every = np.arange(self.classes, dtype=np.int32)
        zeros = np.zeros(self.classes)
        self.model.addVars(self.classes, zeros, zeros)
        sizes = core.size[:, self.tight]
        for index, column in enumerate(self.tight.tolist()):
            self.model.addRow(-highspy.kHighsInf, float(core.room[kind, column]), self.classes, every, sizes[:, index])
        self.every = every

    def prices(self, some: Ints, profit: Floats, count: Ints) -> tuple[Floats, int]:
        """(D,), and the pivots that it took."""
        found = np.zeros(self.columns)
        if len(self.tight) == 0:
            return found, 0
        worth, upper = np.zeros(self.classes), np.zeros(self.classes)
        worth[some], upper[some] = -profit[some], count[some]
        self.model.changeColsCost(self.classes, self.every, worth)
        self.model.changeColsBounds(self.classes, self.every, np.zeros(self.classes), upper)
        self.model.run()
        found[self.tight] = np.maximum(0.0, -np.asarray(self.model.getSolution().row_dual))
        return found, int(self.model.getInfo().simplex_iteration_count)


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Sets of the same number of items: N of them."""

    sets: Ints
    """(N, items), ascending."""
    load: Floats
    """(N, D)"""
    value: Floats
    """(N,)"""
    gain: Floats
    """(N,) of the items, above the prices of their sizes."""
    run: Ints
    """(N,) how often the last item is in the set."""
    may: Bools
    """(N, items) what may be put to it."""
    more: Ints
    """(N,) how many items can be put to it at most: FAR stands for as many and more."""


class _Ladder:
    """Levels of sets of items, which are sorted by falling gain."""

    def __init__(
        self, size: Floats, profit: Floats, gain: Floats, count: Ints, *, room: Floats, base: float, pairs: Bools
    ) -> None:
        self.size, self.profit, self.gain, self.count, self.room, self.base = size, profit, gain, count, room, base
        self.again = again = np.where(pairs.diagonal(), count, 1)
        self.least = np.maximum(size.min(axis=0), 1e-12)
        # What follows an item is what comes after it, and the item itself where there are several.
        self.follows = np.triu(pairs, 1)
        np.fill_diagonal(self.follows, again > 1)
        self.after = self._after(again)
        later = np.maximum.accumulate(profit[::-1])[::-1]
        self.later = np.where(again > 1, later, np.append(later[1:], 0.0))

    def _after(self, again: Ints) -> Floats:
        """(FAR + 1, items) what as many items as the row's number could gain at most, after each item."""
        positive = np.maximum(self.gain, 0.0)
        whole = np.concatenate([np.cumsum((positive * again)[::-1])[::-1], [0.0]])
        table = np.zeros((FAR + 1, len(again)))
        table[FAR] = np.where(again > 1, whole[:-1], whole[1:])
        following = np.where(again > 1, positive, np.append(positive[1:], 0.0))
        sums = np.concatenate([[0.0], np.cumsum(positive), np.full(FAR, positive.sum())])
        alone = again.max() == 1
        for number in range(1, FAR):
            most = (
                sums[1 + number : 1 + number + len(again)] - sums[1 : 1 + len(again)] if alone else number * following
            )
            table[number] = np.minimum(table[FAR], most)
        return table

    def _more(self, load: Floats) -> Ints:
        """(N,) how many items of the least sizes there is room for."""
        found: Ints = np.minimum(((self.room - load) / self.least).min(axis=1) + 1e-9, FAR).astype(np.int64)
        return found

    def climb(self, wanted: float, width: int) -> tuple[list[tuple[int, ...]], Floats, float, float]:
        """Sets, their values, the ceiling, and the work."""
        items = len(self.gain)
        ones = np.ones(items, np.int64)
        level: _Level | None = _Level(
            np.arange(items)[:, None], self.size, self.profit, self.gain, ones, self.follows, self._more(self.size)
        )
        good = np.nonzero(self.profit > wanted)[0]
        chosen: list[tuple[Ints, Floats]] = [(good[:, None], self.profit[good])]
        ceiling, work = wanted, 0.0
        while level is not None:
            level, fine, dropped, spent = self._next(level, wanted, width)
            chosen += fine
            ceiling = max(ceiling, dropped)
            work += spent
        sets: list[tuple[int, ...]] = []
        values: list[float] = []
        for some, worth in chosen:
            ceiling = max(ceiling, float(worth.max(initial=0.0)))
            best = np.argsort(-worth, kind="stable")[:width]
            sets += [tuple(row) for row in some[best].tolist()]
            values += worth[best].tolist()
        order = np.argsort(-np.asarray(values), kind="stable").tolist()
        return [sets[index] for index in order], np.asarray(values)[order], ceiling, work

    def _next(
        self, level: _Level, wanted: float, width: int
    ) -> tuple[_Level | None, list[tuple[Ints, Floats]], float, float]:
        """Each set with one more item; those that are worth enough; the best bound of what was dropped; the work."""
        # One fewer than FAR and more is as many and more, still.
        following = np.where(level.more < FAR, np.maximum(level.more - 1, 0), FAR)
        bound = self.base + level.gain[:, None] + (self.gain + self.after[following])
        which, item = np.nonzero(level.may & (bound > wanted))
        work = 60 + bound.size * 0.006 + len(which) * 0.06
        # Each further item is worth no more than the best of those that may follow.
        most = level.value[which] + self.profit[item] + following[which] * self.later[item]
        reach = np.where(following[which] < FAR, np.minimum(bound[which, item], most), bound[which, item])
        open_ = reach > wanted
        which, item, reach = which[open_], item[open_], reach[open_]
        dropped = 0.0
        if len(which) > MOST:
            which, item, reach, dropped = _cut(np.argpartition(-reach, MOST)[:MOST], which, item, reach)
        load = level.load[which] + self.size[item]
        run = np.where(level.sets[which, -1] == item, level.run[which] + 1, 1)
        fits = (load <= self.room).all(axis=1) & (run <= self.again[item])
        work += load.size * 0.006
        which, item, load, run = which[fits], item[fits], load[fits], run[fits]
        if len(which) == 0:
            return None, [], dropped, work
        value, gain, more = (
            level.value[which] + self.profit[item],
            level.gain[which] + self.gain[item],
            self._more(load),
        )
        good = np.nonzero(value > wanted)[0]
        fine = [(np.concatenate([level.sets[which[good]], item[good, None]], axis=1), value[good])]
        reach = np.minimum(
            self.base + gain + self.after[more, item], np.where(more < FAR, value + more * self.later[item], np.inf)
        )
        work += len(which) * 0.15
        goes = np.nonzero((reach > wanted) & (more > 0))[0]
        if len(goes) > width:
            kept = self._best(level.sets[which[goes], 0], gain[goes], width)
            rest = np.ones(len(goes), np.bool_)
            rest[kept] = False
            dropped = max(dropped, float(reach[goes[rest]].max(initial=0.0)))
            work += len(goes) * 0.3
            goes = goes[kept]
        if len(goes) == 0:
            return None, fine, dropped, work
        which, item = which[goes], item[goes]
        may = level.may[which] & self.follows[item]
        sets = np.concatenate([level.sets[which], item[:, None]], axis=1)
        work += may.size * 0.002 + len(which) * 0.2
        return _Level(sets, load[goes], value[goes], gain[goes], run[goes], may, more[goes]), fine, dropped, work

    def _best(self, first: Ints, gain: Floats, width: int) -> Ints:
        """The most promising of each first item, then of all: sets that begin alike would else drive out the others."""
        order = np.lexsort((-gain, first))
        starts = np.concatenate([[0], np.nonzero(np.diff(first[order]))[0] + 1])
        lengths = np.diff(np.concatenate([starts, [len(order)]]))
        place = np.arange(len(order)) - np.repeat(starts, lengths)
        share = max(1, width // max(1, 2 * len(starts)))
        kept = order[place < share]
        others = order[place >= share]
        room = max(0, width - len(kept))
        if len(others) > room:
            others = others[np.argpartition(-gain[others], room)[:room]]
        return np.sort(np.concatenate([kept, others]))


def _cut(kept: Ints, which: Ints, item: Ints, reach: Floats) -> tuple[Ints, Ints, Floats, float]:
    """Some of the pairs, and the best bound of the others."""
    rest = np.ones(len(which), np.bool_)
    rest[kept] = False
    kept = np.sort(kept)
    return which[kept], item[kept], reach[kept], float(reach[rest].max())
