"""What has to stay together when it moves: hard affinity, and instances within a virtual machine. One group goes to one
host, and each of its members obeys every rule there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bulkhead.amounts import NOTHING
from bulkhead.cluster.costs import Cost, cost
from bulkhead.cluster.index import Index
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.rules import Reason, Rule, check, neighbours
from bulkhead.cluster.snapshot import HostView, Need, Placed, Term, Wanted

TRIES = 16
"""How many hosts a group of several is tried on."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One move: what, from where to where. In a list they are to be made one after the other."""

    instance: str
    """Id."""
    name: str
    tenant: str
    source: str
    target: str
    """Ids of hosts."""
    cost: Cost


def groups(host: HostView) -> list[tuple[Placed, ...]]:
    """Of the instances on a host, in the order in which they are there."""
    found: list[list[Placed]] = []
    for placed in host.instances:
        bound = [group for group in found if any(_bound(placed.wanted, other.wanted) for other in group)]
        merged = [member for group in bound for member in group] + [placed]
        found = [group for group in found if group not in bound] + [merged]
    return [tuple(group) for group in found]


def _bound(one: Wanted, other: Wanted) -> bool:
    if one.inside == other.id or other.inside == one.id:
        return True
    if one.tenant != other.tenant:
        return False
    return _clings(one, other) or _clings(other, one)


def _clings(one: Wanted, other: Wanted) -> bool:
    return any(term.hard and not term.away and term.matches(other) for term in one.terms)


def together(group: Sequence[Placed]) -> Wanted:
    """A group as one instance: what it takes in all, and what all of its members ask of the host."""
    first = group[0].wanted
    if len(group) == 1:
        return first
    needs = [placed.wanted.need for placed in group]
    overhead: dict[str, int] = {}
    for need in needs:
        for accelerator, size in need.overhead.items():
            overhead[accelerator] = overhead.get(accelerator, 0) + size
    need = Need(
        sum((each.amounts for each in needs), NOTHING),
        cores=sum(each.cores for each in needs),
        widest=max(each.widest for each in needs),
        core_khz=max(each.core_khz for each in needs),
        overhead=overhead,
    )
    return replace(
        first,
        need=need,
        terms=tuple(term for term in first.terms if not (term.hard and not term.away)),
        requires=tuple(dict.fromkeys(label for placed in group for label in placed.wanted.requires)),
        host=next((placed.wanted.host for placed in group if placed.wanted.host), ""),
        avoid=frozenset().union(*(placed.wanted.avoid for placed in group)),
    )


def move_group(
    index: Index,
    source: HostView,
    group: Sequence[Placed],
    policy: Policy,
    *,
    avoid: frozenset[str],
    rate: int,
    now: float,
) -> tuple[list[Proposed], tuple[Reason, ...]]:
    """Put a group onto another host in the index: the moves, or, and then nothing is changed, why there is none.

    `source` is the host as the index has it. While a group moves both hosts hold it: what it leaves is free for others
    only after it.
    """
    index.put(without(source, group))
    one = together(group)
    one = replace(one, avoid=one.avoid | avoid | {source.id})
    reasons: tuple[Reason, ...] = ()
    for _ in range(TRIES):
        decision = index.place(one, policy)
        if decision.chosen is None:
            if not reasons:
                others = (refusal for refusal in decision.examples.values() if refusal.host != source.name)
                reasons = tuple(each.reasons[0] for each in others if each.reasons[0].rule is not Rule.REFUSED)
            break
        target = index.host(decision.chosen.id)
        full, broken = _all_on(target, group, now)
        if not broken:
            index.put(full)
            # Who must be near to others comes after them: each is judged by itself when it gets there.
            order = sorted(group, key=lambda placed: any(_clings(placed.wanted, one.wanted) for one in group))
            return [_proposed(placed, source, target, rate) for placed in order], ()
        reasons = reasons or broken
        one = replace(one, avoid=one.avoid | {target.id})
    index.put(source)
    return [], reasons


def without(host: HostView, group: Sequence[Placed]) -> HostView:
    """A host without these."""
    for placed in group:
        host = host.without(placed.id)
    return host


def _all_on(target: HostView, group: Sequence[Placed], now: float) -> tuple[HostView, tuple[Reason, ...]]:
    """The host with all of them, and what that breaks: each is judged beside all the others."""
    full = target
    for placed in group:
        full = full.holding(replace(placed, amounts=placed.wanted.need.on(target.speed), moved=now))
    if len(group) == 1:
        return full, ()
    for placed in group:
        if broken := check(full.without(placed.id), placed.wanted, _alone(placed, group)):
            return full, broken
    return full, ()


def _alone(placed: Placed, group: Sequence[Placed]) -> frozenset[Term]:
    """What it must be near to, and is itself and nobody else of its group: then it was the only one before as well."""
    others = [each.wanted for each in group if each.id != placed.id]
    near = (term for term in placed.wanted.terms if term.hard and not term.away and term.matches(placed.wanted))
    return frozenset(term for term in near if not any(map(term.matches, others)))


def _proposed(placed: Placed, source: HostView, target: HostView, rate: int) -> Proposed:
    wanted = placed.wanted
    return Proposed(wanted.id, wanted.name, wanted.tenant, source.id, target.id, cost(placed, source, target, rate))


def holds_back(host: HostView, wanted: Wanted) -> list[Wanted]:
    """Who would lose what it must be near to, or runs inside, if this one went alone."""
    beside = neighbours(host, wanted)
    lost = []
    for other in beside:
        rest = [each for each in beside if each.id != other.id]
        near = [term for term in other.terms if term.hard and not term.away and term.matches(wanted)]
        if any(not any(map(term.matches, rest)) for term in near):
            lost.append(other)
    return lost + [placed.wanted for placed in host.instances if placed.wanted.inside == wanted.id]
