"""Whole hosts that can be freed and switched off: what has to move, and the power that it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.cluster.costs import USUAL_RATE
from bulkhead.cluster.groups import Proposed, groups, move_group, without
from bulkhead.cluster.index import Index
from bulkhead.cluster.rebalancing import use
from bulkhead.cluster.rules import Reason
from bulkhead.cluster.snapshot import HostView, Placed, Snapshot

ATTEMPTS = 200
"""Hosts that are tried, emptiest first."""


@dataclass(frozen=True, slots=True)
class Thrift:
    """When freeing a host is worth it."""

    fill: float = 0.8
    """How full the scarcest resource of the others may get."""
    least_watts: float = 20.0
    """Saved by each host, where its power curve is known."""
    most_bytes: int = 1 << 40
    """Carried for one host."""
    most_downtime: float = 60.0
    rest: float = 86_400.0
    rate: int = USUAL_RATE


@dataclass(frozen=True, slots=True)
class Freed:
    """A host that carries nothing after these moves."""

    host: str
    """Id."""
    moves: tuple[Proposed, ...]
    watts: float | None
    """Saved, less what the others draw more; None where a power curve is not known."""


@dataclass(frozen=True, slots=True)
class Consolidation:
    """Hosts in the order in which they are to be freed, or why there is none."""

    freed: tuple[Freed, ...]
    reason: str

    @property
    def watts(self) -> float | None:
        """Saved in all; None where it is not known of all of them."""
        known = [each.watts for each in self.freed if each.watts is not None]
        return sum(known) if len(known) == len(self.freed) else None


def consolidate(snapshot: Snapshot, thrift: Thrift = Thrift(), *, now: float = 0.0) -> Consolidation:
    """Proposals. No sleeping host is woken; at no step is a host over its capacity or a rule broken."""
    index = Index(snapshot.hosts, spare=snapshot.spare)
    awake = [host for host in snapshot.hosts if host.state == "ready" and host.instances]
    asleep = frozenset(host.id for host in snapshot.hosts if not host.instances)
    out: set[str] = set()
    """Freed, or has taken from a freed one: what was moved once is not moved again."""
    freed: list[Freed] = []
    why = "no host is awake" if not awake else ""
    for host in sorted(awake, key=lambda each: (use(each), each.id))[:ATTEMPTS]:
        if host.id in out:
            continue
        found, reason = _free(index, index.host(host.id), thrift, avoid=asleep | {each.host for each in freed}, now=now)
        if found is None:
            why = why or f"{host.name}: {reason}"
            continue
        freed.append(found)
        out |= {host.id, *(move.target for move in found.moves)}
    return Consolidation(tuple(freed), "" if freed else f"nothing worth moving: {why}")


def _free(
    index: Index, host: HostView, thrift: Thrift, *, avoid: frozenset[str] | set[str], now: float
) -> tuple[Freed | None, str]:
    """Move everything off in the index; where that is not possible or not worth it the index is as it was, and why."""
    touched = {host.id: host}

    def back(reason: str) -> tuple[None, str]:
        for view in touched.values():
            index.put(view)
        return None, reason

    if why := _stays(host, thrift, now):
        return None, why
    full = {view.id for view in index.views() if use(view) >= thrift.fill}
    index.put(replace(host, state="draining"))
    moves: list[Proposed] = []
    # The largest come first: they are the last to find room.
    for group in sorted(groups(host), key=lambda each: (-max(placed.amounts.memory for placed in each), each[0].id)):
        made, reasons = _fill(index, host.id, group, thrift, avoid=frozenset(avoid) | full, now=now)
        if not made:
            return back(reasons[0].what if reasons else "no other host has room")
        target = index.host(made[0].target)
        touched.setdefault(target.id, without(target, group))
        moves += made
    if sum(move.cost.size for move in moves) > thrift.most_bytes:
        return back("there is too much to carry")
    if any(move.cost.downtime > thrift.most_downtime for move in moves):
        return back("an instance would stand still for too long")
    watts = _saved(host, [(touched[each], index.host(each)) for each in touched if each != host.id])
    if watts is not None and watts < thrift.least_watts:
        return back(f"it would save {watts:.0f} W")
    return Freed(host.id, tuple(moves), watts), ""


def _stays(host: HostView, thrift: Thrift, now: float) -> str:
    """Why something on a host is not to be moved now; "" where all may be."""
    if any(placed.moved and now - placed.moved < thrift.rest for placed in host.instances):
        return "something was moved there a short time ago"
    return next((placed.pinned for placed in host.instances if placed.pinned), "")


def _fill(
    index: Index, host_id: str, group: Sequence[Placed], thrift: Thrift, *, avoid: frozenset[str], now: float
) -> tuple[list[Proposed], tuple[Reason, ...]]:
    """Move a group to a host that does not get too full by it."""
    source = index.host(host_id)
    while True:
        made, reasons = move_group(index, source, group, "pack", avoid=avoid, rate=thrift.rate, now=now)
        if not made:
            return [], reasons
        target = index.host(made[0].target)
        if use(target) <= thrift.fill:
            return made, ()
        index.put(without(target, group))
        index.put(source)
        avoid |= {target.id}


def watts_of(host: HostView) -> float | None:
    """What it draws with what its instances use; None where its curve is not known."""
    if host.power is None:
        return None
    return host.power.at(sum(placed.load.cpu for placed in host.instances) / max(1, host.speed.cores * host.speed.core))


def _saved(host: HostView, others: Sequence[tuple[HostView, HostView]]) -> float | None:
    saved = watts_of(host)
    for before, after in others:
        old, new = watts_of(before), watts_of(after)
        if saved is None or old is None or new is None:
            return None
        saved -= new - old
    return saved
