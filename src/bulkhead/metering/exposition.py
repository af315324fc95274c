"""What Prometheus is told: instances with their limits and use, the host, the daemon itself.

Names follow Prometheus' conventions: base units, `_total` for what only rises. Instances are told apart by tenant and
name, and there are never more of them than was asked for, so that the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bulkhead.metering.meters import Counters

STATES = ("creating", "created", "starting", "running", "paused", "stopping", "exited", "deleting")
_LABELS = ("tenant", "name")
_INFO = ("id", "plan", "isolation", "state")


@dataclass(frozen=True, slots=True)
class Shown:
    """An instance. Bytes, cores, hertz, seconds; None: no limit, or not known."""

    id: str
    name: str
    tenant: str
    plan: str
    isolation: str
    state: str
    started: float
    restarts: int
    healthy: bool | None
    cores: float
    hertz: float | None
    memory_limit: int
    disk_limit: int
    bandwidth: int | None
    """Bytes per second, each way."""
    pids_limit: int
    memory: int | None
    disk: int | None
    counters: Counters


@dataclass(frozen=True, slots=True)
class Kept:
    """The volumes and snapshots of a tenant, in sum."""

    volumes: int = 0
    volume_bytes: int = 0
    volume_used: int = 0
    snapshots: int = 0
    snapshot_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Amount:
    """Of one resource of the host, in the unit of its name ("memory_bytes")."""

    has: float
    sellable: float
    sold: float


@dataclass(frozen=True, slots=True)
class Health:
    """The daemon's own."""

    version: str
    sampled: float
    """When the use of all instances was read (s since the epoch)."""
    took: float
    failures: int
    ledger_bytes: int


_Value = Callable[[Shown], "float | int | None"]
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("running", "Whether it runs (a paused one does).", lambda each: int(bool(each.started))),
    ("start_time_seconds", "When its run began, in seconds since the epoch.", lambda each: each.started or None),
    ("healthy", "Whether its health check passes.", lambda each: None if each.healthy is None else int(each.healthy)),
    ("restarts", "Restarts in a row by its restart policy.", lambda each: each.restarts),
    ("cpu_limit_cores", "Cores of its plan.", lambda each: each.cores),
    ("cpu_limit_hertz", "Speed of each core of its plan.", lambda each: each.hertz),
    ("memory_limit_bytes", "Memory of its plan.", lambda each: each.memory_limit),
    ("memory_used_bytes", "Memory in use, page cache included.", lambda each: each.memory),
    ("disk_limit_bytes", "Disk of its plan.", lambda each: each.disk_limit),
    ("disk_used_bytes", "What its disk takes on the host.", lambda each: each.disk),
    ("pids_limit", "Processes and threads of its plan.", lambda each: each.pids_limit),
    ("network_limit_bytes_per_second", "Bandwidth of its plan, each way.", lambda each: each.bandwidth),
)
_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("cpu_seconds", "Time of a core used in this run.", lambda each: _scaled(each.counters.cpu, 1e-9)),
    ("network_receive_bytes", "Bytes that it has received in this run.", lambda each: each.counters.received),
    ("network_transmit_bytes", "Bytes that it has sent in this run.", lambda each: each.counters.sent),
    ("disk_read_bytes", "Bytes read from its disk in this run.", lambda each: each.counters.read),
    ("disk_written_bytes", "Bytes written to its disk in this run.", lambda each: each.counters.written),
    ("disk_reads", "Operations that read from its disk in this run.", lambda each: each.counters.reads),
    ("disk_writes", "Operations that wrote to its disk in this run.", lambda each: each.counters.writes),
)


def _scaled(count: int | None, factor: float) -> float | None:
    return None if count is None else count * factor


