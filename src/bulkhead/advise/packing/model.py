"""What is packed: items, the types of hosts that hold them, rules between items; and the answer.

Words: an item is a workload's demand; a host type is a kind of host with capacities and a cost, of which there is a
number or any number; a place is one host: the type's name and a number from 0. `check` of `checker.py` says whether an
answer keeps all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PROVEN = 1e-7
"""Of a cost, what a bound may be below it to count as equal."""
SLACK = 1e-9
"""Of a capacity, what rounding may exceed: sums of floats in another order differ by less."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """What goes to one host as a whole."""

    name: str
    demand: npt.ArrayLike
    """Shape (resources,), or (resources, steps) where it changes over time; 0 or more, in the units of the capacities.
        """
    hosts: frozenset[str] | None = None
    """Names of the host types that may hold it; None: all of them."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Host type -> what it costs to have this item there, beyond the host's own cost (a licence, a move); 0 or more."""


@dataclass(frozen=True, slots=True, eq=False)
class HostType:
    """A kind of host. An existing host is a type of which there is one."""

    name: str
    capacity: npt.ArrayLike
    """Shape (resources,)."""
    cost: float = 1.0
    """Of each host that holds an item; 0 or more."""
    count: int | None = None
    """How many there are; None: as many as are needed."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One host: `number` from 0, below the type's count."""

    type: str
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Everything that an answer has to keep. Names of items, and of host types, are told apart by their text."""

    resources: tuple[str, ...]
    hosts: tuple[HostType, ...]
    items: tuple[Item, ...]
    anti_affinity: tuple[frozenset[str], ...] = ()
    """Of each of these sets no two items share a host."""
    affinity: tuple[frozenset[str], ...] = ()
    """The items of each of these sets share one host."""
    fixed: Mapping[str, Place] = field(default_factory=dict)
    """Item -> where it stays."""
    start: Mapping[str, Place] = field(default_factory=dict)
    """A placement that is known, complete or not: the answer costs no more than this, if it keeps the rules."""

    @property
    def steps(self) -> int:
        """Time steps of the demands; 1 where they are constant."""
        return max((np.shape(item.demand)[1] for item in self.items if np.ndim(item.demand) == 2), default=1)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Where everything goes, what it costs, and what it would cost at least."""

    places: Mapping[str, Place]
    unplaced: tuple[str, ...]
    """Items for which no room was found; () in a complete answer."""
    cost: float
    """Hosts in use and extras."""
    bound: float
    """No complete answer costs less; infinite where there is proof that no answer is complete."""
    found_by: str
    """Which step found it, for people."""
    cut: bool
    """The clock ended the search and not its budget of work: another run may get further."""
    seconds: float

    @property
    def complete(self) -> bool:
        """Everything has its place."""
        return not self.unplaced

    @property
    def hosts(self) -> int:
        """Hosts in use."""
        return len(set(self.places.values()))

    @property
    def gap(self) -> float:
        """The part of the cost that may be too much, 0 to 1; 0: proven to be the least."""
        if self.cost <= self.bound * (1 + PROVEN):
            return 0.0
        return (self.cost - self.bound) / self.cost

    @property
    def proven(self) -> bool:
        """No complete answer is cheaper."""
        return self.complete and self.gap == 0.0
