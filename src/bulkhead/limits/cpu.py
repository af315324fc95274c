"""Cores and GHz as cgroups know them: a set of cores, and a quota of their time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bulkhead.host.facts import HostFacts
from bulkhead.model import Plan

PERIOD = 100_000
"""Microseconds over which a quota counts, as usual."""
LONG_PERIOD = 1_000_000
"""The longest period that the kernel takes: for plans so small that their quota would be below MIN_QUOTA."""
MIN_QUOTA = 1_000
WEIGHT_PER_CORE = 1024
"""cpu.shares of one core: under contention cores' time is divided as the plans are."""
AHEAD = 2
"""How often all instances together weigh what the host's cores do. The kernel divides the weight of a group among its
cores by what runs on each: beside a neighbour that is busy on other cores an instance is left a part of it, and has to
wait for whatever of the host's own runs on its core. A third of a contended core is still the host's."""
SLICE = 100_000
"""Nanoseconds: the turn that instances ask the scheduler for, the shortest there is. Who wakes up for a request goes
first then, and does not wait for the next tick (4 ms at 250 Hz); a longer run is not cut, nor is anyone's share."""


def share(plan: Plan, facts: HostFacts) -> float:
    """How many of this host's cores' time the plan comes to: cpus * ghz / host_ghz."""
    if plan.ghz is None or facts.ghz is None:
        return plan.cpus
    return plan.cpus * plan.ghz / facts.ghz


def quota(plan: Plan, facts: HostFacts, *, cores: int) -> tuple[int, int] | None:
    """(quota, period) in microseconds; None when the instance may use all the time of the `cores` it runs on."""
    wanted = share(plan, facts)
    if wanted >= cores:
        return None
    period = PERIOD if wanted * PERIOD >= MIN_QUOTA else LONG_PERIOD
    return max(MIN_QUOTA, round(wanted * period)), period


def choose_cpuset(plan: Plan, facts: HostFacts, in_use: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The least-used cores, as many as the plan has, rounded up; () when that is all of them.

    `in_use` are the cpusets of the instances that run; () stands for all cores there as well.
    """
    wanted = math.ceil(plan.cpus)
    if wanted >= facts.cores:
        return ()
    load = dict.fromkeys(facts.online, 0)
    for taken in in_use:
        for core in taken:
            if core in load:
                load[core] += 1
    chosen = sorted(facts.online, key=lambda core: (load[core], core))[:wanted]
    return tuple(sorted(chosen))
