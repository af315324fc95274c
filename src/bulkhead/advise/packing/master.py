"""The linear program over sets of items: each set is a way to fill one host, and every item has to be in as many as
there are of it.

Its columns are the sets that are known so far; its duals say what another item of each class is worth, and by them
`pricing.py` finds sets that are missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from bulkhead.advise.packing.core import Bin, Core, Ints
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.linear import quiet
from bulkhead.advise.packing.model import Floats

TRACE = 1e-7
"""What an item is worth at least, to be worth anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Relaxed:
    """An optimum of the linear program over the known sets."""

    cost: float
    short: float
    """Items that no host has room for, as the limits of kinds are."""
    used: Floats
    """(columns,) how much of each set."""
    worth: Floats
    """(C,) what one more item of each class would cost."""
    rent: Floats
    """(K,) what one more host of each kind would save; 0 where there is no limit."""


class Master:
    """The linear program of one core."""

    def __init__(self, core: Core, effort: Effort) -> None:
        self.core, self.effort = core, effort
        self.columns: list[Bin] = []
        self._known: set[Bin] = set()
        self.model = quiet()
        classes = len(core.count)
        self.limited = np.nonzero(core.limit < core.items)[0]
        self._row_of = {int(kind): classes + row for row, kind in enumerate(self.limited)}
        nothing = np.zeros(0)
        none = np.zeros(0, np.int32)
        for count in core.count.tolist():
            self.model.addRow(float(count), highspy.kHighsInf, 0, none, nothing)
        for kind in self.limited.tolist():
            self.model.addRow(-highspy.kHighsInf, float(core.limit[kind]), 0, none, nothing)
        # What costs more than any host makes the program soluble from the start, and where there are too few hosts.
        self.penalty = 20.0 * float(max(1e-6, (core.cost + core.extra.max(axis=0, initial=0.0)).max()))
        for row in range(classes):
            self.model.addCol(self.penalty, 0.0, highspy.kHighsInf, 1, np.array([row], np.int32), np.ones(1))
        self.count = core.count.copy()
        self.limit = core.limit.copy()
        self.costs = np.zeros(0)

    def add(self, sets: list[Bin]) -> int:
        """Sets that are not known yet become columns; how many there were."""
        fresh = [one for one in dict.fromkeys(sets) if one not in self._known and one[1]]
        if not fresh:
            return 0
        starts: list[int] = []
        rows: list[int] = []
        values: list[float] = []
        costs: list[float] = []
        for kind, classes in fresh:
            starts.append(len(rows))
            some, times = np.unique(np.asarray(classes), return_counts=True)
            rows += some.tolist()
            values += times.tolist()
            if kind in self._row_of:
                rows.append(self._row_of[kind])
                values.append(1)
            costs.append(float(self.core.cost[kind] + self.core.extra[list(classes), kind].sum()))
        number = len(fresh)
        self.model.addCols(
            number,
            np.asarray(costs),
            np.zeros(number),
            np.full(number, highspy.kHighsInf),
            len(rows),
            np.asarray(starts, np.int32),
            np.asarray(rows, np.int32),
            np.asarray(values, np.float64),
        )
        self.columns += fresh
        self._known.update(fresh)
        self.costs = np.concatenate([self.costs, costs])
        self.effort.spend(100 + 3 * len(rows))
        return number

    def demand(self, count: Ints, limit: Ints) -> None:
        """Ask for other numbers of items and hosts."""
        for row in np.nonzero(count != self.count)[0].tolist():
            self.model.changeRowBounds(row, float(count[row]), highspy.kHighsInf)
        for kind in self.limited.tolist():
            if limit[kind] != self.limit[kind]:
                self.model.changeRowBounds(self._row_of[kind], -highspy.kHighsInf, float(limit[kind]))
        self.count, self.limit = count.copy(), limit.copy()

    def solve(self) -> Relaxed:
        """The optimum over the known sets."""
        self.model.run()
        solution, information = self.model.getSolution(), self.model.getInfo()
        classes = len(self.core.count)
        values, duals = np.asarray(solution.col_value), np.asarray(solution.row_dual)
        rent = np.zeros(len(self.core.cost))
        rent[self.limited] = np.minimum(0.0, duals[classes:])
        pivots = int(information.simplex_iteration_count)
        self.effort.spend(300 + 0.5 * len(values) + pivots * (20 + 0.12 * classes + 0.01 * len(values)))
        short = float(values[:classes].sum())
        cost = float(information.objective_function_value) - short * self.penalty
        worth = np.where(duals[:classes] > TRACE, duals[:classes], 0.0)
        return Relaxed(cost, short, values[classes:], worth, rent)

    def trim(self, keep: int, relaxed: Relaxed) -> bool:
        """Forget all but the `keep` sets that come nearest to being of use, where there are twice as many.

        True: `relaxed` tells of columns that are not there any more; solve again.
        """
        if len(self.columns) <= 2 * keep:
            return False
        reduced = self.costs.copy()
        for index, (kind, classes) in enumerate(self.columns):
            reduced[index] -= relaxed.worth[list(classes)].sum() + relaxed.rent[kind]
        reduced[relaxed.used > 1e-9] = -1.0
        order = np.argsort(reduced, kind="stable")
        gone = np.sort(order[keep:])
        stay = np.sort(order[:keep])
        self.model.deleteCols(len(gone), (gone + len(self.core.count)).astype(np.int32))
        self._known -= {self.columns[index] for index in gone.tolist()}
        self.columns = [self.columns[index] for index in stay.tolist()]
        self.costs = self.costs[stay]
        self.effort.spend(len(order) * 5)
        return True
