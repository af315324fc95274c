"""The expected loss of a year, as a model that fits a page.

A workload is taken over with the probability `taken`, by whose program it is and whether it hears strangers. Then its
own data is lost, whatever wall there is. With the probability `escape` of its wall whoever has it reaches the other
workloads of the host, and their data is lost as well. A failure of the hardware takes everything on a host away until
it is repaired.

    own       = sum of taken(w) * breach(w)
    neighbour = sum of taken(w) * escape(level of w) * sum of breach(others on the host)
    outage    = sum of failures * repair * outage_hour(w)

Probabilities are small, so they are added up; that several break at once in a year is left out. On a server of its
own a workload has no neighbours. The network between hosts is not part of it: it is the same before and after.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bulkhead.advise.estate import Load
from bulkhead.advise.levels import Workload
from bulkhead.advise.prices import Prices
from bulkhead.model import Isolation


@dataclass(frozen=True, slots=True)
class Loss:
    """Expected, in a year."""

    own: float = 0.0
    neighbour: float = 0.0
    outage: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.own + self.neighbour + self.outage

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.own + other.own, self.neighbour + other.neighbour, self.outage + other.outage)


def taken(workload: Workload, prices: Prices) -> float:
    """How likely it is that somebody else commands it within a year."""
    base = prices.of(f"taken_{workload.trust}")
    return min(1.0, base + (prices.of("taken_by_input") if workload.hostile_input else 0.0))


def escape(level: Isolation, prices: Prices) -> float:
    """How likely it is that who commands it gets through its wall."""
    return prices.of_level("escape", level)


def breach(load: Load, prices: Prices) -> float:
    """What the disclosure of its data costs."""
    return prices.of(f"breach_{load.data}")


def outage_hour(load: Load, prices: Prices) -> float:
    """What an hour without it costs."""
    return prices.of("outage_hour") if load.outage_hour is None else load.outage_hour


def of_host(loads: Iterable[tuple[Load, Isolation | None]], prices: Prices) -> Loss:
    """Of what runs on one host; a level of None: on the bare server, beside whatever else is there (as before)."""
    held = list(loads)
    everything = sum(breach(load, prices) for load, _ in held)
    down = prices.of("failures") * prices.of("repair")
    total = Loss()
    for load, level in held:
        likely, mine = taken(load.workload, prices), breach(load, prices)
        # Beside one another on one system there is no more between them than a chroot is.
        through = prices.of("escape_chroot") if level is None else escape(level, prices)
        total += Loss(likely * mine, likely * through * (everything - mine), down * outage_hour(load, prices))
    return total
