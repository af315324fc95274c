"""Everything off a host, in an order: what matters most first, what belongs together at once, within a deadline."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bulkhead.cluster.costs import USUAL_RATE
from bulkhead.cluster.groups import Proposed, groups, move_group, without
from bulkhead.cluster.index import Index
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.snapshot import Placed, Snapshot, Wanted


@dataclass(frozen=True, slots=True)
class Timed:
    """A move, and when it runs: seconds from the beginning."""

    move: Proposed
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Left:
    """What stays, and why."""

    wanted: Wanted
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """One move after the other."""

    host: str
    """Id."""
    moves: tuple[Timed, ...]
    left: tuple[Left, ...]

    @property
    def seconds(self) -> float:
        """When the last one ends."""
        return self.moves[-1].ends if self.moves else 0.0


def drain(
    snapshot: Snapshot,
    host_id: str,
    deadline: float,
    *,
    policy: Policy = "spread",
    rate: int = USUAL_RATE,
    now: float = 0.0,
) -> Drain:
    """Off a host within `deadline` seconds. Groups go by their highest priority, then the quickest first, so that most
    are safe should it end early. What finds no host, or would end too late, is left, with the reason.
    """
    index = Index(snapshot.hosts, spare=snapshot.spare)
    index.put(replace(index.host(host_id), state="draining"))
    moves: list[Timed] = []
    left: list[Left] = []
    clock = 0.0
    for group in sorted(groups(index.host(host_id)), key=_order):
        source = index.host(host_id)
        if pinned := next((placed.pinned for placed in group if placed.pinned), ""):
            left += [Left(placed.wanted, placed.pinned or pinned) for placed in group]
            continue
        made, reasons = move_group(index, source, group, policy, avoid=frozenset(), rate=rate, now=now)
        if not made:
            why, hint = (reasons[0].what, reasons[0].hint) if reasons else ("no other host will do", "")
            left += [Left(placed.wanted, why, hint) for placed in group]
            continue
        ends = clock + sum(move.cost.seconds for move in made)
        if ends > deadline:
            index.put(without(index.host(made[0].target), group))
            index.put(source)
            why = f"it would take until {ends:.0f} s, the deadline is {deadline:.0f} s"
            left += [Left(placed.wanted, why, "a later deadline") for placed in group]
            continue
        for move in made:
            moves.append(Timed(move, clock, clock + move.cost.seconds))
            clock += move.cost.seconds
    return Drain(host_id, tuple(moves), tuple(left))


def lost(snapshot: Snapshot, host_id: str) -> list[Wanted]:
    """What a lost host ran and what is to run again elsewhere, in the order in which it is to be placed: by priority.
    What has no restart policy waits for its owner.
    """
    again = [placed.wanted for placed in snapshot.host(host_id).instances if placed.running]
    return sorted((each for each in again if each.restart != "no"), key=lambda each: (-each.priority, each.id))


def _order(group: tuple[Placed, ...]) -> tuple[int, int, str]:
    size = sum(placed.written + placed.resident for placed in group)
    return -max(placed.wanted.priority for placed in group), size, group[0].id
