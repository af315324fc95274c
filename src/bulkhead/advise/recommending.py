"""The wall for each workload: by the rules of `levels.py`, the same as for `run --isolation auto`, told what prices
know.

Rule 5 asks whether a kernel of its own is worth it. Here that is a sum: what a break through a container's wall would
cost the neighbours in a year, less what it would through a machine's, against the machine's memory, cpu and care.
Nothing else is weighed: a level that the rules do not allow is never recommended, however cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.advise import risk
from bulkhead.advise.estate import Load, Server
from bulkhead.advise.levels import Rule, choose
from bulkhead.advise.prices import Prices
from bulkhead.advise.sizing import Sized, with_wall
from bulkhead.model import Isolation

WALLS = (Isolation.CHROOT, Isolation.CONTAINER, Isolation.VM)
"""From the cheapest to the strongest. Unikernels are made for it, so nobody's server becomes one by itself."""


@dataclass(frozen=True, slots=True)
class Option:
    """One wall for one workload, in a year."""

    level: Isolation
    allowed: bool
    """By the rules: none that is weaker than what they choose."""
    cost: float
    """What it takes of a host beyond the workload's own, and care."""
    loss: float
    """Expected, of the neighbours' data."""

    @property
    def total(self) -> float:
        """Both."""
        return self.cost + self.loss


@dataclass(frozen=True, slots=True)
class Recommended:
    """The wall for a workload, and why."""

    level: Isolation
    rule: Rule
    options: tuple[Option, ...]
    """All walls, in the order of WALLS."""
    next_best: Option | None
    """The cheapest other wall that the rules allow; None: only a server of its own is stronger."""

    @property
    def reason(self) -> str:
        """In words."""
        return f"{self.rule.because} (rule {self.rule.number}: {self.rule.when})"


@dataclass(frozen=True, slots=True)
class Beside:
    """What an average workload of an estate stands beside."""

    neighbours: float
    """How many."""
    breach: float
    """What the disclosure of one's data costs."""
    host_year: float
    """What a host costs in a year, and the capacity that it is shared by."""
    capacity: tuple[float, float, float, float]


def beside(
    loads: Sequence[Load], wants: Sequence[Sized], hosts: Sequence[Server], host_year: float, prices: Prices
) -> Beside:
    """By the mean of what there is: as many on a host as would fit if demand were a fluid."""
    usual = sorted(hosts, key=lambda host: host.capacity)[len(hosts) // 2]
    capacity = usual.capacity
    shares = [max(float(sized.wants[row].max()) / capacity[row] for row in range(4)) for sized in wants]
    least = max(1.0, sum(shares))
    per_host = max(0.0, len(loads) / least - 1)
    mean = sum(risk.breach(load, prices) for load in loads) / max(1, len(loads))
    return Beside(per_host, mean, host_year, capacity)


def recommend(load: Load, sized: Sized, around: Beside, prices: Prices) -> Recommended:
    """The wall that the rules choose, knowing what prices tell."""
    options = {level: _option(load, sized, level, around, prices) for level in WALLS}
    container, machine = options[Isolation.CONTAINER], options[Isolation.VM]
    worth = machine.total < container.total
    rule = choose(replace(load.workload, worth_a_kernel=worth))
    least = WALLS.index(choose(load.workload).level)
    told = tuple(replace(options[level], allowed=at >= least) for at, level in enumerate(WALLS))
    others = [option for option in told if option.allowed and option.level is not rule.level]
    # A unikernel has a machine's wall already.
    level = load.wall if load.wall is Isolation.UNIKERNEL and rule.level is Isolation.VM else rule.level
    return Recommended(level, rule, told, min(others, key=lambda option: option.total, default=None))


def _option(load: Load, sized: Sized, level: Isolation, around: Beside, prices: Prices) -> Option:
    more = with_wall(sized, level, prices).max(axis=1) - sized.wants.max(axis=1)
    share = max(float(more[row]) / around.capacity[row] for row in range(4))
    care = prices.of_level("care", level) * prices.of("staff")
    lost = risk.taken(load.workload, prices) * risk.escape(level, prices) * around.neighbours * around.breach
    return Option(level, False, share * around.host_year + care, lost)
