"""Whole hosts out of the linear program: the sets that it likes most are taken one after the other, and it is solved
anew for the rest.

A dive is given up where what is left cannot be had for less than the best answer so far. The next one keeps a part of
the path, by chance, and takes other sets from there on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bulkhead.advise.packing.columns import Generator
from bulkhead.advise.packing.core import Bin, Core, Ints, rounded_up
from bulkhead.advise.packing.effort import Effort
from bulkhead.advise.packing.greedy import by_host, by_item, weighings
from bulkhead.advise.packing.master import Relaxed

KEPT = 5
"""Sets for each class, where there are twice as many: the linear program is solved again at each step."""
ROUNDS = 8
"""Of pricing at one step of a dive, at most."""


@dataclass(slots=True)
class Path:
    """What a dive has taken so far."""

    core: Core
    bins: list[Bin] = field(default_factory=list)
    cost: float = 0.0
    count: Ints = field(init=False)
    limit: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.count, self.limit = self.core.count.copy(), self.core.limit.copy()

    def take(self, kind: int, classes: tuple[int, ...]) -> None:
        """One host more, with those of the items that are left and what else fits."""
        held: list[int] = []
        for one in classes:
            if self.count[one] > 0:
                self.count[one] -= 1
                held.append(one)
        if held:
            self.bins.append((kind, tuple(sorted(held))))
            self.cost += float(self.core.cost[kind] + self.core.extra[held, kind].sum())
            self.limit[kind] -= 1

    def until(self, number: int) -> Path:
        """The first hosts of it."""
        path = Path(self.core)
        for kind, classes in self.bins[:number]:
            path.take(kind, classes)
        return path


class Diver:
    """Dives of one core, each better informed than the one before."""

    def __init__(self, generator: Generator, rng: np.random.Generator) -> None:
        self.generator, self.rng = generator, rng
        self.core = generator.core

    def dive(self, path: Path, upper: float, noise: float, effort: Effort) -> bool:
        """Go on from a path until everything has its place for less than `upper`; False: given up."""
        while path.count.any():
            relaxed = self._solve(path, upper, effort)
            if relaxed is None or effort.over():
                return False
            before = len(path.bins)
            for index in self._choice(path, relaxed, noise):
                kind, classes = self.generator.master.columns[index]
                if path.limit[kind] > 0:
                    path.take(kind, self._filled(path, kind, classes, relaxed))
            if len(path.bins) == before:
                return False
        return path.cost < upper - 1e-9

    def completed(self, path: Path, effort: Effort) -> Path | None:
        """The rest of a path that was given up, packed the quick way; None: it has no room."""
        some = np.nonzero(path.limit > 0)[0]
        if len(some) == 0:
            return None
        part, classes = self.core.part(path.count, some, path.limit[some])
        weight = weighings(part)["average"]
        ways = (
            by_host(part, weight, "dot", effort, "average"),
            by_item(part, weight, "best", effort, "average", must=True),
        )
        quick = min(ways, key=lambda one: one.key)
        if quick.left:
            return None
        whole = path.until(len(path.bins))
        for kind, held in quick.bins:
            whole.take(int(some[kind]), tuple(int(classes[one]) for one in held))
        return whole

    def _solve(self, path: Path, upper: float, effort: Effort) -> Relaxed | None:
        """The linear program of what is left; None: it cannot be had for less than `upper`."""
        generator = self.generator
        master, unit = generator.master, generator.unit
        master.demand(path.count, path.limit)
        relaxed = master.solve()
        if master.trim(KEPT * len(self.core.count), relaxed):
            relaxed = master.solve()
        width = generator.narrow
        # At the beginning all depends on whether the program gets below; later there are other ways.
        widest, rounds = (generator.wide, 10 * ROUNDS) if not path.bins else (4 * width, ROUNDS)
        for turn in range(rounds):
            good = relaxed.short < 1e-6 and path.cost + rounded_up(relaxed.cost, unit) < upper - 1e-9
            if (good and turn > 0) or effort.over():
                break
            added, bound = generator.round(relaxed, path.count, path.limit, width)
            if path.cost + rounded_up(bound, unit) > upper - 1e-9:
                return None
            if added:
                relaxed = master.solve()
            elif good or width >= widest:
                break
            else:
                width = min(widest, 4 * width)
        if relaxed.short > 1e-6 or path.cost + rounded_up(relaxed.cost, unit) > upper - 1e-9:
            return None
        return relaxed

    def _choice(self, path: Path, relaxed: Relaxed, noise: float) -> list[int]:
        """Columns to take: all that the program takes whole, else the one that it takes most of (several of a large
        program)."""
        used = relaxed.used
        some = np.nonzero(used > 1e-3)[0]
        whole = some[used[some] > 1 - 1e-6]
        if len(whole):
            return np.repeat(whole, np.floor(used[whole] + 1e-6).astype(np.int64)).tolist()
        liking = used[some] + (noise * self.rng.random(len(some)) if noise else 0.0)
        order = some[np.argsort(-liking, kind="stable")]
        most = max(1, int(relaxed.used.sum() / 10))
        chosen: list[int] = []
        left = path.count.copy()
        for index in order.tolist():
            classes = list(self.generator.master.columns[index][1])
            needs = np.bincount(classes, minlength=len(left))
            if not chosen or (used[index] > 0.5 and (needs <= left).all()):
                chosen.append(index)
                left = np.maximum(left - needs, 0)
            if len(chosen) >= most:
                break
        return chosen

    def _filled(self, path: Path, kind: int, classes: tuple[int, ...], relaxed: Relaxed) -> tuple[int, ...]:
        """A set whose items are gone in part takes others instead, the most worth first."""
        core = self.core
        left = path.count.copy()
        held = []
        for one in classes:
            if left[one] > 0:
                left[one] -= 1
                held.append(one)
        room = core.room[kind] - core.size[held].sum(axis=0)
        may = (left > 0) & core.allowed[:, kind] & (core.size <= room).all(axis=1)
        if core.clash is not None and held:
            may &= ~core.clash[held].any(axis=0)
        profit = relaxed.worth - core.extra[:, kind]
        some = np.nonzero(may & (profit > 1e-9))[0]
        for one in some[np.argsort(-profit[some], kind="stable")].tolist():
            while left[one] > 0 and (core.size[one] <= room).all():
                if core.clash is not None and core.clash[one, held].any():
                    break
                held.append(one)
                left[one] -= 1
                room = room - core.size[one]
        self.generator.effort.spend(60 + 2 * len(some))
        return tuple(held)


def dives(
    generator: Generator, rng: np.random.Generator, upper: float, effort: Effort, goal: float
) -> list[Bin] | None:
    """The best that dives find below `upper`; stops at `goal`, which nothing is below. None: nothing is found."""
    diver = Diver(generator, rng)
    best: list[Bin] | None = None
    path = Path(generator.core)
    turn = 0
    while not effort.over() and upper > goal + 1e-9:
        found = diver.dive(path, upper, 0.0 if turn == 0 else _NOISE[turn % len(_NOISE)], effort)
        whole = path if found else diver.completed(path, effort)
        if whole is not None and whole.cost < upper - 1e-9:
            best, upper = whole.bins, whole.cost
        elif not path.bins:
            break  # not even the first host: the program of the whole is no better
        turn += 1
        # Back to a part of the way, a shorter part each time, then from the beginning.
        share = _BACK[turn % len(_BACK)]
        path = path.until(int(len(path.bins) * share * float(rng.random()))) if share else Path(generator.core)
    return best


_NOISE = (0.0, 0.25, 0.1, 0.5)
_BACK = (0.0, 1.0, 0.9, 0.8, 0.6)
