"""What the kernel has counted of instances, read on this host: while they run, and when they have ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bulkhead import limits
from bulkhead.engine import bundles, machines
from bulkhead.engine.context import Context
from bulkhead.host import facts
from bulkhead.isolation import supervised
from bulkhead.isolation.base import Bundle, Handle
from bulkhead.metering.meters import Counters, Position, Reading, Sold
from bulkhead.model import Instance, Spec, State

NOTHING = Counters()
Links = Mapping[str, tuple[int, int]]
"""Bytes received and sent by what is behind each link."""
_ALIVE = (State.RUNNING, State.PAUSED, State.STOPPING)


@dataclass(frozen=True, slots=True)
class Clock:
    """One moment by both clocks, in milliseconds."""

    at: int
    """Since the host's boot, time asleep included."""
    wall: int
    """Since the epoch."""

    @classmethod
    def now(cls) -> Clock:
        """This one."""
        return cls(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, time.time_ns() // 1_000_000)


def run_of(handle: Handle) -> str:
    """Which run a handle is of: no two supervisors of a boot have pid and start time in common."""
    return f"{handle.supervisor_pid}.{handle.supervisor_started}"


def sold(context: Context, spec: Spec) -> Sold:
    """What an instance's plan sells."""
    plan = spec.plan
    ghz = plan.ghz or context.facts.ghz or 0.0
    return Sold(plan.memory, 0 if spec.only_for else plan.disk, round(plan.cpus * ghz * 1e6))


def at_start(context: Context, bundle: Bundle) -> Counters:
    """What has been counted before an instance's run: of a guest that waited for it, of a link that was there."""
    warm = bundle.boot.warm if bundle.boot else None
    counted = limits.read_counted(context.layout, context.config.cgroup, bundle.spec.id)
    link = bundles.read_link(bundle.directory)
    passed = context.networks.counted_of(link) if link else None
    return _counters(context, bundle.spec, counted, passed, pid=warm.pid if warm else 0)


def at_rest(context: Context, instance: Instance) -> Reading:
    """The disk alone. The time is that before anything is read."""
    spec, clock = instance.spec, Clock.now()
    return Reading(
        boot=facts.boot_id(),
        at=clock.at,
        wall=clock.wall,
        sold=sold(context, spec),
        disk=_disk(spec, context.bundle_dir(instance)),
        existed=int(spec.created * 1000),
    )


def of_run(reading: Reading, run: str, counters: Counters) -> Reading:
    """The same with what has been counted for a run."""
    return replace(reading, run=run, counters=counters)


def at_work(context: Context, instance: Instance, links: Links | None = None) -> Reading:
    """What an instance uses and has used; of one that does not run its disk alone. `links`: of all, read before."""
    reading = at_rest(context, instance)
    spec, directory = instance.spec, context.bundle_dir(instance)
    handle = bundles.read_handle(directory) if instance.state in _ALIVE else None
    if handle is None:
        return reading
    counted = limits.read_counted(context.layout, context.config.cgroup, spec.id)
    link = bundles.read_link(directory)
    passed = None
    if link:
        passed = context.networks.counted_of(link) if links is None else links.get(link)
    age = max(0, reading.wall - int(instance.started * 1000)) if instance.started else 0
    return replace(
        of_run(reading, run_of(handle), _counters(context, spec, counted, passed, pid=handle.pid)),
        began=reading.at - age,
        memory=counted.memory,
    )


def at_end(context: Context, instance: Instance, before: Position | None) -> Reading | None:
    """The last of a run: what its supervisor has seen last, else what is still there. None where nothing has run.

    What an instance has written is on its disk by then.
    """
    spec, directory, clock, boot = instance.spec, context.bundle_dir(instance), Clock.now(), facts.boot_id()
    handle = bundles.read_handle(directory)
    if handle is None:
        return None
    told = supervised.read_exit_file(directory)
    final = limits.interpret_final(told.reports) if told else limits.Final()
    ended = clock.at
    if told:
        ended = clock.at - max(0, clock.wall - int(told.ended * 1000))
    if final.ended is not None and (before is None or before.boot == boot):
        ended = round(final.ended * 1000)
    elif told is None and before is not None and before.boot != boot:
        ended = 0  # it went down with the host, nobody knows when: what was seen is what counts
    counted, passed = final.counted, None
    if counted.cpu is None:
        counted = limits.read_counted(context.layout, context.config.cgroup, spec.id)
    if final.received is not None and final.sent is not None:
        passed = (final.received, final.sent)
    elif link := bundles.read_link(directory):
        passed = context.networks.counted_of(link)
    return Reading(
        boot=boot,
        at=clock.at,
        wall=clock.wall,
        sold=sold(context, spec),
        run=run_of(handle),
        ended=ended,
        began=ended - max(0, int((told.ended - told.started) * 1000)) if told else None,
        counters=_counters(context, spec, counted, passed, pid=0),
        disk=_disk(spec, directory),
        peak=final.counted.memory,
        existed=int(spec.created * 1000),
    )


def _counters(
    context: Context, spec: Spec, counted: limits.Counted, passed: tuple[int, int] | None, *, pid: int
) -> Counters:
    received, sent = passed or (None, None)
    read, written, reads, writes = counted.read, counted.written, counted.reads, counted.writes
    if not machines.is_machine(spec):
        moved = context.disks.counted(spec.id)
        read, written, reads, writes = (
            (moved.read, moved.written, moved.reads, moved.writes) if moved else (None, None, None, None)
        )
    elif read is None and pid:
        read, written = machines.transferred_by(pid) or (None, None)
    return Counters(
        cpu=counted.cpu, received=received, sent=sent, read=read, written=written, reads=reads, writes=writes
    )


def _disk(spec: Spec, directory: Path) -> int | None:
    """Bytes that its disk takes on this host."""
    if spec.only_for:
        return 0
    try:
        return (directory / bundles.DISK).stat().st_blocks * 512
    except OSError:
        return None
