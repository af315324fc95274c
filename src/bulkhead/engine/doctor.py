"""What this host can and cannot do: levels, limits, kernel features, programs; each found by trying."""

from __future__ import annotations

from collections.abc import Iterator

from bulkhead import limits
from bulkhead.engine.context import Context
from bulkhead.engine.plans import default_plan
from bulkhead.host import cgroups, ksm, processes
from bulkhead.host.facts import most_files
from bulkhead.isolation.base import Ability
from bulkhead.model import Isolation, Plan

PROGRAMS = {
    "dnsmasq": ("dnsmasq-base", "names between instances of a network"),
    "lxcfs": ("lxcfs", "the plan's memory and processors in /proc"),
    "mkfs.ext4": ("e2fsprogs", "disks and volumes"),
    "mkfs.erofs": ("erofs-utils", "the jail of virtual machines"),
    "mmdebstrap": ("mmdebstrap", "image bootstrap"),
    "nft": ("nftables", "published ports, walls between networks"),
    "qemu-system-x86_64": ("qemu-system-x86", "virtual machines"),
    "resize2fs": ("e2fsprogs", "growing disks"),
}
"""What each is for, with the package that brings it."""
FILE_BYTES = 256
"""Of an instance's memory that an open file takes (struct file, seen with Linux 6.18)."""
LIMITS: dict[str, dict[str, int | float]] = {
    "memory": {},
    "swap": {"swap": 0},
    "cpus": {"cpus": 0.5},
    "ghz": {"ghz": 0.1},
    "pids": {"pids": 64},
    "disk": {},
    "iops": {"iops": 1000},
    "disk_bps": {"disk_bps": 1 << 20},
    "bandwidth": {"bandwidth": 10**8},
}
"""Fields of a plan that try each limit."""


def examine(context: Context) -> list[Ability]:
    """Every ability, the levels first."""
    return [
        *_levels(context),
        *_limits(context),
        *_memory(context),
        *_kernel(context),
        *_storage(context),
        *_network(context),
        *_programs(),
    ]


def _levels(context: Context) -> Iterator[Ability]:
    shared: list[Ability] = []
    for isolation, driver in context.drivers.items():
        probe = driver.probe()
        yield Ability(f"isolation {isolation}", probe.works, probe.reason, probe.hint)
        shared += probe.abilities
    yield from dict.fromkeys(shared)


def _limits(context: Context) -> Iterator[Ability]:
    base = default_plan(context.facts)
    for name, fields in LIMITS.items():
        plan = Plan.model_validate({**base.model_dump(), **fields})
        facts, layout, level = context.facts, context.layout, Isolation.CONTAINER
        problems = limits.check(plan, facts=facts, layout=layout, isolation=level)
        enforced = limits.enforced(plan, facts=facts, layout=layout, isolation=level)
        rows = {row.field: row.mechanism for row in enforced}
        if problems:
            yield Ability(f"limit {name}", works=False, reason=problems[0].what, hint=problems[0].hint)
        else:
            yield Ability(f"limit {name}", works=True, reason=rows.get("cpus" if name == "ghz" else name, ""))


def _kernel(context: Context) -> Iterator[Ability]:
    """Open files are held by memory alone: which works while the kernel lets there be as many as memory can hold."""
    most, needed = most_files(), context.facts.memory // FILE_BYTES
    reason = f"fs.file-max is {most}"
    hint = "" if most >= needed else f"sysctl -w fs.file-max={needed}: else instances can use up all of them together"
    yield Ability("limit open files", most >= needed, reason, hint)


def _memory(context: Context) -> Iterator[Ability]:
    """What can be done to have more of it; each is done where the configuration says so."""
    works = cgroups.can_reclaim(context.layout, context.config.cgroup)
    reason = "reclaim_idle takes idle containers' page cache" if works else "this kernel has no memory.reclaim"
    yield Ability("memory of idle containers", works, reason, "" if works else "Linux 5.19 or newer")
    works = ksm.ROOT.exists()
    reason = "merge_tenant merges equal pages of a tenant's machines" if works else "this kernel has no CONFIG_KSM"
    yield Ability("merging of equal pages", works, reason, "")


def _storage(context: Context) -> Iterator[Ability]:
    works, reason = context.disks.probe_direct_io()
    hint = "" if works else "limits hold all the same; the host caches disks twice"
    yield Ability("direct I/O of disks", works, reason, hint)
    damage = context.state.check()
    hint = f"restore {context.config.store_file} from a copy" if damage else ""
    yield Ability("state database", not damage, "; ".join(damage), hint)


def _network(context: Context) -> Iterator[Ability]:
    hurdles = context.networks.hurdles()
    for hurdle in hurdles:
        yield Ability("network", works=False, reason=hurdle.what, hint=hurdle.hint)
    if not hurdles:
        yield Ability("network", works=True, reason="the host's firewall lets instances and published ports through")
    problem = context.networks.overlays.wireguard.problem()
    hint = "apt install wireguard-go wireguard-tools: else networks of a fleet need --unencrypted" if problem else ""
    yield Ability("encryption between hosts", not problem, problem or "networks of a fleet go through WireGuard", hint)


def _programs() -> Iterator[Ability]:
    for name, (package, purpose) in PROGRAMS.items():
        found = processes.find(name)
        hint = "" if found else f"apt install {package}"
        yield Ability(f"program {name}", found is not None, f"{found or 'missing'}, for {purpose}", hint)
