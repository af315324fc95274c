"""From cumulative counters to use: what a reading adds to what was known before it.

Pure. Times are milliseconds: `at` by a clock that only goes forwards (since the host's boot), `wall` since the epoch.
All amounts are whole numbers, so that nothing is lost or doubled by rounding, however often they are added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from operator import sub
from typing import Literal, Self

KIB = 1024
Bin = tuple[int, tuple[int, ...]]
"""Where a bin begins (ms since the epoch), and what falls into it, in the order of METERS."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel has counted for a run of an instance. None: it could not be read, which adds nothing."""

    cpu: int | None = None
    """Nanoseconds of a core."""
    received: int | None = None
    sent: int | None = None
    """Bytes of its link."""
    read: int | None = None
    written: int | None = None
    """Bytes of its disk."""
    reads: int | None = None
    writes: int | None = None
    """Operations of its disk."""

    def since(self, before: Counters) -> dict[str, int]:
        """What has been added, by name. Within a run nothing counts backwards: what seems to was read earlier."""
        pairs = ((each.name, getattr(self, each.name), getattr(before, each.name)) for each in fields(self))
        return {name: max(0, new - (old or 0)) for name, new, old in pairs if new is not None}

    def over(self, before: Counters) -> Counters:
        """The furthest that each counter has been seen."""
        merged = {}
        for each in fields(self):
            known = [value for value in (getattr(self, each.name), getattr(before, each.name)) if value is not None]
            merged[each.name] = max(known, default=None)
        return Counters(**merged)


@dataclass(frozen=True, slots=True)
class Usage:
    """Use, in a bin or in sum."""

    uptime: int = 0
    """Milliseconds."""
    cpu: int = 0
    """Nanoseconds of a core."""
    cpu_sold: int = 0
    """Seconds at 1 kHz of a core: cpus times GHz times time."""
    memory_sold: int = 0
    memory_used: int = 0
    disk_sold: int = 0
    disk_used: int = 0
    """KiB for a second."""
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0
    """Bytes."""
    reads: int = 0
    writes: int = 0
    """Operations."""
    volume_sold: int = 0
    volume_used: int = 0
    snapshot_sold: int = 0
    """KiB for a second, as of the disks. A snapshot never changes: what it takes on the host is what is sold."""
    uncounted: int = 0
    """Milliseconds of the uptime of which nobody counted the operations."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in METERS))

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in METERS)

    @property
    def row(self) -> tuple[int, ...]:
        """The amounts in the order of METERS."""
        return tuple(getattr(self, name) for name in METERS)


METERS = tuple(each.name for each in fields(Usage))
Kind = Literal["instance", "volume", "snapshot", ""]
"""What is metered; "" in sums."""
_SPACE: dict[Kind, tuple[str, ...]] = {
    "instance": ("disk_sold", "disk_used"),
    "volume": ("volume_sold", "volume_used"),
    "snapshot": ("snapshot_sold",),
}
"""Where it goes what a disk sells, and what it takes, by what the disk is of."""


@dataclass(frozen=True, slots=True)
class Sold:
    """What a plan sells: bytes of memory and of disk, kHz of cores."""

    memory: int = 0
    disk: int = 0
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found at one moment."""

    boot: str
    """The host's boot: `at` and the counters begin with it."""
    at: int
    wall: int
    sold: Sold
    """From now on."""
    kind: Kind = "instance"
    run: str = ""
    """The run of the instance that this tells of; no two have the same. "": it tells of its disk alone."""
    ended: int | None = None
    """When the run ended, by the clock of `at`; None: it goes on."""
    began: int | None = None
    """When the run began by the same clock, where it is not known yet; None: now."""
    counters: Counters = Counters()
    memory: int | None = None
    disk: int | None = None
    """Bytes in use now; None: it could not be read, or there is none."""
    peak: int | None = None
    """The most memory that a run has used, for one that nobody has looked at before its end."""
    existed: int | None = None
    """Since when (ms since the epoch) its disk exists, for the first reading of an instance."""


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where an instance's use is in the bins."""

    boot: str
    at: int
    wall: int
    sold: Sold
    run: str = ""
    """The run that is under way; "" where none is."""
    over: str = ""
    """The last run that has ended: whoever looked at it meanwhile has nothing to add."""
    counters: Counters = Counters()
    memory: int | None = None
    disk: int | None = None

    @classmethod
    def begin(cls, reading: Reading) -> Self:
        """Of an instance that was never read: its disk counts since it exists, nothing runs yet."""
        age = max(0, reading.wall - reading.existed) if reading.existed is not None else 0
        return cls(boot=reading.boot, at=reading.at - age, wall=reading.wall - age, sold=reading.sold)


