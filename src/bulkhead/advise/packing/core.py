"""A problem as arrays: the form that all steps of the solver work on, and the way back.

Items that must be together are one; items that are alike in everything are one class with a count; hosts that are
alike are one kind; a host that has fixed items is a kind of its own with what is left of it, free of charge. Sizes are
parts of the largest capacity. Time steps are columns like resources: `reducing.py` makes fewer of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bulkhead.advise.packing.model import SLACK, Floats

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
UNLIMITED = 1 << 40
Bin = tuple[int, tuple[int, ...]]
"""A host in use: its kind, and the classes of its items in ascending order, as often as they are there."""


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """C classes of items, K kinds of hosts, D columns."""

    size: Floats
    """(C, D)"""
    count: Ints
    """(C,) items of each class."""
    room: Floats
    """(K, D), a trace more than the capacity, so that rounding forbids nothing."""
    cost: Floats
    """(K,)"""
    limit: Ints
    """(K,) hosts of each kind; UNLIMITED."""
    allowed: Bools
    """(C, K)"""
    extra: Floats
    """(C, K)"""
    clash: Bools | None
    """(C, C), may not share a host; on the diagonal: not with another of its class. None: there are no such rules."""

    @property
    def items(self) -> int:
        """Items in all."""
        return int(self.count.sum())

    @property
    def uniform(self) -> bool:
        """One kind of host, as many as are needed, no extras: the least cost is the least number of hosts."""
        return len(self.cost) == 1 and self.limit[0] >= self.items and not self.extra.any()

    def price(self, bins: list[Bin]) -> float:
        """What these hosts cost."""
        return float(sum(self.cost[kind] + self.extra[list(classes), kind].sum() for kind, classes in bins))

    def fits(self, kind: int, classes: list[int] | tuple[int, ...]) -> bool:
        """Whether these items may be on one host of this kind."""
        chosen = list(classes)
        if not self.allowed[chosen, kind].all() or (self.size[chosen].sum(axis=0) > self.room[kind]).any():
            return False
        if self.clash is None:
            return True
        return not np.triu(self.clash[np.ix_(chosen, chosen)], 1).any()

    def part(self, count: Ints, kinds: Ints, limit: Ints) -> tuple[Core, Ints]:
        """The problem of some of the items on some kinds with other limits, and which classes it is of."""
        some = np.nonzero(count)[0]
        clash = None if self.clash is None else self.clash[np.ix_(some, some)]
        if clash is not None and not clash.any():
            clash = None
        part = Core(
            self.size[some],
            count[some],
            self.room[kinds],
            self.cost[kinds],
            limit,
            self.allowed[np.ix_(some, kinds)],
            self.extra[np.ix_(some, kinds)],
            clash,
        )
        return part, some

    def seen(self, size: Floats, room: Floats) -> Core:
        """The same with other columns; `room` without the trace for rounding."""
        return replace(self, size=np.ascontiguousarray(size), room=room * (1 + SLACK) + 1e-12)


def unit_of(core: Core) -> float:
    """All costs are multiples of this; 0.0 where there is no such thing. Bounds are rounded up to it."""
    if core.extra.any():
        return 0.0
    costs = {float(cost) for cost in core.cost if cost > 0}
    if len(costs) == 1:
        return costs.pop()
    if costs and all(cost.is_integer() and cost < 2**50 for cost in costs):
        return float(np.gcd.reduce([int(cost) for cost in costs]))
    return 0.0


def rounded_up(value: float, unit: float) -> float:
    """The least possible cost that is no less than a bound, with what arithmetic may have added taken off."""
    value -= 1e-6 * max(1.0, abs(value)) if unit else 1e-9 * abs(value)
    return max(0.0, float(np.ceil(value / unit) * unit) if unit else value)
