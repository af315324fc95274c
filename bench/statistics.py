"""What a list of measured values comes to. Nothing here knows what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Middle and spread of `count` values, in the values' own unit. None: not known, or too few values to say."""

    count: int
    minimum: float
    median: float
    p90: float
    p99: float | None
    maximum: float | None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, interpolated between neighbours."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarize(values: Sequence[float]) -> Summary:
    """Middle and spread of at least one value."""
    return Summary(
        count=len(values),
        minimum=min(values),
        median=quantile(values, 0.5),
        p90=quantile(values, 0.9),
        p99=quantile(values, 0.99),
        maximum=max(values),
    )
