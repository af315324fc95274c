"""An estate: servers, the workloads on them, and what these have used over time.

Units: cpu in GHz (cores that were busy, times their clock: it means the same on every server), memory and disk in
bytes, network in bits per second. Arrays are float32 of (resources, steps) in the order of RESOURCES.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bulkhead.advise.levels import Workload
from bulkhead.model import Isolation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bulkhead.advise.sizing import Plan

    Series = NDArray[np.float32]

RESOURCES = ("cpu", "memory", "disk", "network")
CPU, MEMORY, DISK, NETWORK = range(4)
Data = Literal["none", "internal", "personal", "secret"]
"""What a breach would disclose: nothing, what is the firm's own, what is somebody's, what the firm lives by."""
DATA: tuple[Data, ...] = ("none", "internal", "personal", "secret")
Latency = Literal["normal", "low"]
"""low: its peak is kept for it at every hour, since it must not wait."""
DAY, WEEK = 86_400, 604_800


@dataclass(frozen=True, slots=True)
class Server:
    """One machine."""

    name: str
    cores: int
    ghz: float
    memory: int
    disk: int
    network: int
    source: str
    """Where it is told of: "estate.csv:7"."""
    idle_watts: float | None = None
    peak_watts: float | None = None
    purchase: float | None = None
    """What it cost, or its successor will. None of these three: as the prices say."""

    @property
    def capacity(self) -> tuple[float, float, float, float]:
        """In the order of RESOURCES."""
        return (self.cores * self.ghz, float(self.memory), float(self.disk), float(self.network))


@dataclass(frozen=True, slots=True)
class Load:
    """One workload: what the rules look at, where it is now, and what it has used."""

    name: str
    server: str
    """Where it runs now; "" for one that is still to come."""
    workload: Workload
    source: str
    use: Series = field(repr=False)
    """(4, steps)."""
    cpu_mean: float
    """GHz. Of the series, or where there is only a peak, as given."""
    owner: str = ""
    data: Data = "internal"
    licence_per_core: float = 0.0
    """A year."""
    latency: Latency = "normal"
    near: tuple[str, ...] = ()
    """Workloads that have to be on the same host."""
    apart: tuple[str, ...] = ()
    """Those that must not."""
    downtime: float | None = None
    """Seconds that one move may take it away. None: as long as it takes."""
    outage_hour: float | None = None
    """What an hour without it costs. None: as the prices say."""
    wall: Isolation | None = None
    """Behind which it is now; None: on a bare server."""
    hosts: frozenset[str] | None = None
    """Servers that it may go to; None: all. Where it is it may stay."""
    plan: Plan | None = None
    """Of one that is still to come: the plan that was asked for. Its use is that plan, without a margin."""
    image: str = ""
    """What a new one is to be made of."""


@dataclass(frozen=True, slots=True)
class Estate:
    """All of it, over one common time: `steps` values, `step` seconds apart, from `start`."""

    servers: tuple[Server, ...]
    loads: tuple[Load, ...]
    start: float
    step: float
    steps: int
    sources: tuple[str, ...]
    """The files."""
    hosts: frozenset[str] = frozenset()
    """Servers that are hosts of a fleet already."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know of the input: gaps that were filled, peaks without a time."""

    @property
    def seconds(self) -> float:
        """How long was measured; 0: no time was told, peaks and means alone."""
        return self.step * self.steps if self.steps > 1 else 0.0

    def by_server(self) -> dict[str, list[Load]]:
        """What runs on each server now; [] on those where nothing does."""
        found: dict[str, list[Load]] = {server.name: [] for server in self.servers}
        for load in self.loads:
            if load.server:
                found[load.server].append(load)
        return found

    def server(self, name: str) -> Server:
        """The one of this name."""
        return next(server for server in self.servers if server.name == name)
