"""The plan of a VM, twice: what holds its hypervisor on the host, and what holds the workload in the guest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bulkhead.agent.operations import Operation, read, write
from bulkhead.errors import Conflict
from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts
from bulkhead.limits.check import check_use
from bulkhead.limits.enforced import Enforced, enforced
from bulkhead.limits.program import V2_CONTROLLERS, LimitProgram, program, update
from bulkhead.limits.usage import parse_use
from bulkhead.model import Isolation, Plan
from bulkhead.quantities import format_size

OVERHEAD = {"kvm": 96 << 20, "tcg": 176 << 20}
"""Bytes that a hypervisor may use beyond the guest's memory: its own, the devices' and, with TCG, 64 MiB of
translated code with what describes it. The host's page cache of the instance's files counts as well."""
THREADS = 96
"""Threads of a hypervisor beside its processors: it does disk I/O in up to 64."""
GUEST_KERNEL = 56 << 20
"""Bytes of a guest's memory that Debian's kernel and the agent have taken before a workload starts, or keep for
themselves; more with more memory: see `workload_memory`. Seen with 80 MiB to 1 GiB."""
_HUGE_PAGES = 512 << 20
"""From so much memory on, Linux keeps up to 1/16 of it, but no more than 96 MiB, free to make huge pages."""
_MOST_KEPT_FREE = 96 << 20
_LEAST = 4 << 20
OWN_MEMORY = 16 << 20
"""Bytes of a guest's memory that no instance in it gets: for the VM's own workload, and a supervisor for each."""
LEAST_DISK = 16 << 20
"""Of a VM whose own disk nobody uses."""
_STEP = 2 << 20
INNER_FILES = ("memory.current", "memory.stat", "memory.peak", "memory.events", "cpu.stat", "pids.current", "io.stat")
"""Of a cgroup: what tells an instance's use, in this order."""
_USE = ("current", "stat")
_GUEST_CGROUP = "bulkhead"
_GUEST_INSTANCE = "instance"
"""The same in every guest, which has one: a guest whose memory was saved goes on as another instance, too."""
GUEST_ROOT = 0
"""A guest has no user namespace: the owner of what is delegated there is its root."""
_GUEST_LAYOUT = Layout(
    "v2", {}, Path("/sys/fs/cgroup"), frozenset(V2_CONTROLLERS), frozenset({"memory.peak", "cpu.quota", "io.max"})
)
# In every guest alike: disks are limited by the hypervisor, and the guest's kernel places what runs.
_program_in_guest = partial(program, cgroup=_GUEST_CGROUP, layout=_GUEST_LAYOUT, cpuset=(), device=None)
_update_in_guest = partial(update, cgroup=_GUEST_CGROUP, layout=_GUEST_LAYOUT, cpuset=(), device=None)


def vmm_plan(plan: Plan, accelerator: str) -> Plan:
    """What the hypervisor's cgroup is to hold it to. Disk limits are the hypervisor's own: it throttles."""
    changed = {
        "memory": plan.memory + OVERHEAD[accelerator],
        "pids": math.ceil(plan.cpus) + THREADS,
        "iops": None,
        "disk_bps": None,
    }
    return plan.model_copy(update=changed)