@dataclass(frozen=True, slots=True)
class Added:
    """Use between two moments, ms since the epoch."""

    begin: int
    end: int
    usage: Usage


Step = tuple[Position, tuple[Added, ...]]


def start(before: Position | None, reading: Reading) -> Step:
    """A run begins: its counters are counted from those of the reading on, which are of a time before it."""
    after, added = advance(before, replace(reading, run=""))
    return replace(after, run=reading.run, counters=reading.counters, memory=None, sold=reading.sold), added


def advance(before: Position | None, reading: Reading) -> Step:
    """What a reading adds. One that was overtaken by another (it is not later) adds no time, and no counter twice."""
    before = before or Position.begin(reading)
    late = before.boot == reading.boot and reading.at < before.at
    same = bool(reading.run) and reading.run == before.run
    if late and not same:
        return before, ()
    added = [_disk(before, reading)]
    tells = bool(reading.run) and reading.run != before.over
    if tells:
        added.append(_run(before, reading, same=same))
    return _after(before, reading, late=late, tells=tells, same=same), tuple(each for each in added if each.usage)


def _after(before: Position, reading: Reading, *, late: bool, tells: bool, same: bool) -> Position:
    after = before
    if not late:
        disk = before.disk if reading.disk is None else reading.disk
        after = replace(before, boot=reading.boot, at=reading.at, wall=reading.wall, sold=reading.sold, disk=disk)
    if not tells:
        return after
    if reading.ended is not None:
        return replace(after, run="", over=reading.run, counters=Counters(), memory=None)
    counters = reading.counters.over(before.counters) if same else reading.counters
    memory = reading.memory if reading.memory is not None or not same else before.memory
    return replace(after, run=reading.run, counters=counters, memory=memory)


def _elapsed(before: Position, reading: Reading, until: int) -> int:
    """From the last reading to `until`; after a reboot only the wall clock can tell."""
    if before.boot == reading.boot:
        return max(0, until - before.at)
    return max(0, reading.wall - (reading.at - until) - before.wall)


def _disk(before: Position, reading: Reading) -> Added:
    time = _elapsed(before, reading, reading.at)
    amounts = (before.sold.disk, _between(before.disk, reading.disk))
    found = {name: _over_time(amount, time) for name, amount in zip(_SPACE[reading.kind], amounts, strict=False)}
    return Added(reading.wall - time, reading.wall, Usage(**found))


def _run(before: Position, reading: Reading, *, same: bool) -> Added:
    until = reading.at if reading.ended is None else min(reading.ended, reading.at)
    if same:
        time = _elapsed(before, reading, until)
    else:
        time = max(0, until - (reading.at if reading.began is None else reading.began))
    sold = before.sold if same else reading.sold
    used = _between(before.memory if same else None, reading.memory)
    end = reading.wall - max(0, reading.at - until)
    usage = Usage(
        uptime=time,
        uncounted=time if reading.counters.reads is None else 0,
        cpu_sold=sold.cpu * time // 1000,
        memory_sold=_over_time(sold.memory, time),
        memory_used=_over_time(reading.peak if used is None else used, time),
        **reading.counters.since(before.counters if same else Counters()),
    )
    return Added(end - time, end, usage)


def _between(before: int | None, now: int | None) -> int | None:
    """The middle of two looks at something that goes up and down; with one alone that."""
    if before is None or now is None:
        return now if before is None else before
    return (before + now) // 2


def _over_time(size: int | None, milliseconds: int) -> int:
    return (size or 0) * milliseconds // (KIB * 1000)


def split(added: Added, length: int, *, since: int = 0) -> Iterator[Bin]:
    """Put use into bins of `length` ms, in proportion to the time in each; the sum is what was added, exactly.

    Bins that end before `since` are left out.
    """
    begin, end, row = added.begin, added.end, added.usage.row
    total, first = end - begin, begin - begin % length
    if total <= 0 or end <= first + length:
        yield first, row
        return

    def until(moment: int) -> tuple[int, ...]:
        share = min(moment, end) - begin
        return tuple([amount * share // total for amount in row])

    first = max(first, since - since % length)
    done = until(max(first, begin))
    for at in range(first, end, length):
        upto = until(at + length)
        yield at, tuple(map(sub, upto, done))
        done = upto
