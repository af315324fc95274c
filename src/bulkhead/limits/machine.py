"""The plan of a VM, twice: what holds its hypervisor on the host, and what holds the workload in the guest."""

from __future__ import annotations

import math
from pathlib import Path

from bulkhead.agent.operations import Operation
from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts
from bulkhead.limits.program import V2_CONTROLLERS, LimitProgram, program, update
from bulkhead.model import Plan

OVERHEAD = {"kvm": 96 << 20, "tcg": 176 << 20}
"""Bytes that a hypervisor may use beyond the guest's memory: its own, the devices' and, with TCG, 64 MiB of
translated code with what describes it. The host's page cache of the instance's files counts as well."""
THREADS = 96
"""Threads of a hypervisor beside its processors: it does disk I/O in up to 64."""
_GUEST_CGROUP = "bulkhead"
_GUEST_INSTANCE = "instance"
"""The same in every guest, which has one: a guest whose memory was saved goes on as another instance, too."""
GUEST_ROOT = 0
"""A guest has no user namespace: the owner of what is delegated there is its root."""
_GUEST_LAYOUT = Layout(
    "v2", {}, Path("/sys/fs/cgroup"), frozenset(V2_CONTROLLERS), frozenset({"memory.peak", "cpu.quota", "io.max"})
)


def vmm_plan(plan: Plan, accelerator: str) -> Plan:
    """What the hypervisor's cgroup is to hold it to. Disk limits are the hypervisor's own: it throttles."""
    changed = {
        "memory": plan.memory + OVERHEAD[accelerator],
        "pids": math.ceil(plan.cpus) + THREADS,
        "iops": None,
        "disk_bps": None,
    }
    return plan.model_copy(update=changed)


def guest_program(plan: Plan, *, system: bool = False) -> LimitProgram:
    """The limits within the guest: processes and threads. Memory and processors are the guest's own.

    The cgroup has no quota: the host holds all of the guest to the plan's share of its cores. A system gets a cgroup
    to manage.
    """
    return program(
        _guest_plan(plan),
        cgroup=_GUEST_CGROUP,
        instance_id=_GUEST_INSTANCE,
        layout=_GUEST_LAYOUT,
        facts=_guest_facts(plan),
        cpuset=(),
        device=None,
        delegate=GUEST_ROOT if system else None,
    )


def guest_update(old: Plan, new: Plan) -> list[Operation]:
    """What turns the limits within a running guest from those of `old` into those of `new`."""
    return update(
        _guest_plan(old),
        _guest_plan(new),
        cgroup=_GUEST_CGROUP,
        instance_id=_GUEST_INSTANCE,
        layout=_GUEST_LAYOUT,
        facts=_guest_facts(new),
        cpuset=(),
        device=None,
    )


def _guest_plan(plan: Plan) -> Plan:
    cores = float(math.ceil(plan.cpus))
    return plan.model_copy(update={"cpus": cores, "ghz": None, "swap": 0, "iops": None, "disk_bps": None})


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
