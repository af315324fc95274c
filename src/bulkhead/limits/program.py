"""A plan as operations: what the agent does before an instance starts, and after it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.agent.operations import Operation, mkdir, read, rmdir, write
from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts, format_cpu_list
from bulkhead.limits import cpu, delegation, rules
from bulkhead.limits.rules import Place
from bulkhead.model import Plan

V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer")
"""Those that every instance gets a group in, where the host has them. blkio is not among them: see `rules.disk`."""
V2_CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")


@dataclass(frozen=True, slots=True)
class LimitProgram:
    """Operations for the agent. `join` are files that a process of the instance writes `0` to, to put itself in.

    On v1 these are `tasks` files: a single thread that moves itself is moved at once, while any other write waits for
    a grace period of the whole host, 7 to 15 ms when it has been idle (Linux, cgroup_procs_write_start).
    `beside` are those of a command beside the workload. `delegated` is the v2 cgroup that the workload manages, or "".
    `kill` names every process (v1) or kills the group (v2). `reports` says what `finish` reads, in order.
    """

    prepare: tuple[Operation, ...]
    join: tuple[str, ...]
    beside: tuple[str, ...]
    delegated: str
    kill: str
    finish: tuple[Operation, ...]
    reports: tuple[str, ...]

    def counting(self, link: str) -> LimitProgram:
        """With a last look at what has passed the host's end of the instance's link."""
        statistics = f"/sys/class/net/{link}/statistics"
        looks = {"received": read(f"{statistics}/tx_bytes"), "sent": read(f"{statistics}/rx_bytes")}
        return replace(self, finish=(*looks.values(), *self.finish), reports=(*looks, *self.reports))


def program(
    plan: Plan,
    *,
    cgroup: str,
    instance_id: str,
    layout: Layout,
    facts: HostFacts,
    cpuset: tuple[int, ...],
    device: tuple[int, int] | None,
    devices: Sequence[str] = (),
    delegate: int | None = None,
) -> LimitProgram:
    """The limits of one start. `check` must have found no problem. `device` is the block device of the instance's disk.

    `devices`: what may be opened beyond the usual ones, in the words of v1's devices.allow. `delegate`: the host's uid
    that gets a v2 cgroup to manage, below the one with the limits; see `delegation`.
    """
    handed = delegate is not None
    place = Place(layout, facts, f"{cgroup}/{instance_id}", cpuset, device, delegated=handed)
    groups = _groups(layout, place.group)
    prepare = [
        *_parents(layout, facts, cgroup),
        *(mkdir(group) for group in groups),
        *rules.memory(plan, place),
        *_cpuset_memory(place),
        *rules.cpus(plan, place),
        *rules.pids(plan, place),
        *rules.devices(place, devices),
        *rules.disk(plan, place),
        *(delegation.prepare(layout, cgroup, place.group, delegate, _v2_controllers(layout)) if handed else ()),
    ]
    reported = _reads(place, machine=bool(devices))
    # What a system has made below the cgroup that was handed over is removed by whoever finds the instance ended.
    emptied = _v1_groups(layout, place.group) if handed else groups
    finish = [*reported.values(), *rules.free_disk(plan, place), *(rmdir(group) for group in reversed(emptied))]
    join = _join(layout, place.group)
    return LimitProgram(
        prepare=tuple(prepare),
        join=delegation.joins(layout, place.group, join, delegation.OWN) if handed else join,
        beside=delegation.joins(layout, place.group, join, delegation.BESIDE) if handed else join,
        delegated=delegation.directory(layout, place.group, delegation.OWN) if handed else "",
        kill=_kill(place),
        finish=tuple(finish),
        reports=tuple(reported),
    )


def update(
    old: Plan,
    new: Plan,
    *,
    cgroup: str,
    instance_id: str,
    layout: Layout,
    facts: HostFacts,
    cpuset: tuple[int, ...],
    device: tuple[int, int] | None,
) -> list[Operation]:
    """What turns the limits of a running instance from those of `old` into those of `new`; `cpuset` is the new one.

    A memory limit below what is in use fails with EBUSY on v1 (nothing is changed then); v2 ends processes, hence
    `check_use`.
    """
    place = Place(layout, facts, f"{cgroup}/{instance_id}", cpuset, device)
    return [
        *rules.memory(new, place, before=old),
        *rules.cpus(new, place),
        *rules.pids(new, place),
        *rules.disk(new, place, before=old),
    ]


def _v1_groups(layout: Layout, group: str) -> list[str]:
    """A group's directories in the v1 trees of ours; once where controllers share a tree."""
    trees = (layout.path(name) for name in V1_CONTROLLERS if layout.version(name) == 1)
    return list(dict.fromkeys(f"{tree}/{group}" for tree in trees))


