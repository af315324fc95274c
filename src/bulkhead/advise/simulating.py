"""A second opinion on the result: every step of the full traces is played through, before and after, without margin
or folding.

It shares no code with what made the plan: capacities, power curves and what a wall takes are worked out here again.
Who wanted more than its plan gives, or is on a host where more was wanted than there is, got less than it wanted in
that step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.prices import Prices
from bulkhead.model import Isolation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bulkhead.advise.sizing import Plan

HOURS = 365.25 * 24


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it."""

    watts_before: float
    """Mean, of all servers, before cooling."""
    watts_after: float
    kwh_before: float
    """In a year of such days, cooling and all."""
    kwh_after: float
    short: float
    """The part of the time in which any workload got less than it wanted."""
    worst: str
    """Who was short most often, "" for nobody."""
    worst_short: float
    steps: int

    @property
    def saved(self) -> float:
        """The part of the power that is saved."""
        return 1 - self.kwh_after / self.kwh_before if self.kwh_before else 0.0


def play(
    estate: Estate,
    places: Mapping[str, str],
    bare: frozenset[str],
    *,
    levels: Mapping[str, Isolation],
    plans: Mapping[str, Plan],
    prices: Prices,
) -> Played:
    """Play the traces through. Servers that are in `places` are on afterwards, all others off."""
    import numpy as np

    before = after = 0.0
    short_any = np.zeros(estate.steps, dtype=bool)
    short: dict[str, int] = {}
    then: dict[str, list[Load]] = defaultdict(list)
    before_on: dict[str, list[Load]] = defaultdict(list)
    for load in estate.loads:
        then[places[load.name]].append(load)
        before_on[load.server].append(load)
    for server in estate.servers:
        now = before_on.get(server.name, [])
        before += _mean_watts(server, [(load, _factor(load.wall, prices)) for load in now], estate, prices)
        there = then.get(server.name, [])
        if not there:
            continue
        factors = [(load, 1.0 if load.name in bare else _factor(levels[load.name], prices)) for load in there]
        after += _mean_watts(server, factors, estate, prices)
        crowded = _crowded(server, there, bare, levels=levels, prices=prices, steps=estate.steps)
        for load in there:
            missed = crowded | (False if load.name in bare else _beyond_plan(load, plans[load.name]))
            short[load.name] = int(missed.sum())
            short_any |= missed
    worst = max(sorted(short), key=lambda name: short[name], default="")
    most = short.get(worst, 0)
    scale = HOURS / 1000 * prices.of("pue")
    return Played(
        before,
        after,
        before * scale,
        after * scale,
        float(short_any.mean()),
        worst if most else "",
        most / estate.steps,
        estate.steps,
    )


def _factor(level: Isolation | None, prices: Prices) -> float:
    return 1 + prices.of("vm_cpu") if level in (Isolation.VM, Isolation.UNIKERNEL) else 1.0


def _mean_watts(server: Server, loads: list[tuple[Load, float]], estate: Estate, prices: Prices) -> float:
    """Over all steps. Of peaks alone the mean that was told counts."""
    import numpy as np

    most = server.cores * server.ghz
    if estate.steps == 1:
        part = np.array([sum(load.cpu_mean * factor for load, factor in loads) / most])
    else:
        part = np.zeros(estate.steps)
        for load, factor in loads:
            part += load.use[0] * (factor / most)
    own = server.idle_watts is not None and server.peak_watts is not None
    idle = server.idle_watts if own else prices.of("idle_watts")
    peak = server.peak_watts if own else prices.of("peak_watts")
    assert idle is not None and peak is not None
    return float((idle + (peak - idle) * np.minimum(part, 1.0)).mean())


def _crowded(
    server: Server,
    loads: list[Load],
    bare: frozenset[str],
    *,
    levels: Mapping[str, Isolation],
    prices: Prices,
    steps: int,
) -> NDArray[np.bool_]:
    """Steps in which more was wanted than the host has."""
    import numpy as np

    total = np.zeros((4, steps))
    memory = server.memory * 1.0
    if any(load.name not in bare for load in loads):
        memory -= prices.of("host_memory") * 1048576
    for load in loads:
        total += load.use
        if load.name not in bare and levels[load.name] in (Isolation.VM, Isolation.UNIKERNEL):
            total[0] += load.use[0] * prices.of("vm_cpu")
            total[1] += prices.of("vm_memory") * 1048576
    # What was measured of a bare server may be a little above what it has: nothing changes for it.
    slack = 1.02 if all(load.name in bare for load in loads) else 1 + 1e-6
    most = np.array([server.cores * server.ghz, memory, server.disk, server.network]) * slack
    return np.asarray((total > most[:, None]).any(axis=0))


def _beyond_plan(load: Load, plan: Plan) -> NDArray[np.bool_]:
    import numpy as np

    given = np.array([plan.cpus * plan.ghz, plan.memory, plan.disk, plan.bandwidth]) * (1 + 1e-6)
    return np.asarray((load.use > given[:, None]).any(axis=0))
