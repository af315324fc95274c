"""An independent look at moves: made one after the other, is any host over its capacity, or any rule broken?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bulkhead.cluster.groups import Proposed
from bulkhead.cluster.rules import Rule, check
from bulkhead.cluster.snapshot import HostView, Snapshot

LATER = {Rule.STATE, Rule.REFUSED, Rule.PINNED}
"""Rules for what comes, not for what is there."""


def broken(view: HostView) -> set[tuple[str, Rule]]:
    """Of the instances on a host those that could not be there, with the rule."""
    found = {
        (placed.id, reason.rule)
        for placed in view.instances
        for reason in check(view.without(placed.id), placed.wanted)
        if reason.rule not in LATER
    }
    if min(view.free.as_dict().values()) < 0:
        found.add((view.id, Rule.MEMORY))
    return found


def carried_out(snapshot: Snapshot, moves: Iterable[Proposed], now: float = 1.0) -> Snapshot:
    """After all of them; fails where one breaks on its target what was not broken there.

    Near terms are looked at in the end alone: a group moves one after the other.
    """
    moves = list(moves)
    before = {view.id: broken(view) for view in snapshot.hosts}
    for move in moves:
        source, target = snapshot.host(move.source), snapshot.host(move.target)
        placed = source.find(move.instance)
        assert target.state == "ready"
        arrives = replace(placed, amounts=placed.wanted.need.on(target.speed), moved=now)
        both = snapshot.having(target.holding(arrives))
        assert min(both.host(target.id).free.as_dict().values()) >= min(0, *target.free.as_dict().values()), move
        new = {rule for _, rule in broken(both.host(target.id)) - before[target.id]}
        assert new <= {Rule.NEAR}, (move, new)
        snapshot = both.having(source.without(move.instance))
    for view in snapshot.hosts:
        new = {rule for _, rule in broken(view) - before[view.id]}
        assert not new, (view.name, new)
    return snapshot
