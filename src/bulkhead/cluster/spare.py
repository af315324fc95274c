"""The reserve for the loss of one host (N+1), checked before an instance is placed.

**What it promises**: whichever one host is lost, everything that it carried finds room on the ready hosts that are
left, each instance whole, in whatever order they come. It is about room alone: labels, affinity and walls can still
keep an instance off a host that has room, and a disk that was on the lost host only is lost with it.

**How**: every instance gets one *size*, the largest share that it takes of any resource of the fleet's usual host; a
host's *room* is the smallest share that it has left of any. Instances whose sizes add up to no more than a host's room
fit there, in every resource. Filling the other hosts one after the other wastes on each, but the last, less than the
largest size. So the loss of h is covered where the others' rooms, each less the largest size, add up to what h carries,
less the largest size once. That is enough and not always necessary: a fleet may be refused an instance that an exact
packing would allow, never the other way round. All in whole numbers, so that sums are the same in whichever order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bulkhead.amounts import RESOURCES, Amounts
from bulkhead.cluster.snapshot import HostView, Need, Snapshot, Speed, Wanted

WHOLE = 1 << 20
"""The size of an instance that takes all of the usual host."""
TAKING = frozenset({"ready"})
"""States of hosts that take what others lose."""
CARRYING = frozenset({"ready", "draining"})
"""States of hosts whose loss is to be covered: what was on the others is lost, or on its way, already."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What sizes are told by. It changes when hosts come or go, not with what is placed."""

    units: tuple[int, ...]
    """Of each of RESOURCES: how much of it is one part of WHOLE; 0: no host sells by it."""
    speeds: tuple[Speed, ...]

    def size(self, need: Need) -> int:
        """Of an instance, on whichever host it takes most."""
        return max((self._size(need.on(speed)) for speed in self.speeds), default=0)

    def _size(self, amounts: Amounts) -> int:
        return max((-(-amounts.of(name) // unit) for name, unit in self._sold()), default=0)

    def room(self, free: Amounts) -> int:
        """Of a host that has so much left."""
        return max(0, min((free.of(name) // unit for name, unit in self._sold()), default=0))

    def _sold(self) -> Iterator[tuple[str, int]]:
        return ((name, unit) for name, unit in zip(RESOURCES, self.units, strict=True) if unit)


def measure(hosts: Iterable[HostView]) -> Measure:
    """The usual host has of each resource the middle of what all hosts sell of it."""
    hosts = list(hosts)
    units = []
    for name in RESOURCES:
        sells = sorted(host.has.shares[name].sellable for host in hosts if name in host.has.shares)
        units.append(max(1, sells[len(sells) // 2] // WHOLE) if sells else 0)
    speeds = {host.speed for host in hosts}
    order = sorted(speeds, key=lambda speed: (speed.cores, speed.khz, speed.factor, speed.accelerator))
    return Measure(tuple(units), tuple(order))


@dataclass(frozen=True, slots=True)
class Standing:
    """How the fleet stands before an instance is placed; sizes."""

    adds: int
    """The instance's."""
    largest: int
    """Of any instance, this one included."""
    fullest: str
    """Name of the host whose loss would want most; "" where nothing is carried yet."""
    carries: int
    """By that host."""
    left: int
    """Room that is sure on the other hosts."""

    def reason(self) -> str:
        """Why it cannot be placed."""
        size = f"this instance is {_share(self.adds)} of a usual host"
        if not self.fullest:
            return f"the loss of its host would not be covered: {size}, the others have {_share(self.left)} for sure"
        return (
            f"the loss of one host would not be covered: {size}; {self.fullest} carries {_share(self.carries)} and the "
            f"others have {_share(self.left)} for sure, where the largest instance takes {_share(self.largest)}"
        )


def _share(size: int) -> str:
    return f"{size / WHOLE:.1%}"


@dataclass(frozen=True, slots=True)
class Row:
    """One host, in sizes."""

    name: str
    takes: bool
    carries: int
    """0 where its loss need not be covered."""
    largest: int
    room: int


def rows(snapshot: Snapshot, by: Measure) -> list[Row]:
    """All hosts, in the snapshot's order."""
    return [row_of(host, by) for host in snapshot.hosts]


def row_of(host: HostView, by: Measure) -> Row:
    """One host."""
    return row_with(host, [by.size(placed.wanted.need) for placed in host.instances], by)


def row_with(host: HostView, sizes: Sequence[int], by: Measure) -> Row:
    """One host whose instances have these sizes."""
    sizes = sizes if host.state in CARRYING else ()
    takes = host.state in TAKING
    room = by.room(host.free) if takes else 0
    return Row(host.name, takes, sum(sizes), max(sizes, default=0), room)


def standing(fleet: Sequence[Row], adds: int) -> Standing:
    """Before an instance of size `adds` is placed."""
    largest = max((row.largest for row in fleet), default=0)
    largest = max(largest, adds)
    sure = sum(max(0, row.room - largest) for row in fleet)
    worst, wants = None, 0
    for row in fleet:
        if row.carries and row.carries + max(0, row.room - largest) > wants:
            worst, wants = row, row.carries + max(0, row.room - largest)
    if worst is None:
        return Standing(adds, largest, "", 0, sure)
    return Standing(adds, largest, worst.name, worst.carries, sure - max(0, worst.room - largest))


def covered(fleet: Sequence[Row], largest: int) -> bool:
    """Whether the loss of each of these hosts is. `largest`: no instance is larger."""
    big = sum(row.takes and row.room >= largest for row in fleet)
    sure = sum(max(0, row.room - largest) for row in fleet)
    return all(
        big - (row.takes and row.room >= largest) >= 1 and sure - max(0, row.room - largest) + largest >= row.carries
        for row in fleet
        if row.carries
    )


def stays_covered(fleet: Sequence[Row], position: int, host: HostView, wanted: Wanted, by: Measure) -> bool:
    """Whether the loss of any one host is covered once this host, at `position` of `fleet`, has the instance too."""
    adds = by.size(wanted.need)
    largest = max(adds, *(row.largest for row in fleet))
    old = fleet[position]
    room = by.room(host.free - wanted.need.on(host.speed)) if old.takes else 0
    new = Row(old.name, old.takes, old.carries + adds, largest, room)
    return covered([*fleet[:position], new, *fleet[position + 1 :]], largest)
