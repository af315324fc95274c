"""All sets of items that one host can hold, where there are not too many: the best is found by adding up, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkhead.advise.packing.core import Bools, Core, Ints
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.model import Floats

MOST = 1_200_000
"""Sets."""
CHUNK = 4_000_000
"""Pairs of a set and an item that are looked at in one go."""


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Sets by their size, each (N, items) ascending."""

    levels: list[Ints]

    @property
    def work(self) -> float:
        """Units that one look through costs."""
        return 100 + sum(level.size for level in self.levels) * 0.006

    def best(self, profit: Floats, wanted: float, width: int) -> tuple[list[tuple[int, ...]], Floats, float]:
        """Sets worth more than `wanted`, the best first, `width` of each size; their values; the most there is."""
        sets: list[tuple[int, ...]] = []
        values: list[float] = []
        most = 0.0
        for level in self.levels:
            worth = profit[level[:, 0]]
            for column in range(1, level.shape[1]):
                worth = worth + profit[level[:, column]]
            most = max(most, float(worth.max(initial=0.0)))
            good = np.nonzero(worth > wanted)[0]
            if len(good) > width:
                good = np.sort(good[np.argpartition(-worth[good], width)[:width]])
            sets += [tuple(row) for row in level[good].tolist()]
            values += worth[good].tolist()
        order = np.argsort(-np.asarray(values), kind="stable").tolist()
        return [sets[index] for index in order], np.asarray(values)[order], most


def listed(core: Core, kind: int, pairs: Bools, effort: Effort) -> Listing | None:
    """None: there are more than MOST. Sets to which something can be put are left out where extras say nothing else."""
    some = np.nonzero(core.allowed[:, kind])[0]
    if len(some) == 0:
        return Listing([])
    size, room, count = core.size[some], core.room[kind], core.count[some]
    beside = pairs[np.ix_(some, some)].copy()
    np.fill_diagonal(beside, beside.diagonal() & (count > 1))
    number = len(some)
    sets, load = np.arange(number)[:, None], size
    levels: list[Ints] = []
    total = 0
    while len(sets):
        level, following, loads = [], [], []
        for start in range(0, len(sets), max(1, CHUNK // number)):
            some_sets, some_load = sets[start : start + CHUNK // number], load[start : start + CHUNK // number]
            may = beside[some_sets[:, 0]].copy()
            for column in range(1, some_sets.shape[1]):
                may &= beside[some_sets[:, column]]
            full, row, item, heavy = _grown(some_sets, some_load, may, size=size, room=room, count=count)
            if core.extra[:, kind].any():
                full[:] = True
            level.append(some_sets[full])
            following.append(np.concatenate([some_sets[row], item[:, None]], axis=1))
            loads.append(heavy)
            total += int(full.sum())
            effort.spend(may.size * 0.004 + len(row) * 0.1)
            if total + sum(len(one) for one in following) > MOST or effort.over():
                return None
        levels.append(some[np.concatenate(level)])
        sets, load = np.concatenate(following), np.concatenate(loads)
    return Listing([level for level in levels if len(level)])


def _grown(
    sets: Ints, load: Floats, may: Bools, *, size: Floats, room: Floats, count: Ints
) -> tuple[Bools, Ints, Ints, Floats]:
    """Which sets nothing can be put to; which set takes which later item, and the loads of these."""
    row, item = np.nonzero(may)
    heavy = load[row] + size[item]
    fits: Bools = np.all(heavy <= room, axis=1)
    several = np.nonzero(count[item] > 1)[0]
    if len(several):
        held = (sets[row[several]] == item[several, None]).sum(axis=1)
        fits[several] &= held < count[item[several]]
    full = np.ones(len(sets), np.bool_)
    full[row[fits]] = False
    later = fits & (item >= sets[row, -1])
    return full, row[later], item[later], heavy[later]
