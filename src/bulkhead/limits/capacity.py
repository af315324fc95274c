"""What a host can sell, and what is left of it. Pure: facts, configuration and what is sold go in.

Of each resource what the reserve leaves is sold, as often as the overcommit ratio says. What an instance takes it takes
from its creation to its removal, whether it runs or not: whatever exists can always be started.
"""

from __future__ import annotations

from bulkhead.amounts import RESOURCES, Amounts, Capacity, Share
from bulkhead.config import Config
from bulkhead.errors import Problem
from bulkhead.host.facts import HostFacts
from bulkhead.limits.check import MACHINES
from bulkhead.limits.machine import OVERHEAD
from bulkhead.model import Isolation, Plan, Spec

LEAST_RESERVE, MOST_RESERVE = 512 << 20, 4 << 30
"""Bytes of memory that are kept for the host where nobody says how many: 1/16 of it within these bounds. The daemon
takes some 100 MB, warm guests up to `warm_memory`; the rest is the host's kernel and its services."""
MEMORY_PART, CPU_PART, DISK_PART = 1 / 16, 0.05, 0.05
UNKNOWN_GHZ = 1.0
"""Where nothing tells the speed of a core, a core is sold as one of this speed: no plan can ask for GHz there."""
FLAGS = {
    "memory": "--memory",
    "cpu": "--cpus (or --baseline)",
    "disk": "--disk",
    "bandwidth": "--bandwidth",
    "iops": "--iops",
    "disk_bps": "--disk-bps",
}
SETTINGS = {"disk_bps": "overcommit_iops"}
"""Settings whose names are not those of their resources."""


def capacity(facts: HostFacts, config: Config, *, disk: int) -> Capacity:
    """The capacity of a host whose file system under state_dir has `disk` bytes."""
    khz = core_khz(facts)
    cpus = CPU_PART * facts.cores if config.reserve_cpus is None else config.reserve_cpus
    usual = min(MOST_RESERVE, max(LEAST_RESERVE, int(facts.memory * MEMORY_PART)))
    memory = usual if config.reserve_memory is None else config.reserve_memory
    kept = int(disk * DISK_PART) if config.reserve_disk is None else config.reserve_disk
    shares = {
        "memory": Share(facts.memory, memory, config.overcommit_memory),
        "cpu": Share(facts.cores * khz, round(cpus * khz), config.overcommit_cpu),
        "disk": Share(disk, kept, config.overcommit_disk),
    }
    for name, has, ratio in (
        ("bandwidth", config.host_bandwidth, config.overcommit_bandwidth),
        ("iops", config.host_iops, config.overcommit_iops),
        ("disk_bps", config.host_disk_bps, config.overcommit_iops),
    ):
        if has is not None:
            shares[name] = Share(has, 0, ratio)
    return Capacity(shares)


def core_khz(facts: HostFacts) -> int:
    """The speed of a core as it is sold."""
    return round((facts.ghz or UNKNOWN_GHZ) * 1_000_000)


def weigh(spec: Spec, facts: HostFacts, *, accelerator: str) -> Amounts:
    """What an instance takes of its host. `accelerator`: of its virtual machines.

    One within a virtual machine takes of that machine's memory, cores and bandwidth; its disk is a file of the host's.
    """
    plan = spec.plan
    disk = 0 if spec.only_for else plan.disk
    if spec.inside:
        return Amounts(disk=disk, iops=plan.iops or 0, disk_bps=plan.disk_bps or 0)
    return plan_amounts(plan, facts, isolation=spec.isolation, accelerator=accelerator, disk=disk)


def plan_amounts(
    plan: Plan, facts: HostFacts, *, isolation: Isolation, accelerator: str, disk: int | None = None
) -> Amounts:
    """What an instance of a plan takes of its host; a machine also what its hypervisor may use beyond the guest."""
    ghz = plan.ghz or facts.ghz or UNKNOWN_GHZ
    return Amounts(
        memory=plan.memory + (OVERHEAD[accelerator] if isolation in MACHINES else 0),
        cpu=round(plan.sold_cpus * ghz * 1_000_000),
        disk=plan.disk if disk is None else disk,
        bandwidth=plan.bandwidth or 0,
        iops=plan.iops or 0,
        disk_bps=plan.disk_bps or 0,
    )


def room_problems(wanted: Amounts, capacity: Capacity, sold: Amounts) -> list[Problem]:
    """Why so much more cannot be sold: each resource of which not enough is left."""
    return [_problem(name, capacity.shortage(name, wanted, sold)) for name in capacity.lacking(wanted, sold)]


def _problem(name: str, what: str) -> Problem:
    setting = SETTINGS.get(name, f"overcommit_{name}")
    hint = f"less {FLAGS[name]}, bulkhead rm what nobody needs (ps -a), or a greater {setting}; see bulkhead host info"
    return Problem(what, hint)


def how_many(one: Amounts, free: Amounts) -> tuple[int, str]:
    """How many more of `one` fit into what is free, and the resource that ends it; "" where nothing does."""
    fits = {name: max(0, free.of(name)) // one.of(name) for name in RESOURCES if one.of(name) > 0}
    if not fits:
        return 0, ""
    ends = min(fits, key=lambda name: fits[name])
    return fits[ends], ends
