"""Column generation: sets that are missing are found by what items are worth, until none is or the work is done.

Every answer of the pricing gives a bound, finished or not: where no set of a kind is worth more than m times what its
host costs, what all items are worth, divided by m, is a bound of the cost (Farley, 1990).
"""

from __future__ import annotations

import numpy as np

from bulkhead.advise.packing.core import Bin, Core, Ints, rounded_up, unit_of
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.master import Master, Relaxed
from bulkhead.advise.packing.pricing import Pricer

NARROW, WIDE = 400, 25_000
"""Sets of a level of the pricing: while columns are found easily, and where none is found."""

NEAR = 0.005
"""Of the cost, between the linear program and its bound, when nothing depends on it any more."""


class Generator:
    """The linear program of a core, and what it needs to grow."""

    def __init__(self, core: Core, effort: Effort) -> None:
        self.core = core
        self.effort = effort
        self.master = Master(core, effort)
        self.pricer = Pricer(core, effort)
        self.limited = set(self.master.limited.tolist())
        self.unit = unit_of(core)
        self.bound = 0.0
        """Of the whole core: no answer costs less."""
        kinds = range(len(core.cost))
        self.master.add([(kind, (one,)) for kind in kinds for one in np.nonzero(core.allowed[:, kind])[0].tolist()])
        depth = float((core.room.max(axis=0) / np.maximum(core.size.mean(axis=0), 1e-9)).min())
        self.narrow = int(max(40, NARROW * min(1.0, 6 / max(1.0, depth))))
        self.wide = int(max(200, WIDE * min(1.0, 6 / max(1.0, depth))))

    def round(self, relaxed: Relaxed, count: Ints, limit: Ints, width: int) -> tuple[int, float]:
        """Ask for sets of each kind once; how many were new, and the bound of the asked numbers of items."""
        core, added, share = self.core, 0, 1.0
        worth = float(relaxed.worth @ count)
        for kind in np.nonzero(limit > 0)[0].tolist():
            profit = relaxed.worth - core.extra[:, kind]
            wanted = float(core.cost[kind] - relaxed.rent[kind])
            found = self.pricer.price(kind, profit, count, wanted + 1e-6 * max(1.0, wanted), width)
            added += self.master.add([(kind, one) for one in _varied(found.sets, len(core.count))])
            if kind in self.limited:
                # Of these there are few: what they could be worth at most is taken off whole.
                worth += min(float(relaxed.rent[kind]), float(core.cost[kind]) - found.ceiling) * float(limit[kind])
            elif found.ceiling > core.cost[kind]:
                share = min(share, float(core.cost[kind]) / found.ceiling)
        return added, share * worth

    def converge(self, effort: Effort, upper: float, known: float = 0.0) -> Relaxed:
        """The whole core, until the linear program is solved, or its bound is as good as it gets, or the work is done.

        `known` is a bound from elsewhere: where rounding makes this one no better, near is near enough.
        """
        core, width = self.core, self.narrow
        self.master.demand(core.count, core.limit)
        relaxed = self.master.solve()
        while not effort.over():
            added, bound = self.round(relaxed, core.count, core.limit, width)
            self.bound = max(self.bound, rounded_up(bound, self.unit), known)
            if self.bound >= upper - 1e-9:
                break
            near = added == 0 or relaxed.cost - bound < NEAR * relaxed.cost
            if near and self.unit and rounded_up(relaxed.cost, self.unit) <= self.bound:
                break
            if added == 0:
                if width >= self.wide:
                    break
                width = min(self.wide, width * 4)
                continue
            relaxed = self.master.solve()
            self.master.trim(4000 + 6 * len(core.count), relaxed)
        return relaxed


def _varied(sets: list[tuple[int, ...]], classes: int) -> list[tuple[int, ...]]:
    """Of each class the best set that has it, and a few of the best besides."""
    if not sets:
        return []
    owner = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    flat = np.concatenate([np.asarray(one) for one in sets])
    _, first = np.unique(flat, return_index=True)
    chosen = sorted({*owner[first].tolist(), *range(min(5, len(sets)))})
    return [sets[index] for index in chosen[: max(20, classes)]]


def bins_of(core: Core, chosen: list[Bin]) -> tuple[list[Bin], Ints]:
    """Hosts without the items that another host has already, and how many of each class are on none."""
    left = core.count.copy()
    bins: list[Bin] = []
    for kind, classes in chosen:
        held = []
        for one in classes:
            if left[one] > 0:
                left[one] -= 1
                held.append(one)
        if held:
            bins.append((kind, tuple(held)))
    return bins, left
