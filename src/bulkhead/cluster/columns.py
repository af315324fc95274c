"""The fleet as columns: one row a host, so that a rule is one comparison over all of them.

numpy, since ten thousand hosts in five milliseconds leave half a microsecond for each: Python spends that on a single
attribute. Rows are reused; a row without a host has `alive` False, and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bulkhead.amounts import RESOURCES
from bulkhead.cluster.policies import WEIGHED
from bulkhead.cluster.snapshot import HostView, Wanted
from bulkhead.cluster.spare import Row
from bulkhead.model import Isolation

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

LEVELS = tuple(Isolation)
NOBODY, SEVERAL = -1, -2
"""In the place of the one tenant's number."""
_FIRST = 64


class Columns:
    """Arrays of one length, of which the first `top` rows are in use, and the numbers of what is no number."""

    def __init__(self) -> None:
        self.top = 0
        self.free = np.zeros((len(RESOURCES), _FIRST), np.int64)
        self.sold = np.zeros((len(WEIGHED), _FIRST), np.int64)
        self.sellable = np.zeros((len(WEIGHED), _FIRST), np.float64)
        self.works = np.zeros((len(LEVELS), _FIRST), np.bool_)
        self.alive = np.zeros(_FIRST, np.bool_)
        self.ready = np.zeros(_FIRST, np.bool_)
        self.awake = np.zeros(_FIRST, np.bool_)
        self.architecture = np.zeros(_FIRST, np.int64)
        self.kind = np.zeros(_FIRST, np.int64)
        self.cores = np.zeros(_FIRST, np.int64)
        self.core = np.zeros(_FIRST, np.int64)
        self.rank = np.zeros(_FIRST, np.int64)
        self.tenant = np.zeros(_FIRST, np.int64)
        self.dedicated = np.zeros(_FIRST, np.int64)
        self.sharing = np.zeros(_FIRST, np.int64)
        self.foreign = np.zeros(_FIRST, np.int64)
        """The one tenant of all instances, of dedicated ones, of those on the host's kernel, of the not trusted ones
        among these; or NOBODY or SEVERAL."""
        self.takes = np.zeros(_FIRST, np.bool_)
        self.carries = np.zeros(_FIRST, np.int64)
        self.largest = np.zeros(_FIRST, np.int64)
        self.room = np.zeros(_FIRST, np.int64)
        """`spare.Row` as columns."""
        self._numbers: dict[str, int] = {}

    def add(self) -> int:
        """The number of a fresh row."""
        if self.top == len(self.alive):
            for name, column in vars(self).items():
                if isinstance(column, np.ndarray):
                    setattr(self, name, np.concatenate([column, np.zeros_like(column)], axis=-1))
        self.top += 1
        return self.top - 1

    def number(self, text: str) -> int:
        """The same for the same text, from 0 on."""
        return self._numbers.setdefault(text, len(self._numbers))

    def write(self, row: int, host: HostView, kind: int) -> None:
        """Everything of a host but its rank and what the reserve needs."""
        self.alive[row] = True
        self.ready[row] = host.state == "ready"
        self.awake[row] = bool(host.instances)
        free = host.free
        self.free[:, row] = [free.of(name) for name in RESOURCES]
        self.sold[:, row] = [host.sold.of(name) for name in WEIGHED]
        shares = [host.has.shares.get(name) for name in WEIGHED]
        self.sellable[:, row] = [np.inf if share is None else share.sellable for share in shares]
        self.works[:, row] = [level in host.abilities and host.abilities[level].works for level in LEVELS]
        self.architecture[row] = self.number(host.architecture)
        self.kind[row], self.cores[row], self.core[row] = kind, host.speed.cores, host.speed.core
        wanted = [placed.wanted for placed in host.instances]
        sharing = [each for each in wanted if each.on_host_kernel]
        self.tenant[row] = self._one(wanted)
        self.dedicated[row] = self._one([each for each in wanted if each.dedicated])
        self.sharing[row] = self._one(sharing)
        self.foreign[row] = self._one([each for each in sharing if not each.trusted])

    def write_spare(self, row: int, of: Row) -> None:
        """What the reserve needs."""
        self.takes[row], self.carries[row], self.largest[row], self.room[row] = (
            of.takes,
            of.carries,
            of.largest,
            of.room,
        )

    def clear(self, row: int) -> None:
        """No host any more."""
        self.alive[row] = self.takes[row] = self.ready[row] = False
        self.carries[row] = self.largest[row] = self.room[row] = 0

    def _one(self, wanted: Sequence[Wanted]) -> int:
        tenants = {each.tenant for each in wanted}
        if len(tenants) == 1:
            return self.number(tenants.pop())
        return SEVERAL if tenants else NOBODY
