"""`policies.score` over columns: the same operations in the same order, so the same numbers to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bulkhead.amounts import RESOURCES
from bulkhead.cluster.columns import Columns, Floats, Ints
from bulkhead.cluster.lookup import Lookup
from bulkhead.cluster.policies import BONUS, MILLION, SOFT, WEIGHED, Policy
from bulkhead.cluster.snapshot import Term, Wanted


def scores(
    columns: Columns,
    fitting: Ints,
    takes: Ints,
    *,
    policy: Policy,
    wanted: Wanted,
    lookup: Lookup,
    rows_of: Callable[[Term], list[int]],
) -> Ints:
    """Of the hosts that would do, in the order of `fitting`, which are their rows."""
    memory, cpu, disk = (_use(columns, fitting, takes, name) for name in WEIGHED)
    mean = (memory + cpu + disk) / 3.0
    most = np.maximum(np.maximum(memory, cpu), disk)
    if policy == "pack":
        value = 0.5 * mean + np.where(columns.awake[fitting], 0.5, 0.0)
    elif policy == "spread":
        value = 1.0 - most
    else:
        value = 1.0 - (0.75 * (most - np.minimum(np.minimum(memory, cpu), disk)) + 0.25 * mean)
    points: Ints = (value * MILLION).astype(np.int64)
    bonus = np.zeros(columns.top, np.int64)
    if wanted.image:
        bonus[np.fromiter(lookup.images.rows(wanted.image), np.int64)] += BONUS
    for term in wanted.terms:
        if not term.hard:
            rows = np.fromiter(rows_of(term), np.int64)
            bonus[rows] += SOFT * (-term.weight if term.away else term.weight)
    return points + bonus[fitting]


def _use(columns: Columns, fitting: Ints, takes: Ints, name: str) -> Floats:
    position = WEIGHED.index(name)
    taken = takes[RESOURCES.index(name)]
    sold = columns.sold[position, fitting] + (taken if len(taken) == 1 else taken[fitting])
    sellable = columns.sellable[position, fitting]
    use = np.divide(sold.astype(np.float64), sellable, out=np.ones(len(fitting)), where=sellable != 0)
    clipped: Floats = np.minimum(1.0, np.maximum(0.0, use))
    return clipped
