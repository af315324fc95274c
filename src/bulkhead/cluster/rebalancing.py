"""Moves that take load off the hosts that have much more than the others, as long as each is worth what it costs.

A host is *hot* when its scarcest resource is used more than `start` above the mean of the fleet, and is relieved until
it is no more than `settle` above. The gap between both is what keeps noise from moving anything; an instance that was
moved rests for a day; each move lowers the higher of the two hosts by `gain` at least, so that no two undo one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.cluster.costs import USUAL_RATE, cost
from bulkhead.cluster.groups import Proposed, holds_back, move_group
from bulkhead.cluster.index import Index
from bulkhead.cluster.policies import WEIGHED
from bulkhead.cluster.snapshot import HostView, Placed, Snapshot

TRIES = 12
"""Instances of a hot host that are tried, best first, before another host is looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a move is worth it."""

    start: float = 0.15
    settle: float = 0.05
    """Of a host's scarcest resource, above the fleet's mean."""
    gain: float = 0.03
    """By which each move lowers the higher of the two hosts, at least."""
    bytes_per_point: int = 8 << 30
    """What may be carried for each hundredth of gain."""
    most_bytes: int = 1 << 40
    most_moves: int = 50
    most_downtime: float = 60.0
    """Seconds of any one instance."""
    rest: float = 86_400.0
    """Seconds for which what was moved stays."""
    rate: int = USUAL_RATE
    """Bytes per second of a link."""
    wake: bool = True
    """Whether hosts without an instance may take some."""


@dataclass(frozen=True, slots=True)
class Step:
    """A move and what it brings."""

    move: Proposed
    gain: float
    """By how much the higher of the two hosts gets lower: 0 to 1 of its scarcest resource."""


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Moves in the order in which they are to be made, or why there is none."""

    steps: tuple[Step, ...]
    before: float
    after: float
    """The most used host, above the fleet's mean."""
    reason: str
    """"" or why nothing (more) is worth moving."""

    @property
    def size(self) -> int:
        """Bytes to be carried in all."""
        return sum(step.move.cost.size for step in self.steps)


def rebalance(snapshot: Snapshot, limits: Limits = Limits(), *, now: float = 0.0) -> Rebalance:
    """Proposals. `now`: seconds since the epoch. At no step is a host over its capacity or a rule broken."""
    index = Index(snapshot.hosts, spare=snapshot.spare)
    heat = {host.id: use(host) for host in snapshot.hosts if host.state == "ready"}
    if len(heat) < 2:
        return Rebalance((), 0.0, 0.0, "nothing worth moving: there are not two hosts that are ready")
    before = _above(heat)
    steps: list[Step] = []
    given_up: set[str] = set()
    reason = ""
    while len(steps) < limits.most_moves:
        mean = sum(heat.values()) / len(heat)
        source = _hottest(heat, given_up, steps, mean, limits)
        if source is None:
            break
        step = _relieve(index, index.host(source), heat, limits, now=now, left=limits.most_bytes - _size(steps))
        if step is None:
            given_up.add(source)
            continue
        steps.append(step)
        for changed in (step.move.source, step.move.target):
            heat[changed] = use(index.host(changed))
    after = _above(heat)
    if not steps:
        why = "no move of it is worth its cost, or allowed" if given_up else f"it may be {limits.start:.0%}"
        reason = f"nothing worth moving: the fullest host is {before:.1%} above the mean; {why}"
    elif given_up:
        reason = f"{len(given_up)} hosts stay hot: no more moves of them are worth their cost, or allowed"
    return Rebalance(tuple(steps), before, after, reason)


def use(host: HostView, *, less: Placed | None = None, more: Placed | None = None) -> float:
    """Of its scarcest resource, 0 to 1 and beyond: what its instances use, and what else is sold there."""
    most = 0.0
    for name in WEIGHED:
        share = host.has.shares.get(name)
        if share is None or not share.sellable:
            continue
        taken = host.sold.of(name) + sum(each.load.of(name) - each.amounts.of(name) for each in host.instances)
        taken += (more.load.of(name) if more else 0) - (less.load.of(name) if less else 0)
        most = max(most, taken / share.sellable)
    return most


def gain(snapshot: Snapshot, move: Proposed) -> float:
    """By how much a move lowers the higher of its two hosts now. Raises KeyError where they, or it, are gone."""
    source, target = snapshot.host(move.source), snapshot.host(move.target)
    placed = source.find(move.instance)
    arrives = replace(placed, amounts=placed.wanted.need.on(target.speed))
    return use(source) - max(use(source.without(placed.id)), use(target.holding(arrives)))


def _above(heat: dict[str, float]) -> float:
    return max(heat.values()) - sum(heat.values()) / len(heat)


def _size(steps: Sequence[Step]) -> int:
    return sum(step.move.cost.size for step in steps)


def _hottest(
    heat: dict[str, float], given_up: set[str], steps: Sequence[Step], mean: float, limits: Limits
) -> str | None:
    """A host that was begun with is relieved further than one is begun with."""
    begun = {step.move.source for step in steps}
    hot = [
        host_id
        for host_id, value in heat.items()
        if host_id not in given_up and value > mean + (limits.settle if host_id in begun else limits.start)
    ]
    return max(hot, key=lambda host_id: (heat[host_id], host_id), default=None)


def _relieve(
    index: Index, source: HostView, heat: dict[str, float], limits: Limits, *, now: float, left: int
) -> Step | None:
    """The best move off a host, already made in the index; None where none is worth it."""
    hot = heat[source.id]
    cool = hot - limits.gain
    avoid = frozenset(
        host_id
        for host_id, value in heat.items()
        if value >= cool or (not limits.wake and not index.host(host_id).instances)
    )
    if len(avoid) == len(heat):
        return None
    for placed in _candidates(source, hot, limits, now=now, left=left):
        moves, _ = move_group(index, source, [placed], "spread", avoid=avoid, rate=limits.rate, now=now)
        if not moves:
            continue
        (move,) = moves
        gain = hot - max(use(index.host(source.id)), use(index.host(move.target)))
        if (
            gain >= limits.gain
            and move.cost.downtime <= limits.most_downtime
            and move.cost.size <= _worth(gain, limits)
        ):
            return Step(move, gain)
        index.put(index.host(move.target).without(placed.id))
        index.put(source)
    return None


def _worth(gain: float, limits: Limits) -> float:
    """Bytes that may be carried for it."""
    return gain * 100 * limits.bytes_per_point


def _candidates(source: HostView, hot: float, limits: Limits, *, now: float, left: int) -> list[Placed]:
    """Those that relieve the host most for what they carry."""
    found = []
    for placed in source.instances:
        price = cost(placed, source, source, limits.rate)
        relief = hot - use(source, less=placed)
        rests = placed.moved and now - placed.moved < limits.rest
        if rests or placed.pinned or placed.wanted.inside or price.size > left or relief < limits.gain:
            continue
        if price.size <= _worth(relief, limits) and not holds_back(source, placed.wanted):
            found.append((-relief / (price.size + (64 << 20)), placed.id, placed))
    return [placed for _, _, placed in sorted(found, key=lambda each: each[:2])[:TRIES]]
