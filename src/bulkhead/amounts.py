"""How much of a host's resources something takes. Whole numbers, so that sums of any length stay exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

RESOURCES = ("memory", "cpu", "disk", "bandwidth", "iops", "disk_bps")
"""In the order in which they are told."""


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
