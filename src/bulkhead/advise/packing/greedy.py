"""Quick packings, many of them: first fit and best fit by orders of the items, and one host after the other filled by
what suits it best (Panigrahy et al., Heuristics for Vector Bin Packing, 2011), or by the pair that fills the rest best.
They differ in how the columns are weighed, and compete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bulkhead.advise.packing.core import Bin, Core, Ints
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.model import Floats
from bulkhead.advise.packing.pool import Pool

TRIED = 12
"""Kinds of hosts that are filled to see which is the best."""
STRIDE = 128
"""Items, after which the time is looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Hosts in use, and the classes of the items that found no room (as often as that is so)."""

    bins: list[Bin]
    left: tuple[int, ...]
    cost: float
    by: str

    @property
    def key(self) -> tuple[int, float]:
        """Less is better: everything has its place, then the cost."""
        return len(self.left), self.cost


def usual(core: Core, effort: Effort) -> Iterator[Packing]:
    """The usual packings, one after the other; the first of them is made in any case."""
    weights = weighings(core)
    yield by_item(core, weights["average"], "first", effort, "average", must=True)
    for name in ("average", "even", "scarce"):
        yield by_host(core, weights[name], "dot", effort, name)
        for rule in ("best", "first") if name != "average" else ("best",):
            yield by_item(core, weights[name], rule, effort, name)
        if effort.over():
            return
    yield by_host(core, weights["average"], "norm", effort, "average")


def pairs(core: Core, effort: Effort) -> Iterator[Packing]:
    """Host by host, the end of each by pairs."""
    weights = weighings(core)
    for name in ("average", "even"):
        if not effort.over():
            yield by_host(core, weights[name], "pairs", effort, name)


def chance(core: Core, rng: np.random.Generator, effort: Effort, rounds: int) -> Iterator[Packing]:
    """Packings with weights by chance."""
    average = weighings(core)["average"]
    for number in range(rounds):
        if effort.over():
            return
        weight = average * rng.uniform(0.3, 1.7, len(average))
        if number % 4 == 2:
            yield by_item(core, weight, "best", effort, "chance", noise=rng.uniform(0.9, 1.1, len(core.count)))
        else:
            yield by_host(core, weight, ("pairs", "dot", "", "norm")[number % 4], effort, "chance")


def weighings(core: Core) -> dict[str, Floats]:
    """How much each column counts, (D,): all the same, by how much of it is asked for, by how scarce it is."""
    asked = core.count @ core.size
    ample = np.maximum(core.room.max(axis=0), 1e-9)
    average = asked / ample / max(1, core.items)
    top = max(float(average.max(initial=0.0)), 1e-12)
    return {
        "average": average + 1e-6 * top,
        "even": np.where(asked > 0, 1.0, 0.0) / ample,
        "scarce": (average / top) ** 3 + 1e-6,
    }


def by_item(
    core: Core,
    weight: Floats,
    rule: str,
    effort: Effort,
    name: str,
    *,
    noise: Floats | None = None,
    must: bool = False,
) -> Packing:
    """Items by falling size, each on the first host that has room, or on the one that it fills best.

    Where the time is over the rest is left, unless it `must` be finished.
    """
    worth = core.size @ weight + core.size.max(axis=1) * float(weight.sum()) * 0.5
    order = np.argsort(-(worth if noise is None else worth * noise), kind="stable")
    state = _Open(core, weight, rule)
    left = []
    effort.spend(len(core.count))
    for number, one in enumerate(np.repeat(order, core.count[order]).tolist()):
        if number % STRIDE == STRIDE - 1:
            effort.spend(STRIDE * (16 + 0.0012 * state.top * core.size.shape[1]))
            state.closed = not must and effort.over()
        if not state.put(one):
            left.append(one)
    bins = cheapened(core, state.bins())
    return Packing(bins, tuple(sorted(left)), core.price(bins), f"{rule} fit, {name} weights")


class _Open:
    """Hosts that were opened one after the other."""

    def __init__(self, core: Core, weight: Floats, rule: str) -> None:
        self.core, self.weight, self.rule = core, weight, rule
        self.top = 0
        self.closed = False
        self.free = np.zeros((core.size.shape[1], 16))
        self.kind = np.zeros(16, np.int64)
        self.held: list[list[int]] = []
        self.limit = core.limit.copy()
        self.value = np.maximum(core.room @ weight, 1e-12)
        self.foes = None if core.clash is None else np.zeros((16, len(core.count)), np.bool_)

    def put(self, one: int) -> bool:
        """False: there is no room for it."""
        if self.closed:
            return False
        core, size = self.core, self.core.size[one]
        fits = np.logical_and.reduce(self.free[:, : self.top] >= size[:, None], axis=0)
        if len(core.cost) > 1:
            fits &= core.allowed[one, self.kind[: self.top]]
        if self.foes is not None:
            fits &= ~self.foes[: self.top, one]
        where = np.nonzero(fits)[0]
        if len(where) == 0:
            number = self._open(one)
            if number < 0:
                return False
        elif self.rule == "first" or len(where) == 1:
            number = int(where[0])
        else:
            score = self.weight @ self.free[:, where]
            if core.extra.any():
                kinds = self.kind[where]
                score = (score - size @ self.weight) / self.value[kinds] * core.cost[kinds] + core.extra[one, kinds]
            number = int(where[np.argmin(score)])
        self.free[:, number] -= size
        self.held[number].append(one)
        if self.foes is not None and core.clash is not None:
            self.foes[number] |= core.clash[one]
        return True

    def _open(self, one: int) -> int:
        """A host of the kind that costs least for what it holds; -1: no kind is left for this item."""
        core = self.core
        may = core.allowed[one] & (self.limit > 0)
        if not may.any():
            return -1
        price = np.where(may, (core.cost + core.extra[one]) / self.value, np.inf)
        kind = int(np.argmin(price))
        if self.top == len(self.kind):
            self.free = np.concatenate([self.free, np.zeros_like(self.free)], axis=1)
            self.kind = np.concatenate([self.kind, np.zeros_like(self.kind)])
            if self.foes is not None:
                self.foes = np.concatenate([self.foes, np.zeros_like(self.foes)])
        self.limit[kind] -= 1
        self.free[:, self.top], self.kind[self.top] = core.room[kind], kind
        self.held.append([])
        self.top += 1
        return self.top - 1

    def bins(self) -> list[Bin]:
        """What is in them."""
        return [(int(self.kind[number]), tuple(sorted(held))) for number, held in enumerate(self.held) if held]


def by_host(core: Core, weight: Floats, rule: str, effort: Effort, name: str) -> Packing:
    """One host after the other: of each kind one is filled, and the one that costs least for what it holds is taken."""
    count, limit = core.count.copy(), core.limit.copy()
    worth = core.size @ weight + 1e-12
    pool = Pool(core, weight, rule)
    bins: list[Bin] = []
    while count.any() and not effort.over():
        best: tuple[float, int, list[int]] | None = None
        for kind in _cheap(core, limit, weight):
            filled = pool.fill(kind, count)
            effort.spend(20 + len(filled) * (14 + 0.002 * len(pool.index) * core.size.shape[1]) + pool.work())
            if filled:
                price = (core.cost[kind] + core.extra[filled, kind].sum()) / worth[filled].sum()
                if best is None or price < best[0] - 1e-12:
                    best = price, kind, filled
        if best is None:
            break
        _, kind, filled = best
        times = 1
        if len(filled) == len(set(filled)) or len(core.count) < core.items:
            # Where many items are alike, the same host is filled the same way again.
            needs = np.bincount(filled, minlength=len(count))
            some = needs > 0
            times = int(max(1, min((count[some] // needs[some]).min(), limit[kind])))
        count -= np.bincount(filled, minlength=len(count)) * times
        limit[kind] -= times
        pool.taken(count)
        bins += [(kind, tuple(sorted(filled)))] * times
    bins = cheapened(core, bins)
    left = tuple(np.repeat(np.arange(len(count)), count).tolist())
    return Packing(bins, left, core.price(bins), f"host by host, {rule}, {name} weights")


def _cheap(core: Core, limit: Ints, weight: Floats) -> list[int]:
    """The kinds to try: those that cost least for what they hold, of many."""
    some = np.nonzero(limit > 0)[0]
    if len(some) <= TRIED:
        return [int(kind) for kind in some]
    price = core.cost[some] / np.maximum(core.room[some] @ weight, 1e-12)
    return [int(kind) for kind in some[np.argsort(price, kind="stable")[:TRIED]]]


def cheapened(core: Core, bins: list[Bin]) -> list[Bin]:
    """Each host replaced by the cheapest kind that holds the same and of which there is one left."""
    if len(core.cost) == 1:
        return bins
    limit = core.limit.copy()
    for kind, _ in bins:
        limit[kind] -= 1
    result = []
    for kind, classes in bins:
        chosen = list(classes)
        load = core.size[chosen].sum(axis=0)
        price = core.cost + core.extra[chosen].sum(axis=0)
        may = (limit > 0) & core.allowed[chosen].all(axis=0) & (load <= core.room).all(axis=1)
        may[kind] = True
        best = int(np.argmin(np.where(may, price, np.inf)))
        if price[best] > price[kind] - 1e-12:
            best = kind
        limit[kind] += 1
        limit[best] -= 1
        result.append((best, classes))
    return result
