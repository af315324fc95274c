"""What any complete answer costs at least, by sums: of sizes, of dual feasible functions of sizes, of items that
exclude one another.

A dual feasible function maps sizes to numbers of which no host can hold more than one host's worth, so sums of these
are bounds as sums of sizes are. `columns.py` has the better bound, and takes longer.
"""

from __future__ import annotations

import numpy as np

from bulkhead.advise.packing.core import UNLIMITED, Core, Ints, rounded_up, unit_of
from bulkhead.advise.packing.model import Floats


def simple_bound(core: Core) -> float:
    """The best of them all, rounded up where costs allow it. Infinite: the items have no room in all hosts together."""
    if core.items == 0:
        return 0.0
    extras = float((core.count * np.where(core.allowed, core.extra, np.inf).min(axis=1)).sum())
    least = max(_sums(core), _cliques(core))
    if len(core.cost) == 1:
        least = max(least, float(core.cost[0]) * _functions(core))
    return rounded_up(least + extras, unit_of(core))


def _sums(core: Core) -> float:
    """Of each column the sizes in all, on the hosts that have most of it for their cost."""
    asked = core.count @ core.size
    best = 0.0
    for column in np.nonzero(asked > 0)[0].tolist():
        room = core.room[:, column]
        useful = np.nonzero(room > 0)[0]
        order = useful[np.argsort(core.cost[useful] / room[useful], kind="stable")]
        need, cost = float(asked[column]), 0.0
        for kind in order.tolist():
            hosts = min(need / float(room[kind]), float(core.limit[kind]))
            cost += hosts * float(core.cost[kind])
            need -= hosts * float(room[kind])
            if need <= 1e-12:
                break
        if need > 1e-6 * asked[column]:
            return float("inf")
        best = max(best, cost)
        if len(core.cost) == 1 and core.limit[0] == UNLIMITED:
            best = max(best, float((asked / np.maximum(core.room[0], 1e-300))[asked > 0].max() * core.cost[0]))
            break
    return best


def _functions(core: Core) -> float:
    """Hosts, by dual feasible functions of single columns and of what pairs of columns ask for together."""
    room = core.room[0]
    used = np.nonzero(room > 1e-9)[0][:128]
    parts = np.minimum(core.size[:, used] / room[used], 1.0)
    best = 0.0
    for column in range(parts.shape[1]):
        best = max(best, _of_column(parts[:, column], core.count))
    # Items of which no two fit together in some column or other are counted by `_cliques`; a mixture of two columns
    # with weights that add up to one is a size as well.
    for column in range(min(parts.shape[1] - 1, 12)):
        best = max(best, _of_column((parts[:, column] + parts[:, column + 1]) / 2, core.count))
    return best


def _of_column(part: Floats, count: Ints) -> float:
    """Of sizes from 0 to 1: f(x) = 1 above 1 - t, 0 below t, x else (Martello and Toth); and k-fold rounding (Fekete
    and Schepers)."""
    best = 0.0
    for edge in np.unique(np.concatenate([part[part <= 0.5], 1.0 - part[part > 0.5]]))[:200].tolist():
        if edge <= 0:
            continue
        mapped = np.where(part > 1.0 - edge + 1e-7, 1.0, np.where(part < edge - 1e-7, 0.0, part))
        best = max(best, float(mapped @ count))
    for times in range(1, 8):
        scaled = part * (times + 1)
        whole = np.abs(scaled - np.round(scaled)) < 1e-9
        # What is a little above a whole number counts as below it: rounding must never make a bound.
        mapped = np.where(whole, part - 1e-9, np.floor(scaled - 1e-4) / times)
        best = max(best, float(mapped @ count))
    return best


def _cliques(core: Core) -> float:
    """Items of which no two share a host: as many hosts, of the cheapest kind."""
    biggest = core.room.max(axis=0)
    order = np.argsort(-core.size.max(axis=1), kind="stable")[:1500]
    size = core.size[order]
    candidates = np.ones(len(order), np.bool_)
    members = 0
    for index in range(len(order)):
        if not candidates[index]:
            continue
        alone = (size + size[index] > biggest).any(axis=1)
        one = int(order[index])
        if core.clash is not None:
            alone |= core.clash[one, order]
        members += int(core.count[one]) if (2 * size[index] > biggest).any() else 1
        candidates &= alone
        candidates[: index + 1] = False
    hosts = min(float(members), float(core.items))
    # The cheapest kinds first, as far as there are any.
    cost = 0.0
    for kind in np.argsort(core.cost, kind="stable").tolist():
        some = min(hosts, float(core.limit[kind]))
        cost += some * float(core.cost[kind])
        hosts -= some
        if hosts <= 0:
            break
    return cost
