"""What a plan comes to in each controller, for v1 and v2. Pure: paths and values in, operations out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.agent.operations import Operation, write
from bulkhead.host.cgroups import DIRTY_PAGES, Layout
from bulkhead.host.facts import HostFacts, format_cpu_list
from bulkhead.limits import cpu
from bulkhead.model import Plan

DEVICES = (
    "c *:* m",  # making any node is harmless where none of them can be opened; package builds do it
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
)
"""What an instance may open (r, w) and make (m), in the words of v1's devices.allow."""
DIRTY_SECONDS = 2
"""How long it may take to write what waits in memory for a throttled disk."""
MIN_DIRTY = 4 << 20
SOCKET_SHARE = 50
"""v1 counts what waits in sockets' buffers apart from memory, or not at all: it may be a 50th of the plan's ..."""
LEAST_SOCKETS = 1 << 20
"""... or so many bytes, and a few kB for each socket that the kernel always gives. No throughput is lost: senders wait
sooner (seen with 100 connections at 2 GB/s)."""
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance's limits are written: everything but the plan."""

    layout: Layout
    facts: HostFacts
    group: str
    """The instance's cgroup below each tree: "bulkhead/<id>"."""
    cpuset: tuple[int, ...]
    device: tuple[int, int] | None
    delegated: bool = False
    """The instance is a system, which survives that one of its services runs out of memory."""

    def path(self, controller: str) -> str:
        """The instance's directory in the tree of a controller."""
        return f"{self.layout.path(controller)}/{self.group}"

    @property
    def cores(self) -> int:
        """How many cores the instance can run on."""
        return len(self.cpuset) if self.cpuset and self.layout.version("cpuset") else self.facts.cores


