"""What this host cannot enforce of a plan, found before anything is made."""

from __future__ import annotations

from bulkhead.errors import Conflict, Problem
from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts
from bulkhead.limits import cpu
from bulkhead.limits.usage import Usage
from bulkhead.model import Isolation, Plan
from bulkhead.quantities import format_rate, format_size

MACHINES = (Isolation.VM, Isolation.UNIKERNEL)
"""Levels whose hypervisor throttles the disks."""
_ENABLE = "enable it in the host's kernel (CONFIG_{}) and mount it below /sys/fs/cgroup"


def check(
    plan: Plan, *, facts: HostFacts, layout: Layout, isolation: Isolation, network: str = "default"
) -> list[Problem]:
    """Every problem at once; empty when all of the plan holds. `network` as in the spec ("host", "none", a name)."""
    return [*_cpu(plan, facts, layout), *_memory(plan, facts, layout), *_rest(plan, layout, isolation, network)]


def check_use(old: Plan, new: Plan, usage: Usage) -> None:
    """Raise Conflict where less memory is wanted than a running instance uses: cgroup v2 would end its processes.

    v1 refuses by itself. What the kernel can drop at once does not count, nor what can go to the swap.
    """
    most = new.memory + new.swap
    if most < old.memory + old.swap and usage.memory_working > most:
        what = f"memory {format_size(most)}: the instance uses more than the new limit allows"
        raise Conflict(f"{what}, {format_size(usage.memory_working)}", hint="let it use less, or stop it first")


def _cpu(plan: Plan, facts: HostFacts, layout: Layout) -> list[Problem]:
    problems = []
    if plan.cpus > facts.cores:
        what = f"plan: cpus {plan.cpus:g} is more than the {facts.cores} cores of this host"
        problems.append(Problem(what, f"at most --cpus {facts.cores}"))
    if plan.ghz is not None and facts.ghz is None:
        what = f"plan: ghz {plan.ghz:g} cannot be enforced: nothing tells the speed of this host's cores"
        problems.append(Problem(what, "set host_ghz in the configuration"))
    elif plan.ghz is not None and facts.ghz is not None and plan.ghz > facts.ghz:
        what = f"plan: ghz {plan.ghz:g} is faster than this host's cores ({facts.ghz:g} GHz, from {facts.ghz_source})"
        problems.append(Problem(what, f"at most --ghz {facts.ghz:g}, or set host_ghz where that figure is wrong"))
    if layout.version("cpu") == 0:
        problems.append(Problem("plan: cpus cannot be enforced: no cpu cgroup", _ENABLE.format("CGROUP_SCHED")))
    elif "cpu.quota" not in layout.abilities:
        what = "plan: cpus cannot be enforced: the cpu cgroup has no quotas"
        problems.append(Problem(what, "a kernel with CONFIG_CFS_BANDWIDTH"))
    if cpu.share(plan, facts) * cpu.LONG_PERIOD < cpu.MIN_QUOTA:
        what = f"plan: cpus {plan.cpus:g} comes to less than 1 ms of a core in a second: the kernel cannot count that"
        problems.append(Problem(what, "at least --cpus 0.001 of this host's cores"))
    return problems


def _memory(plan: Plan, facts: HostFacts, layout: Layout) -> list[Problem]:
    if layout.version("memory") == 0:
        return [Problem("plan: memory cannot be enforced: no memory cgroup", _ENABLE.format("MEMCG"))]
    problems = []
    if plan.memory > facts.memory:
        what = f"plan: memory {format_size(plan.memory)} is more than this host has ({format_size(facts.memory)})"
        problems.append(Problem(what, f"at most --memory {facts.memory >> 20}M"))
    if plan.swap > facts.swap:
        what = f"plan: swap {format_size(plan.swap)} is more than this host has ({format_size(facts.swap)})"
        problems.append(Problem(what, "leave it out, or give the host swap (swapon)"))
    # Without accounting v1 is told never to swap the instance out, which holds for swap 0 and for nothing else.
    never_swaps = plan.swap == 0 and layout.version("memory") == 1
    if 0 < facts.swap >= plan.swap and "memory.swap" not in layout.abilities and not never_swaps:
        what = f"plan: swap {format_size(plan.swap)} cannot be enforced: this kernel does not account swap"
        problems.append(Problem(what, "boot with swapaccount=1, or turn the host's swap off (swapoff -a)"))
    return problems


def _rest(plan: Plan, layout: Layout, isolation: Isolation, network: str) -> list[Problem]:
    problems = []
    if layout.version("pids") == 0:
        problems.append(Problem("plan: pids cannot be enforced: no pids cgroup", _ENABLE.format("CGROUP_PIDS")))
    for name, value in (("iops", plan.iops), ("disk_bps", plan.disk_bps)):
        if isolation not in MACHINES and value is not None and not layout.abilities & {"blkio.throttle", "io.max"}:
            what = f"plan: {name} {value} cannot be enforced: no blkio or io cgroup that throttles"
            problems.append(Problem(what, _ENABLE.format("BLK_DEV_THROTTLING")))
    # What a level has no network of its own for, its driver says.
    if plan.bandwidth is not None and network in ("host", "none") and isolation is not Isolation.CHROOT:
        rate = format_rate(plan.bandwidth)
        what = f"plan: bandwidth {rate} cannot be enforced for a {isolation} with network {network!r}"
        problems.append(Problem(what, "leave --bandwidth out, or use a container on a network of its own"))
    return problems
