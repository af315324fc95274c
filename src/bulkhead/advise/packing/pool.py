"""One host after the other is filled out of a pool of items."""

from __future__ import annotations

import numpy as np

from bulkhead.advise.packing.core import Bools, Core, Ints
from bulkhead.advise.packing.model import Floats

FLAT = 16
"""Columns that are looked at one by one."""
STRIDE = 128
"""Hosts, after which what is gone is left out at the latest."""
COLUMNS = 64
"""Beyond so many there are no pairs: each looks at all columns."""
SAMPLE = 110
"""Items that pairs are made of."""
NEAR = 2.6
"""Mean items that there is room for, when the rest is filled by pairs."""


class Pool:
    """The classes of which there still are some, column by column: a step looks at all of them."""

    def __init__(self, core: Core, weight: Floats, rule: str) -> None:
        self.core, self.weight, self.rule = core, weight, rule
        self.value = core.size @ weight
        self.looked = 0
        self._keep(np.arange(len(core.count)))

    def _keep(self, index: Ints) -> None:
        self.index = index
        self.size = np.ascontiguousarray(self.core.size[index].T)
        self.square = self.weight @ self.size**2 if self.rule != "dot" else np.zeros(len(index))
        self.mean = self.size.mean(axis=1) if len(index) else np.ones(len(self.size))
        self.gone = 0

    def taken(self, count: Ints) -> None:
        """`count` is what is left: classes of which none is are left out, from time to time."""
        self.gone += 1
        if self.gone * 16 > len(self.index) or self.gone >= STRIDE:
            self._keep(self.index[count[self.index] > 0])

    def fill(self, kind: int, count: Ints) -> list[int]:
        """Classes that one host of this kind takes, each the one that suits best what is left of it."""
        core, room = self.core, self.core.room[kind].copy()
        some, size, square = self.index, self.size, self.square
        keep = (count[some] > 0) & core.allowed[some, kind]
        left = count.copy()
        filled: list[int] = []
        while True:
            self._fits(keep, size, room)
            fit = int(np.count_nonzero(keep))
            if fit == 0:
                return filled
            if 2 * fit < len(some):
                chosen = np.nonzero(keep)[0]
                some, size, square = some[chosen], size[:, chosen], square[chosen]
                keep = np.ones(fit, np.bool_)
            if self.rule == "pairs" and len(room) <= COLUMNS and (room < NEAR * self.mean).any():
                taken = self._pair(np.nonzero(keep)[0], some, size, room, left)
            else:
                # Norm: the least of weight * (room - size)^2, without what is the same for all.
                score = (self.weight * room) @ size
                if self.rule != "dot":
                    score = 2 * score - square
                score[~keep] = -np.inf
                taken = [int(np.argmax(score))]
            for index in taken:
                one = int(some[index])
                room -= size[:, index]
                filled.append(one)
                left[one] -= 1
                keep[index] = left[one] > 0
                if core.clash is not None:
                    keep &= ~core.clash[one, some]

    def _fits(self, keep: Bools, size: Floats, room: Floats) -> None:
        if len(room) <= FLAT:
            for column in range(len(room)):
                keep &= size[column] <= room[column]
        else:
            keep &= np.logical_and.reduce(size <= room[:, None], axis=0)

    def _pair(self, fits: Ints, some: Ints, size: Floats, room: Floats, left: Ints) -> list[int]:
        """The two of a sample of what fits that fill most together, or the one that fills more than these."""
        value = self.value[some[fits]]
        largest = int(fits[np.argmax(value)])
        sample = fits[:: -(-len(fits) // SAMPLE)]
        sizes, worth, classes = size[:, sample], self.value[some[sample]], some[sample]
        good = np.ones((len(sample), len(sample)), np.bool_)
        for column in range(len(room)):
            good &= sizes[column][:, None] + sizes[column] <= room[column]
        self.looked += good.size * len(room)
        # Twice the same is a pair if there are two.
        np.fill_diagonal(good, good.diagonal() & (left[classes] > 1))
        if self.core.clash is not None:
            good &= ~self.core.clash[np.ix_(classes, classes)]
        both = np.where(good, worth[:, None] + worth, -1.0)
        first, second = divmod(int(np.argmax(both)), len(sample))
        if both[first, second] <= self.value[some[largest]]:
            return [largest]
        return [int(sample[first]), int(sample[second])]

    def work(self) -> float:
        """Units for pairs that were looked at since the last time."""
        looked, self.looked = self.looked, 0
        return looked * 0.002