def workload_memory(memory: int) -> int:
    """Bytes that the workload of a guest with `memory` bytes can have.

    Where it wants more, its cgroup is out of memory at once. Were all of the guest's memory allowed, the guest's kernel
    would find out: after half a minute of dropping the pages of running programs and reading them again.
    """
    kept_free = min(memory // 16, _MOST_KEPT_FREE) if memory >= _HUGE_PAGES else 0
    return max(_LEAST, memory - GUEST_KERNEL - memory // 32 - kept_free)


def guest_program(plan: Plan, *, system: bool = False) -> LimitProgram:
    """The limits within the guest: processes, threads, and the memory that its kernel leaves to the workload.

    The processors are the guest's own. The cgroup has no quota: the host holds all of the guest to the plan's share of
    its cores. A system gets a cgroup to manage.
    """
    return _program_in_guest(
        _guest_plan(plan),
        instance_id=_GUEST_INSTANCE,
        facts=_guest_facts(plan),
        delegate=GUEST_ROOT if system else None,
    )


def guest_use() -> list[Operation]:
    """What reads the memory that the workload of a running guest uses; for `check_guest_use`."""
    return [read(f"{_GUEST_LAYOUT.unified}/{_GUEST_CGROUP}/{_GUEST_INSTANCE}/memory.{name}") for name in _USE]


def check_guest_use(old: Plan, new: Plan, reports: Sequence[str]) -> None:
    """Raise Conflict where less memory is wanted than the workload uses by these reports; see `check_use`."""
    check_use(_guest_plan(old), _guest_plan(new), parse_use(reports))


def guest_update(old: Plan, new: Plan) -> list[Operation]:
    """What turns the limits within a running guest from those of `old` into those of `new`."""
    plans = (_guest_plan(old), _guest_plan(new))
    return _update_in_guest(*plans, instance_id=_GUEST_INSTANCE, facts=_guest_facts(new))


def inner_memory(memory: int) -> int:
    """Bytes of a guest with `memory` bytes that the instances in it can have together."""
    return max(0, workload_memory(memory) - OWN_MEMORY)


def own_memory(machine: Plan, promised: int) -> list[Operation]:
    """What holds the own workload of a VM of the plan `machine` to what `promised` bytes of others leave."""
    path = f"{_GUEST_LAYOUT.unified}/{_GUEST_CGROUP}/{_GUEST_INSTANCE}/memory.max"
    return [write(path, str(_own_memory(machine, promised)))]


def check_own_use(machine: Plan, promised: int, reports: Sequence[str], *, name: str) -> None:
    """Raise Conflict where that workload uses more, as `guest_use` has read: the kernel would end it."""
    used, most = parse_use(reports).memory_working, _own_memory(machine, promised)
    if used > most:
        what = f"{name} itself uses {format_size(used)} of its memory, and would be left with {format_size(most)}"
        raise Conflict(what, hint=f"give less --memory, let {name} use less, or bulkhead update {name} --memory")


def _own_memory(machine: Plan, promised: int) -> int:
    return max(_LEAST, workload_memory(machine.memory) - promised)


def machine_for(plan: Plan) -> Plan:
    """The plan of a VM that is made for one instance of `plan`: what that takes, and what the guest itself does."""
    memory = plan.memory + OWN_MEMORY + GUEST_KERNEL
    while inner_memory(memory) < plan.memory:
        memory += _STEP
    changed = {"memory": -(-memory // _STEP) * _STEP, "swap": 0, "disk": LEAST_DISK, "iops": None, "disk_bps": None}
    return plan.model_copy(update=changed)


def inner_program(plan: Plan, instance_id: str, *, machine: Plan) -> LimitProgram:
    """The limits of an instance within a VM of the plan `machine`, by the guest's cgroups.

    Its disk is throttled by the hypervisor. A share of the guest's cores is one of what the VM has of the host's.
    """
    return _program_in_guest(_inner_plan(plan), instance_id=instance_id, facts=_inner_facts(machine))


def inner_update(old: Plan, new: Plan, instance_id: str, *, machine: Plan) -> list[Operation]:
    """What turns the limits of a running one from those of `old` into those of `new`."""
    plans = (_inner_plan(old), _inner_plan(new))
    return _update_in_guest(*plans, instance_id=instance_id, facts=_inner_facts(machine))


def inner_use(instance_id: str, pid: int) -> list[Operation]:
    """What reads the use of a running one in the guest, where its first process is `pid`; for `parse_inner_use`."""
    group = f"{_GUEST_LAYOUT.unified}/{_GUEST_CGROUP}/{instance_id}"
    files = [f"{group}/{name}" for name in INNER_FILES]
    return [read(path) for path in (*files, f"/proc/{pid}/net/dev")]


def inner_enforced(plan: Plan, *, machine: Plan, isolation: Isolation, network: str) -> list[Enforced]:
    """What holds an instance within a VM of the plan `machine` to its own, in words."""
    return enforced(
        plan.model_copy(update={"swap": 0}),
        facts=_inner_facts(machine),
        layout=_GUEST_LAYOUT,
        isolation=isolation,
        network=network,
        throttled=True,
    )


def _inner_plan(plan: Plan) -> Plan:
    return plan.model_copy(update={"swap": 0, "iops": None, "disk_bps": None})


def _inner_facts(machine: Plan) -> HostFacts:
    return replace(_guest_facts(machine), ghz=machine.ghz)


def _guest_plan(plan: Plan) -> Plan:
    cores = float(math.ceil(plan.cpus))
    memory = workload_memory(plan.memory)
    changed = {"memory": memory, "cpus": cores, "ghz": None, "swap": 0, "iops": None, "disk_bps": None}
    return plan.model_copy(update=changed)


def _guest_facts(plan: Plan) -> HostFacts:
    cores = math.ceil(plan.cpus)
    return HostFacts(
        cores=cores,
        online=tuple(range(cores)),
        ghz=None,
        ghz_source="",
        memory=plan.memory,
        swap=0,
        kernel="",
    )
