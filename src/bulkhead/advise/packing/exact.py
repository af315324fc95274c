"""The end of what is small: all sets of items that a host can hold, and the integer program over them. Its optimum is
the optimum."""

from __future__ import annotations

import highspy
import numpy as np

from bulkhead.advise.packing.core import Bin, Core, Ints
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.linear import quiet
from bulkhead.advise.packing.model import Floats

FEW, SETS = 1_500, 12_000
"""Sets with which it is the first thing that is tried, and the last; more are too many."""
NODES = 3_000
"""Of branch and bound."""


def every_set(core: Core, effort: Effort, most: int) -> list[Bin] | None:
    """All sets of all kinds, or of those without extras the ones that nothing can be put to; None: more than `most`."""
    found: list[Bin] = []
    for kind in range(len(core.cost)):
        some = np.nonzero(core.allowed[:, kind])[0]
        sets = _sets(core, kind, some, most - len(found), effort)
        if sets is None:
            return None
        found += [(kind, one) for one in sets]
    return found


def _sets(core: Core, kind: int, some: Ints, most: int, effort: Effort) -> list[tuple[int, ...]] | None:
    size, room, count = core.size[some], core.room[kind], core.count[some]
    sets, load = np.arange(len(some))[:, None], size
    found: list[tuple[int, ...]] = []
    while len(sets):
        full = np.ones(len(sets), np.bool_)
        following: list[tuple[Ints, Floats]] = []
        for one in range(len(some)):
            times = (sets == one).sum(axis=1)
            fits = (load + size[one] <= room).all(axis=1) & (times < count[one])
            if core.clash is not None:
                fits &= ~core.clash[some[one], some[sets]].any(axis=1)
            full &= ~fits
            goes = fits & (sets[:, -1] <= one)
            if goes.any():
                row = np.full((int(goes.sum()), 1), one)
                following.append((np.hstack([sets[goes], row]), load[goes] + size[one]))
        effort.spend(len(some) * (20 + 0.01 * load.size))
        keep = np.ones(len(sets), np.bool_) if core.extra[:, kind].any() else full
        found += [tuple(some[row].tolist()) for row in sets[keep]]
        coming = sum(len(part[0]) for part in following)
        if len(found) + coming > most or effort.over():
            return None
        if not following:
            break
        sets = np.concatenate([part[0] for part in following])
        load = np.concatenate([part[1] for part in following])
    return found


def chosen(core: Core, sets: list[Bin], effort: Effort) -> tuple[list[Bin] | None, float]:
    """The cheapest of these sets that have every item, and what any choice of them costs at least (infinite: there is
    none)."""
    model = quiet()
    left = max(0.05, effort.seconds)
    for name, value in (
        ("presolve", "on"),
        ("simplex_strategy", 1),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", 1e-6),
        ("mip_max_nodes", NODES),
        ("time_limit", left),
    ):
        model.setOptionValue(name, value)
    classes = len(core.count)
    limited = np.nonzero(core.limit < core.items)[0].tolist()
    row_of = {kind: classes + row for row, kind in enumerate(limited)}
    none, nothing = np.zeros(0, np.int32), np.zeros(0)
    for count in core.count.tolist():
        model.addRow(float(count), highspy.kHighsInf, 0, none, nothing)
    for kind in limited:
        model.addRow(-highspy.kHighsInf, float(core.limit[kind]), 0, none, nothing)
    for kind, held in sets:
        some, times = np.unique(np.asarray(held), return_counts=True)
        rows, values = some.tolist(), times.astype(float).tolist()
        if kind in row_of:
            rows.append(row_of[kind])
            values.append(1.0)
        cost = float(core.cost[kind] + core.extra[list(held), kind].sum())
        model.addCol(cost, 0.0, highspy.kHighsInf, len(rows), np.asarray(rows, np.int32), np.asarray(values))
    every = np.arange(len(sets), dtype=np.int32)
    model.changeColsIntegrality(len(sets), every, np.full(len(sets), 1, np.uint8))
    model.run()
    information, status = model.getInfo(), model.getModelStatus()
    effort.spend(
        20_000 + information.mip_node_count * 500 + information.simplex_iteration_count * (20 + 0.12 * classes)
    )
    effort.over()
    if status == highspy.HighsModelStatus.kInfeasible:
        return None, np.inf
    bound = float(information.mip_dual_bound)
    values = np.asarray(model.getSolution().col_value)
    if len(values) != len(sets) or information.primal_solution_status != 2:
        return None, bound
    times = np.round(values).astype(np.int64)
    return [sets[index] for index in np.repeat(every, times).tolist()], bound
