"""How much of a host's resources something takes, and how much there is. In whole numbers: any sum stays exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from bulkhead.quantities import format_rate, format_size

RESOURCES = ("memory", "cpu", "disk", "bandwidth", "iops", "disk_bps")
"""In the order in which they are told."""
LIMITLESS = 1 << 62
"""Of a resource that is not sold by: more of it than anybody can ask for."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What is taken of each resource."""

    memory: int = 0
    """Bytes."""
    cpu: int = 0
    """kHz of cores: 2 cores at 2 GHz are 4,000,000."""
    disk: int = 0
    """Bytes."""
    bandwidth: int = 0
    """Bits per second."""
    iops: int = 0
    """Operations per second."""
    disk_bps: int = 0
    """Bytes per second."""

    def __add__(self, other: Amounts) -> Amounts:
        return self._with(other, int.__add__)

    def __sub__(self, other: Amounts) -> Amounts:
        return self._with(other, int.__sub__)

    def at_least(self, other: Amounts) -> Amounts:
        """The larger of both, for each resource by itself."""
        return self._with(other, max)

    def of(self, resource: str) -> int:
        """One of them, by its name in RESOURCES."""
        return int(getattr(self, resource))

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {name: self.of(name) for name in RESOURCES}

    def _with(self, other: Amounts, join: Callable[[int, int], int]) -> Amounts:
        return Amounts(*(join(self.of(one.name), other.of(one.name)) for one in fields(self)))


NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class Share:
    """One resource of a host."""

    host: int
    """All there is."""
    reserve: int
    ratio: float

    @property
    def sellable(self) -> int:
        """How much can be sold."""
        return math.floor(max(0, self.host - self.reserve) * self.ratio)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What can be sold of each resource; one that is not in `shares` is not sold by."""

    shares: Mapping[str, Share]

    def free(self, sold: Amounts) -> Amounts:
        """What is left; below zero where more is sold than this host has now."""
        return Amounts(
            **{
                name: self.shares[name].sellable - sold.of(name) if name in self.shares else LIMITLESS
                for name in RESOURCES
            }
        )

    def lacking(self, wanted: Amounts, sold: Amounts) -> list[str]:
        """The resources of which there is less left than is wanted."""
        free = self.free(sold)
        return [name for name in RESOURCES if wanted.of(name) > max(0, free.of(name))]

    def shortage(self, name: str, wanted: Amounts, sold: Amounts) -> str:
        """In words, of a resource that is lacking."""
        has, taken = self.shares[name].sellable, sold.of(name)
        asked, left = shown(name, wanted.of(name)), shown(name, max(0, has - taken))
        return f"{name}: {asked} asked for, {left} left: {shown(name, taken)} of {shown(name, has)} are sold"


def shown(name: str, amount: int) -> str:
    """An amount as people write it."""
    if name == "cpu":
        return f"{amount / 1_000_000:.4g} GHz"
    if name == "bandwidth":
        return f"{format_rate(amount)}bit/s"
    if name == "iops":
        return f"{amount}/s"
    return f"{format_size(amount)}B/s" if name == "disk_bps" else format_size(amount)