def memory(plan: Plan, place: Place, *, before: Plan | None = None) -> list[Operation]:
    """Memory and swap. With `before` in an order that works: v1 wants memory <= memory + swap at every moment."""
    path = place.path("memory")
    if place.layout.version("memory") == 2:
        operations = [write(f"{path}/memory.max", str(plan.memory))]
        if "memory.swap" in place.layout.abilities:
            # Without swap on the host the file may be missing (a kernel without CONFIG_SWAP): nothing to limit then.
            optional = place.facts.swap == 0
            operations.append(write(f"{path}/memory.swap.max", str(plan.swap), optional=optional))
        whole = not before and not place.delegated
        return [*operations, write(f"{path}/memory.oom.group", "1")] if whole else operations
    limit = write(f"{path}/memory.limit_in_bytes", str(plan.memory))
    most = str(max(LEAST_SOCKETS, plan.memory // SOCKET_SHARE))
    # Without it an instance of 256 MiB has had 1.7 GiB of the kernel's memory, the host's own share of it used up.
    sockets = write(f"{path}/memory.kmem.tcp.limit_in_bytes", most, optional=True)  # a kernel may be built without
    if "memory.swap" not in place.layout.abilities:
        return [limit, sockets] if before else [limit, sockets, write(f"{path}/memory.swappiness", "0")]
    both = write(f"{path}/memory.memsw.limit_in_bytes", str(plan.memory + plan.swap))
    grows = before is not None and plan.memory + plan.swap > before.memory + before.swap
    return [both, limit, sockets] if grows else [limit, both, sockets]


def cpus(plan: Plan, place: Place) -> list[Operation]:
    """The quota, the weight under contention, and the cores."""
    path, quota = place.path("cpu"), cpu.quota(plan, place.facts, cores=place.cores)
    if place.layout.version("cpu") == 2:
        limit = f"{quota[0]} {quota[1]}" if quota else f"max {cpu.PERIOD}"
        weight = min(10_000, max(1, round(plan.sold_cpus * 100)))
        operations = [write(f"{path}/cpu.max", limit), write(f"{path}/cpu.weight", str(weight))]
    else:
        operations = [
            write(f"{path}/cpu.cfs_period_us", str(quota[1] if quota else cpu.PERIOD)),
            write(f"{path}/cpu.cfs_quota_us", str(quota[0] if quota else -1)),
            write(f"{path}/cpu.shares", str(max(2, round(plan.sold_cpus * cpu.WEIGHT_PER_CORE)))),
        ]
    if place.layout.version("cpuset"):
        cores = format_cpu_list(place.cpuset or place.facts.online)
        operations.append(write(f"{place.path('cpuset')}/cpuset.cpus", cores))
    return operations


def pids(plan: Plan, place: Place) -> list[Operation]:
    """Processes and threads."""
    return [write(f"{place.path('pids')}/pids.max", str(plan.pids))]


def devices(place: Place, more: Sequence[str] = ()) -> list[Operation]:
    """Which device nodes can be opened, `more` on top of the usual. v1 alone: v2 wants a BPF program for it."""
    if place.layout.version("devices") != 1:
        return []
    path = place.path("devices")
    return [write(f"{path}/devices.deny", "a"), *(write(f"{path}/devices.allow", rule) for rule in (*DEVICES, *more))]


def disk(plan: Plan, place: Place, *, before: Plan | None = None) -> list[Operation]:
    """Operations/s and bytes/s of the instance's own block device, each way. See docs/design/0002.

    v1 writes them for the device in the root group: what the kernel writes back there on behalf of an instance counts
    as well, and nobody else uses this device. v2 counts it for the instance's own group.
    """
    limited = [plan, before] if before else [plan]
    if not any(one.iops or one.disk_bps for one in limited):
        return []
    if place.device is None:
        raise ValueError("a plan with disk limits needs the block device that they are for")
    key = f"{place.device[0]}:{place.device[1]}"
    if place.layout.version("blkio") == 0:
        words = [f"{name}={_or_max(plan.disk_bps)}" for name in ("rbps", "wbps")]
        words += [f"{name}={_or_max(plan.iops)}" for name in ("riops", "wiops")]
        return [write(f"{place.path('io')}/io.max", f"{key} {' '.join(words)}")]
    operations = []
    for kind, values in (("bps", [one.disk_bps for one in limited]), ("iops", [one.iops for one in limited])):
        if any(values):
            for way in ("read", "write"):
                file = f"{place.layout.path('blkio')}/blkio.throttle.{way}_{kind}_device"
                operations.append(write(file, f"{key} {values[0] or 0}"))
    return operations + _dirty(plan, key)


def _or_max(value: int | None) -> str:
    return "max" if value is None else str(value)


def _dirty(plan: Plan, key: str) -> list[Operation]:
    """Bound what waits in memory for the device, so that the end of an instance does not wait for minutes of writing.

    No limit itself, and kernels before 6.2 have it not: hence optional.
    """
    directory = DIRTY_PAGES / key
    rates = [rate for rate in (plan.disk_bps, plan.iops and plan.iops * _PAGE) if rate]
    if not rates:
        return free_dirty(key)
    most = max(MIN_DIRTY, DIRTY_SECONDS * min(rates))
    return [
        write(f"{directory}/strict_limit", "1", optional=True),
        write(f"{directory}/max_bytes", str(most), optional=True),
    ]


def free_dirty(key: str) -> list[Operation]:
    """Take the bound on waiting pages away again."""
    directory = DIRTY_PAGES / key
    return [
        write(f"{directory}/max_ratio", "100", optional=True),
        write(f"{directory}/strict_limit", "0", optional=True),
    ]


def free_disk(plan: Plan, place: Place) -> list[Operation]:
    """Take the device's limits in v1's root group away: they would outlive the instance.

    Optional, since the device may have gone already: whoever detaches a disk takes them away as well.
    """
    if not (plan.iops or plan.disk_bps) or place.layout.version("blkio") != 1:
        return []
    freed = disk(plan.model_copy(update={"iops": None, "disk_bps": None}), place, before=plan)
    return [replace(operation, optional=True) for operation in freed]
