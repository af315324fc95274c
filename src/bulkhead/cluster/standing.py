"""Whether a move that was judged a while ago would still be judged so: a plan is kept for as long as that holds."""

from __future__ import annotations

from bulkhead.cluster import rules, spare
from bulkhead.cluster.groups import Proposed
from bulkhead.cluster.snapshot import Snapshot

GONE = "it is not where it was any more"


def objection(snapshot: Snapshot, move: Proposed) -> str:
    """Why it is not to be made as the fleet is now; "" where nothing speaks against it."""
    try:
        target, placed = snapshot.host(move.target), snapshot.host(move.source).find(move.instance)
    except KeyError:
        return GONE
    wanted = placed.wanted
    found = rules.check(target, wanted, rules.lone_terms(snapshot, wanted))
    if found:
        return found[0].what
    if not snapshot.spare:
        return ""
    after = snapshot.having(snapshot.host(move.source).without(placed.id))
    by = spare.measure(after.hosts)
    fleet = spare.rows(after, by)
    position = next(number for number, host in enumerate(after.hosts) if host.id == target.id)
    if spare.stays_covered(fleet, position, target, wanted, by):
        return ""
    return spare.standing(fleet, by.size(wanted.need)).reason()