def _v2_groups(layout: Layout, group: str) -> list[str]:
    """A group's directory in the v2 tree where that has a controller of ours."""
    return [f"{layout.unified}/{group}"] if _v2_controllers(layout) else []


def _v2_controllers(layout: Layout) -> list[str]:
    return [name for name in V2_CONTROLLERS if layout.version(name) == 2]


def _groups(layout: Layout, group: str) -> list[str]:
    return _v1_groups(layout, group) + _v2_groups(layout, group)


def _parents(layout: Layout, facts: HostFacts, cgroup: str) -> list[Operation]:
    """The group that all instances are in. Writing what is there already costs next to nothing."""
    operations = [mkdir(path) for path in _groups(layout, cgroup)]
    enable = " ".join(f"+{name}" for name in _v2_controllers(layout))
    if enable:
        operations += [
            write(f"{layout.unified}/cgroup.subtree_control", enable),
            write(f"{layout.unified}/{cgroup}/cgroup.subtree_control", enable),
        ]
    if layout.version("cpuset") == 1:  # v1 lets nobody in before both are written, children included
        path = f"{layout.path('cpuset')}/{cgroup}"
        operations += [
            write(f"{path}/cpuset.cpus", format_cpu_list(facts.online)),
            write(f"{path}/cpuset.mems", format_cpu_list(facts.memory_nodes)),
        ]
    # All instances together weigh by the host's cores, not as one process.
    if layout.version("cpu") == 1:
        shares = str(cpu.AHEAD * facts.cores * cpu.WEIGHT_PER_CORE)
        operations.append(write(f"{layout.path('cpu')}/{cgroup}/cpu.shares", shares))
    if layout.version("cpu") == 2:
        weight = str(min(10_000, cpu.AHEAD * facts.cores * 100))
        operations.append(write(f"{layout.path('cpu')}/{cgroup}/cpu.weight", weight))
    return operations


def _cpuset_memory(place: Place) -> list[Operation]:
    if place.layout.version("cpuset") != 1:
        return []
    return [write(f"{place.path('cpuset')}/cpuset.mems", format_cpu_list(place.facts.memory_nodes))]


def _join(layout: Layout, group: str) -> tuple[str, ...]:
    paths = [f"{path}/tasks" for path in _v1_groups(layout, group)]
    paths += [f"{path}/cgroup.procs" for path in _v2_groups(layout, group)]
    if layout.version("blkio") == 1:
        # A disk's limits are in the root group, now or after an update: a process elsewhere (the daemon's service may
        # have a group of its own) would escape them with direct I/O.
        paths.append(f"{layout.path('blkio')}/tasks")
    return tuple(paths)


def _kill(place: Place) -> str:
    if place.layout.version("pids") == 2:
        return f"{place.path('pids')}/cgroup.kill"
    return f"{place.path('pids')}/cgroup.procs"


def _reads(place: Place, *, machine: bool) -> dict[str, Operation]:
    """What is worth knowing of an instance that has ended. Each can be told from the others by its content alone.

    A machine's I/O is its hypervisor's, which the supervisor has inherited when it waited for it.
    """
    layout, found = place.layout, {}
    memory = place.path("memory")
    if layout.version("memory") == 2:
        found["oom"] = read(f"{memory}/memory.events")
        if "memory.peak" in layout.abilities:
            found["peak"] = read(f"{memory}/memory.peak")
    else:
        found["oom"] = read(f"{memory}/memory.oom_control")
        found["peak"] = read(f"{memory}/memory.max_usage_in_bytes")
    if layout.version("cpuacct") == 1:
        found["cpu"] = read(f"{place.path('cpuacct')}/cpuacct.usage_percpu")
    elif layout.version("cpu") == 2:
        found["cpu"] = read(f"{place.path('cpu')}/cpu.stat")
    if machine:
        found["io"] = read(f"{place.path('io')}/io.stat" if layout.version("io") == 2 else "/proc/self/io")
    found["when"] = read("/proc/uptime")
    return found
