"""What of this host is sold, used and free, and how many more of each plan would fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from bulkhead import limits
from bulkhead.amounts import RESOURCES
from bulkhead.engine import bundles, selling
from bulkhead.engine.context import Context
from bulkhead.host import facts
from bulkhead.limits import Capacity
from bulkhead.model import Isolation, Plan
from bulkhead.quantities import format_size

UNITS = {
    "memory": "bytes",
    "cpu": "GHz",
    "disk": "bytes",
    "bandwidth": "bits/s",
    "iops": "operations/s",
    "disk_bps": "bytes/s",
}
SHOWN = (Isolation.CONTAINER, Isolation.VM)
"""Levels that differ in what an instance takes: chroots are as containers, unikernels as virtual machines."""
SAMPLE_SECONDS = 0.1
"""How long the processors are watched."""


@dataclass(frozen=True, slots=True)
class Used:
    """What instances use now; None where it is not measured here."""

    memory: int
    cpu: float
    """GHz of cores."""
    disk: int
    """What is written, of images too."""


def report(context: Context) -> dict[str, object]:
    """The host as `bulkhead host info` tells it; amounts in the unit beside them. Takes SAMPLE_SECONDS."""
    has, sold, used = selling.capacity(context), selling.sold(context), measure(context)
    free = has.free(sold)
    rows = []
    for name in RESOURCES:
        if name not in has.shares:
            continue
        share = has.shares[name]
        rows.append(
            {
                "resource": name,
                "unit": UNITS[name],
                "host": _told(name, share.host),
                "reserve": _told(name, min(share.reserve, share.host)),
                "ratio": share.ratio,
                "sellable": _told(name, share.sellable),
                "sold": _told(name, sold.of(name)),
                "free": _told(name, free.of(name)),
                "used": getattr(used, name, None),
            }
        )
    plans = {plan.name: plan.plan for plan in context.state.plans()}
    instances = context.state.instances()
    return {
        "cores": context.facts.cores,
        "ghz": context.facts.ghz,
        "factor": context.facts.factor,
        "factor_source": context.facts.factor_source,
        "kernel": context.facts.kernel,
        "cpu_models": [name for name, missing in context.hypervisor.processors().items() if not missing],
        "instances": len(instances),
        "running": sum(instance.pid != 0 for instance in instances),
        "resources": rows,
        "plans": [{"name": name, **_fits(context, plan, has)} for name, plan in plans.items()],
        "warnings": list(_warnings(context, has, used)),
    }


def measure(context: Context) -> Used:
    """What instances use now."""
    layout, group = context.layout, context.config.cgroup
    before, began = limits.read_group(layout, group), time.monotonic()
    disk = written(context)
    time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - began)))
    after, seconds = limits.read_group(layout, group), time.monotonic() - began
    busy = max(0.0, after.cpu_seconds - before.cpu_seconds) / seconds
    return Used(memory=after.memory, cpu=round(busy * limits.core_khz(context.facts) / 1_000_000, 3), disk=disk)


def written(context: Context) -> int:
    """Bytes that disks, volumes, snapshots and images take on the file system."""
    taken = context.images.layout.space() + sum(snapshot.size for snapshot in context.state.snapshots())
    disks = [context.bundle_dir(instance) / bundles.DISK for instance in context.state.instances()]
    for file in (*disks, *context.config.volumes_dir.glob("**/*.img")):
        with suppress(FileNotFoundError):
            taken += file.stat().st_blocks * 512
    return taken


def _fits(context: Context, plan: Plan, has: Capacity) -> dict[str, object]:
    """How many more of a plan there is room for, by level."""
    free = has.free(selling.sold(context))
    found = {}
    for level in SHOWN:
        if problems := limits.check(plan, facts=context.facts, layout=context.layout, isolation=level):
            found[str(level)] = {"more": 0, "ends": "", "reason": problems[0].what}
            continue
        more, ends = limits.how_many(context.scales.weigh_plan(plan, level), free)
        found[str(level)] = {"more": more, "ends": ends, "reason": ""}
    return {"fits": found}


def _warnings(context: Context, has: Capacity, used: Used) -> Iterator[str]:
    """What an operator should know: promises that this host could not keep as it is now."""
    sold = selling.sold(context)
    for name, amount in has.free(sold).as_dict().items():
        if amount < 0:
            over = limits.shown(name, -amount)
            yield f"{name}: {over} more are sold than there is to sell: instances that start late may find no room"
    unwritten, available = max(0, sold.disk - used.disk), facts.disk_available(context.config.state_dir)
    if has.shares["disk"].ratio <= 1 and unwritten > available:
        yield (
            f"disk: {format_size(unwritten)} are sold and not written yet, the file system has {format_size(available)}"
            " left: set reserve_disk to what others keep there"
        )


def _told(name: str, amount: int) -> float:
    return round(amount / 1_000_000, 3) if name == "cpu" else amount
