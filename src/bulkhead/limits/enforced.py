"""What holds of a plan, and what holds it, in words: for `inspect` and for the table of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.host.cgroups import Layout
from bulkhead.host.facts import HostFacts
from bulkhead.limits import cpu
from bulkhead.limits.check import MACHINES
from bulkhead.model import Isolation, Plan
from bulkhead.quantities import format_rate, format_size


@dataclass(frozen=True, slots=True)
class Enforced:
    """One limit: the plan's field, its value and the mechanism, in words."""

    field: str
    value: str
    mechanism: str


def enforced(
    plan: Plan,
    *,
    facts: HostFacts,
    layout: Layout,
    isolation: Isolation,
    network: str = "default",
    cpuset: tuple[int, ...] = (),
    throttled: bool = False,
) -> list[Enforced]:
    """A row for each field of the plan that is set. What is not limited has none.

    `throttled`: its disk is limited by a hypervisor, which that of a machine is anyway.
    """
    machine = isolation in MACHINES
    memory = f"{_cgroup(layout, 'memory')}; beyond it the kernel ends processes"
    if machine:
        memory = f"the machine has no more; {_cgroup(layout, 'memory')} for it and its hypervisor's overhead"
    rows = [
        Enforced("memory", format_size(plan.memory), memory),
        _swap(plan, layout),
        _cpus(plan, facts, layout, cpuset),
        *([] if isolation is Isolation.UNIKERNEL else [_pids(plan, layout, machine=machine)]),
        Enforced("disk", format_size(plan.disk), "a file system of its own of exactly this size"),
    ]
    if plan.baseline is not None:
        weight = f"{_cgroup(layout, 'cpu')}: its weight when more is wanted than there is"
        rows.append(Enforced("baseline", f"{plan.sold_cpus:g}", weight))
    on_device = layout.version("blkio") == 1
    device = f"{_cgroup(layout, 'blkio' if on_device else 'io')} on the disk's own block device"
    # v2 limits a group, v1 the device: what the journal's kernel thread writes is no instance's on v2.
    journal = "" if on_device else "; its journal's writes come on top, two for each fsync"
    if machine or throttled:
        device, journal = "throttled by the hypervisor, all of its disks together", ""
    if plan.iops is not None:
        rows.append(Enforced("iops", f"{plan.iops}/s each way", f"{device}{journal}"))
    if plan.disk_bps is not None:
        rows.append(Enforced("disk_bps", f"{format_size(plan.disk_bps)}B/s each way", device))
    if plan.bandwidth is not None:
        mechanism = "no network" if network == "none" else "traffic shaping at both ends of its link"
        rows.append(Enforced("bandwidth", f"{format_rate(plan.bandwidth)}bit/s each way", mechanism))
    if layout.version("devices") == 1 and isolation in (Isolation.CHROOT, Isolation.CONTAINER):
        usual = "null zero full random urandom tty console ptmx pts"
        rows.append(Enforced("devices", usual, _cgroup(layout, "devices")))
    return rows


def _pids(plan: Plan, layout: Layout, *, machine: bool) -> Enforced:
    """A unikernel has none: its one program is the whole guest."""
    return Enforced("pids", str(plan.pids), "cgroup v2 pids in the guest" if machine else _cgroup(layout, "pids"))


def _cgroup(layout: Layout, controller: str) -> str:
    return f"cgroup v{layout.version(controller)} {controller}"


def _swap(plan: Plan, layout: Layout) -> Enforced:
    if "memory.swap" in layout.abilities:
        return Enforced("swap", format_size(plan.swap), _cgroup(layout, "memory"))
    return Enforced("swap", "0", f"{_cgroup(layout, 'memory')}: told never to swap; swap is not accounted here")


def _cpus(plan: Plan, facts: HostFacts, layout: Layout, cpuset: tuple[int, ...]) -> Enforced:
    value = f"{plan.cpus:g}" + (f" x {plan.ghz:g} GHz" if plan.ghz is not None else "")
    cores = len(cpuset) if cpuset and layout.version("cpuset") else facts.cores
    quota = cpu.quota(plan, facts, cores=cores)
    words = []
    if quota:
        words.append(f"{_cgroup(layout, 'cpu')}: {quota[0] / quota[1]:.3g} cores' time of {facts.cores}")
        if plan.ghz is not None and facts.ghz is not None:
            words[-1] += f" at {facts.ghz:g} GHz"
    if cpuset and layout.version("cpuset"):
        words.append(f"{_cgroup(layout, 'cpuset')}: cores {','.join(map(str, cpuset))}")
    return Enforced("cpus", value, "; ".join(words) or f"the host has no more than its {facts.cores} cores")
