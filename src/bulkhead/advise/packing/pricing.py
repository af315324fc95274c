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
from bulkhead.advise.packing.model import Floats

WORTHLESS = 1e-7
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

    def price(self, kind: int, profit: Floats, count: Ints, wanted: float, width: int) -> Found:
        """Sets that are worth more than `wanted`; `profit` (C,) of one item, `count` (C,) how many there are."""
        core = self.core
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


class _Ladder:
    """Levels of sets of items, which are sorted by falling gain."""

    def __init__(
        self, size: Floats, profit: Floats, gain: Floats, count: Ints, *, room: Floats, base: float, pairs: Bools
    ) -> None:
        self.size, self.profit, self.gain, self.count, self.room, self.base = size, profit, gain, count, room, base
        again = np.where(pairs.diagonal(), count, 1)
        positive = np.maximum(gain, 0.0) * again
        after = np.concatenate([np.cumsum(positive[::-1])[::-1], [0.0]])
        # More of the same may follow.
        self.after = np.where(again > 1, after[:-1], after[1:])
        self.again = again
        # What follows an item is what comes after it, and the item itself where there are several.
        self.follows = np.triu(pairs, 1)
        np.fill_diagonal(self.follows, again > 1)

    def climb(self, wanted: float, width: int) -> tuple[list[tuple[int, ...]], Floats, float, float]:
        """Sets, their values, the ceiling, and the work."""
        items = len(self.gain)
        level: _Level | None = _Level(
            np.arange(items)[:, None],
            self.size,
            self.profit,
            self.gain,
            np.ones(items, np.int64),
            self.follows,
        )
        ceiling, work = wanted, 0.0
        chosen: list[tuple[Ints, Floats]] = []
        while level is not None and len(level.value):
            good = level.value > wanted
            if good.any():
                chosen.append((level.sets[good], level.value[good]))
            level, dropped, spent = self._next(level, wanted, width)
            ceiling = max(ceiling, dropped)
            work += spent
        sets: list[tuple[int, ...]] = []
        values: list[float] = []
        for some, worth in chosen:
            best = np.argsort(-worth, kind="stable")[:width]
            sets += [tuple(row) for row in some[best].tolist()]
            values += worth[best].tolist()
        order = np.argsort(-np.asarray(values), kind="stable").tolist()
        ceiling = max(ceiling, max(values, default=0.0))
        return [sets[index] for index in order], np.asarray(values)[order], ceiling, work

    def _next(self, level: _Level, wanted: float, width: int) -> tuple[_Level | None, float, float]:
        """Each set with one more item; the best bound of those that were dropped; the work."""
        # Gains fall along a row, so what an item leads to at most does, too: far items are not looked at.
        bound = self.base + level.gain[:, None] + (self.gain + self.after)[None, :]
        which, item = np.nonzero(level.may & (bound > wanted))
        work = 60 + bound.size * 0.004 + len(which) * 0.05
        dropped = 0.0
        reach = bound[which, item]
        if len(which) > MOST:
            best = np.sort(np.argpartition(-reach, MOST)[:MOST])
            rest = np.ones(len(which), np.bool_)
            rest[best] = False
            dropped = float(reach[rest].max())
            which, item, reach = which[best], item[best], reach[best]
        load = level.load[which] + self.size[item]
        same = level.sets[which, -1] == item
        run = np.where(same, level.run[which] + 1, 1)
        fits = (load <= self.room).all(axis=1) & (run <= self.again[item])
        work += load.size * 0.006
        which, item, load, run, reach = which[fits], item[fits], load[fits], run[fits], reach[fits]
        if len(which) == 0:
            return None, dropped, work
        gain = level.gain[which] + self.gain[item]
        if len(which) > width:
            keep = self._best(level.sets[which, 0], gain, width)
            rest = np.ones(len(which), np.bool_)
            rest[keep] = False
            dropped = max(dropped, float(reach[rest].max()))
            which, item, load, run, gain = which[keep], item[keep], load[keep], run[keep], gain[keep]
            work += len(rest) * 0.3
        after = _Level(
            np.concatenate([level.sets[which], item[:, None]], axis=1),
            load,
            level.value[which] + self.profit[item],
            gain,
            run,
            level.may[which] & self.follows[item],
        )
        work += after.may.size * 0.002 + len(which) * 0.2
        return after, dropped, work

    def _best(self, first: Ints, gain: Floats, width: int) -> Ints:
        """The most promising of each first item, then of all: sets that begin alike would else drive out the others."""
        order = np.lexsort((-gain, first))
        starts = np.concatenate([[0], np.nonzero(np.diff(first[order]))[0] + 1])
        lengths = np.diff(np.concatenate([starts, [len(order)]]))
        place = np.arange(len(order)) - np.repeat(starts, lengths)
        share = max(1, width // max(1, 2 * len(starts)))
        kept = order[place < share]
        others = order[place >= share]
        room = width - len(kept)
        if room > 0 and len(others) > room:
            others = others[np.argpartition(-gain[others], room)[:room]]
        return np.sort(np.concatenate([kept, others]))
