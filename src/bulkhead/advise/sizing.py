"""How large a workload is: its plan, by its peak and a margin, and what it wants in each hour of a week.

Time is folded to slots: the 168 hours of a week where two weeks or more were measured, the 24 of a day where two days
were, else one. What a workload wants in a slot is the most that it ever used then, so peaks that never meet may share
a host's cpu and network. Memory and disk are not lent: they are the most of all slots. A workload that must not wait
keeps its peak at every hour.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulkhead.advise.estate import CPU, DAY, DISK, MEMORY, NETWORK, WEEK, Estate, Load
from bulkhead.advise.prices import Prices
from bulkhead.model import Isolation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HOUR = 3600
GRAIN = {"cpus": 0.25, "memory": 64 << 20, "disk": 1 << 30, "bandwidth": 1_000_000}
"""Plans are rounded up to these."""


@dataclass(frozen=True, slots=True)
class Slots:
    """How time is folded: `of` each step its slot."""

    name: str
    count: int
    of: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What it is to be given, each a hard limit."""

    cpus: float
    ghz: float
    memory: int
    disk: int
    bandwidth: int

    def __str__(self) -> str:
        from bulkhead.quantities import format_rate, format_size

        sizes = f"{format_size(self.memory)}, {format_size(self.disk)}, {format_rate(self.bandwidth)}bit/s"
        return f"{self.cpus:g} x {self.ghz:g} GHz, {sizes}"


@dataclass(frozen=True, slots=True)
class Sized:
    """One workload's size. cpu figures in GHz."""

    plan: Plan
    mean: float
    p95: float
    p99: float
    peak: float
    seasonal: float
    """The part of cpu's ups and downs that the hour tells (0 to 1)."""
    wants: Floats = field(repr=False)
    """(4, slots): what a host keeps for it, without its wall's own."""


def slots(estate: Estate) -> Slots:
    """How this estate's time is folded."""
    import numpy as np

    times = estate.start + estate.step * np.arange(estate.steps)
    hours = (times // HOUR).astype(np.int64)
    if estate.seconds >= 2 * WEEK and estate.step <= HOUR:
        # 1 January 1970 was a Thursday: slot 0 is the hour after Monday's midnight, UTC.
        return Slots("hour of the week", 168, (hours + 72) % 168)
    if estate.seconds >= 2 * DAY and estate.step <= HOUR:
        return Slots("hour of the day", 24, hours % 24)
    return Slots("all time", 1, np.zeros(estate.steps, dtype=np.int64))


def sizes(estate: Estate, folded: Slots, prices: Prices) -> dict[str, Sized]:
    """Of every workload, by cores of the slowest server."""
    ghz = min(server.ghz for server in estate.servers)
    servers = {server.name: server for server in estate.servers}
    return {
        load.name: size(load, servers[load.server].capacity if load.server else None, ghz, folded, prices)
        for load in estate.loads
    }


def size(load: Load, capacity: tuple[float, ...] | None, ghz: float, folded: Slots, prices: Prices) -> Sized:
    """Its size. `capacity`: of the server where it ran, which it cannot have wanted more than. `ghz`: of the plan's
    cores."""
    import numpy as np

    # A plan that was asked for is a hard limit: nothing is used beyond it.
    margin = 1.0 if load.plan else 1 + prices.of("margin")
    use = load.use.astype(np.float64)
    wants = np.zeros((4, folded.count))
    for row in range(4):
        np.maximum.at(wants[row], folded.of, use[row])
    wants[MEMORY] = wants[MEMORY].max()
    wants[DISK] = wants[DISK].max()
    if load.latency == "low":
        wants[:] = wants.max(axis=1, keepdims=True)
    wants *= margin
    if capacity is not None:
        wants = np.minimum(wants, np.array(capacity)[:, None])
    most = wants.max(axis=1)
    plan = load.plan or Plan(
        max(_up(most[CPU] / ghz, GRAIN["cpus"]), GRAIN["cpus"]),
        ghz,
        int(max(_up(most[MEMORY], GRAIN["memory"]), GRAIN["memory"])),
        int(max(_up(most[DISK], GRAIN["disk"]), GRAIN["disk"])),
        int(max(_up(most[NETWORK], GRAIN["bandwidth"]), GRAIN["bandwidth"])),
    )
    cpu = use[CPU]
    p95, p99 = np.percentile(cpu, (95, 99))
    return Sized(plan, load.cpu_mean, float(p95), float(p99), float(cpu.max()), _seasonal(cpu, folded), wants)


def _up(value: float, grain: float) -> float:
    return float(-(-value // grain) * grain)


def _seasonal(cpu: Floats, folded: Slots) -> float:
    import numpy as np

    whole = float(cpu.var())
    if folded.count == 1 or whole == 0:
        return 0.0
    count = np.bincount(folded.of, minlength=folded.count)
    means = np.bincount(folded.of, cpu, folded.count) / np.maximum(count, 1)
    return max(0.0, 1 - float(((cpu - means[folded.of]) ** 2).mean()) / whole)


def with_wall(sized: Sized, level: Isolation, prices: Prices) -> Floats:
    """(4, slots): what a host keeps for it behind a wall, the wall's own included."""
    if level not in (Isolation.VM, Isolation.UNIKERNEL):
        return sized.wants
    made = sized.wants.copy()
    made[CPU] *= 1 + prices.of("vm_cpu")
    made[MEMORY] += prices.of("vm_memory") * (1 << 20)
    return made