class _Instances(Collector):
    def __init__(self, shown: Sequence[Shown], left_out: int) -> None:
        self._shown = shown
        self._left_out = left_out

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("bulkhead_instance_info", "What an instance is; always 1.", labels=(*_LABELS, *_INFO))
        for each in self._shown:
            info.add_metric([getattr(each, name) for name in (*_LABELS, *_INFO)], 1)
        yield info
        for name, text, value in _GAUGES:
            yield self._family(GaugeMetricFamily(f"bulkhead_instance_{name}", text, labels=_LABELS), value)
        for name, text, value in _COUNTERS:
            yield self._family(CounterMetricFamily(f"bulkhead_instance_{name}", text, labels=_LABELS), value)
        text = "Instances that are not told of, since there are more than metrics_instances."
        yield GaugeMetricFamily("bulkhead_metrics_instances_left_out", text, value=self._left_out)

    def _family(self, family: GaugeMetricFamily | CounterMetricFamily, value: _Value) -> Metric:
        for each in self._shown:
            found = value(each)
            if found is not None:
                family.add_metric([each.tenant, each.name], found)
        return family


_KEPT: tuple[tuple[str, str, Callable[[Kept], int]], ...] = (
    ("volumes", "Volumes that it has.", lambda each: each.volumes),
    ("volume_size_bytes", "What its volumes have room for, which is what is sold.", lambda each: each.volume_bytes),
    ("volume_used_bytes", "What its volumes take on the host.", lambda each: each.volume_used),
    ("snapshots", "Snapshots that it has.", lambda each: each.snapshots),
    ("snapshot_size_bytes", "What its snapshots take, which is what is sold.", lambda each: each.snapshot_bytes),
)


class _Tenants(Collector):
    def __init__(self, kept: Mapping[str, Kept]) -> None:
        self._kept = kept

    def collect(self) -> Iterator[Metric]:
        for name, text, value in _KEPT:
            family = GaugeMetricFamily(f"bulkhead_tenant_{name}", text, labels=("tenant",))
            for tenant, kept in sorted(self._kept.items()):
                family.add_metric([tenant], value(kept))
            yield family


class _Host(Collector):
    def __init__(self, states: Mapping[str, int], resources: Mapping[str, Amount], health: Health) -> None:
        self._states = states
        self._resources = resources
        self._health = health

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("bulkhead_instances", "Instances by state.", labels=("state",))
        for state in STATES:
            family.add_metric([state], self._states.get(state, 0))
        yield family
        for name, amount in self._resources.items():
            resource, _, unit = name.rpartition("_")
            for what, text, value in (
                ("", "What this host has.", amount.has),
                ("_sellable", "What of it can be sold.", amount.sellable),
                ("_sold", "What of it is sold.", amount.sold),
            ):
                yield GaugeMetricFamily(f"bulkhead_host_{resource}{what}_{unit}", f"{resource}: {text}", value=value)
        health = self._health
        build = GaugeMetricFamily("bulkhead_build_info", "Which Bulkhead this is; always 1.", labels=("version",))
        build.add_metric([health.version], 1)
        yield build
        for name, text, value in (
            ("metering_last_sample_timestamp_seconds", "When the use of all instances was read.", health.sampled),
            ("metering_sample_duration_seconds", "How long that took.", health.took),
            ("usage_file_bytes", "Size of the file that use is kept in.", health.ledger_bytes),
        ):
            yield GaugeMetricFamily(f"bulkhead_{name}", text, value=value)
        text = "Times that use could not be read since the daemon's start."
        yield CounterMetricFamily("bulkhead_metering_failures", text, value=health.failures)


def render(
    shown: Sequence[Shown],
    left_out: int,
    *,
    kept: Mapping[str, Kept] | None = None,
    states: Mapping[str, int] | None = None,
    resources: Mapping[str, Amount] | None = None,
    health: Health | None = None,
) -> bytes:
    """The text format. `kept` is by tenant. `states` (how many instances are in each), `resources` and `health` are for
    operators."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Instances(shown, left_out))
    registry.register(_Tenants(kept or {}))
    if health is not None:
        registry.register(_Host(states or {}, resources or {}, health))
        ProcessCollector(registry=registry)
    return generate_latest(registry)
