"""Better answers from a good one: some of its hosts are packed anew, the rest stays as it is.

For what is too large to be solved as a whole, and for what the whole left over.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bulkhead.advise.packing.bounds import simple_bound
from bulkhead.advise.packing.columns import Generator, bins_of
from bulkhead.advise.packing.core import UNLIMITED, Bin, Core, Ints
from bulkhead.advise.packing.diving import dives
from bulkhead.advise.packing.effort import Effort

ITEMS = 110
"""Classes of items in a block, about."""
KINDS = 6
"""Kinds of hosts that a block may use besides its own."""
BLOCK_UNITS = 900_000


def improve(
    core: Core,
    bins: list[Bin],
    rng: np.random.Generator,
    effort: Effort,
    *,
    found: Callable[[list[Bin]], None],
    goal: float,
) -> list[Bin]:
    """Blocks of hosts, packed anew, until the work is done; `found` is told of each better answer."""
    cost = core.price(bins)
    order: list[int] = []
    while not effort.over() and cost > goal + 1e-9 and bins:
        if not order:
            order = _order(core, bins, rng)
        block = _block(bins, order)
        fresh = repacked(core, bins, block, rng, effort)
        if fresh is not None:
            gone = set(block)
            bins = [one for index, one in enumerate(bins) if index not in gone] + fresh
            cost = core.price(bins)
            order = []
            found(bins)
    return bins


def _order(core: Core, bins: list[Bin], rng: np.random.Generator) -> list[int]:
    """All hosts, those with much room left rather in front."""
    full = np.array(
        [
            float((core.size[list(classes)].sum(axis=0) / np.maximum(core.room[kind], 1e-12)).mean())
            for kind, classes in bins
        ]
    )
    order: list[int] = np.argsort(full + 0.3 * rng.random(len(bins)), kind="stable").tolist()
    return order


def _block(bins: list[Bin], order: list[int]) -> list[int]:
    """Hosts from the front of the order, taken out of it, with about ITEMS classes."""
    block: list[int] = []
    classes: set[int] = set()
    kinds: set[int] = set()
    while order and len(kinds) <= KINDS and (len(classes) < ITEMS or len(block) < 2):
        block.append(order.pop(0))
        kind, held = bins[block[-1]]
        kinds.add(kind)
        classes.update(held)
    return block


def repacked(
    core: Core, bins: list[Bin], block: list[int], rng: np.random.Generator, effort: Effort
) -> list[Bin] | None:
    """The items of these hosts on cheaper ones; None: none are found."""
    old = [bins[index] for index in block]
    count = np.bincount([one for _, classes in old for one in classes], minlength=len(core.count))
    left = core.limit.copy()
    for kind, _ in bins:
        left[kind] -= left[kind] < UNLIMITED
    own = np.bincount([kind for kind, _ in old], minlength=len(core.cost))
    left = np.where(core.limit < UNLIMITED, left + own, UNLIMITED)
    kinds = _kinds(core, own, left)
    part, some = core.part(count, kinds, left[kinds])
    cost = core.price(old)
    goal = simple_bound(part)
    effort.spend(2000)
    if goal >= cost - 1e-9:
        return None
    mine = effort.some(BLOCK_UNITS)
    generator = Generator(part, mine)
    row = {int(one): index for index, one in enumerate(some)}
    column = {int(kind): index for index, kind in enumerate(kinds)}
    generator.master.add([(column[kind], tuple(row[one] for one in classes)) for kind, classes in old])
    generator.converge(mine.part(0.4), cost, goal)
    if generator.bound >= cost - 1e-9:
        return None
    better = dives(generator, rng, cost, mine, max(goal, generator.bound))
    if better is None:
        return None
    fresh, rest = bins_of(part, better)
    if rest.any() or part.price(fresh) >= cost - 1e-9:
        return None
    return [(int(kinds[kind]), tuple(int(some[one]) for one in classes)) for kind, classes in fresh]


def _kinds(core: Core, own: Ints, left: Ints) -> Ints:
    """The kinds in use, and those beside them that cost least for what they hold."""
    room = np.maximum(core.room.mean(axis=1), 1e-12)
    others = np.nonzero((own == 0) & (left > 0))[0]
    cheap = others[np.argsort(core.cost[others] / room[others], kind="stable")][:KINDS]
    return np.sort(np.concatenate([np.nonzero(own)[0], cheap]))


def squeeze(core: Core, bins: list[Bin], effort: Effort) -> list[Bin]:
    """Hosts emptied onto the others where there is room, by all columns: what the safe ones have hidden."""
    held = [(kind, list(classes)) for kind, classes in bins]
    free = np.array([core.room[kind] - core.size[classes].sum(axis=0) for kind, classes in held])
    alive = np.ones(len(held), np.bool_)
    weight = (core.count @ core.size) / max(1, core.items)
    for number in np.argsort(free @ weight * -1.0, kind="stable").tolist():
        if effort.over():
            break
        plan = _emptied(core, held, free, alive, number)
        effort.spend(len(held[number][1]) * (20 + 0.0012 * free.size))
        if plan is None:
            continue
        kind, classes = held[number]
        before = core.cost[kind] + core.extra[classes, kind].sum()
        after = sum(float(core.extra[one, held[other][0]]) for one, other in plan)
        if after >= before - 1e-9:
            continue
        alive[number] = False
        for one, other in plan:
            held[other][1].append(one)
            free[other] -= core.size[one]
        free[number] = -1.0
    return [
        (kind, tuple(sorted(classes))) for (kind, classes), stays in zip(held, alive.tolist(), strict=True) if stays
    ]


def _emptied(
    core: Core, held: list[tuple[int, list[int]]], free: np.ndarray, alive: np.ndarray, number: int
) -> list[tuple[int, int]] | None:
    """Where each item of a host would go, the largest first; None: they do not all find room."""
    classes = held[number][1]
    kinds = np.array([kind for kind, _ in held])
    changed: dict[int, np.ndarray] = {}
    gained: dict[int, list[int]] = {}
    plan = []
    for one in sorted(classes, key=lambda each: -float(core.size[each].max())):
        size = core.size[one]
        fits = alive & (free >= size).all(axis=1) & core.allowed[one, kinds]
        fits[number] = False
        best, where = np.inf, -1
        for other in np.nonzero(fits)[0].tolist():
            left = changed.get(other, free[other])
            if (left < size).any():
                continue
            beside = held[other][1] + gained.get(other, [])
            if core.clash is not None and core.clash[one, beside].any():
                continue
            score = float(left.mean()) + float(core.extra[one, held[other][0]])
            if score < best:
                best, where = score, other
        if where < 0:
            return None
        changed[where] = changed.get(where, free[where]) - size
        gained.setdefault(where, []).append(one)
        plan.append((one, where))
    return plan
