"""Moves that make the fleet's hosts more alike, or that free whole ones, from whichever host is asked.

They are planned over the fleet's records and what each host says that its instances use (design 0034), and made one
after the other, each by the host that has the instance. A plan is kept while the fleet changes, for as long as its
next move would still be judged so; then it is made anew. An end in between leaves every instance where it is by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from bulkhead.engine.fleet import views
from bulkhead.errors import BulkheadError, HostRefused
from bulkhead.events import Progress, Step
from bulkhead.fleet import Host, HostState, Load
from bulkhead.moves import FreedHost, Moved, Proposal, Rebalanced
from bulkhead.store.fleet import Seen

if TYPE_CHECKING:
    from bulkhead.cluster.groups import Proposed
    from bulkhead.cluster.rebalancing import Limits
    from bulkhead.cluster.snapshot import Snapshot

MOST_PLANS = 20
"""How often what is left to do is planned anew."""
MOST_ASKED = 5
"""Hosts that are asked to take the same instance, one after the other."""
CHANGED = "the fleet has changed meanwhile"


@dataclass(frozen=True, slots=True)
class Aim:
    """What is asked for."""

    consolidate: bool = False
    by: Literal["use", "sold"] = "use"
    """What a host's load is: what its instances use, as measured, or what is sold to them."""
    most_moves: int = 50
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Fleetwide:
    """What a rebalance needs of the fleet."""

    look: Callable[[], Seen]
    measure: Callable[[Seen], tuple[dict[str, Load], list[str]]]
    """What instances use, by id, and the ids of hosts that did not say."""
    carry: Callable[[str, Host, str, Progress], Moved]
    """Moves an instance (id) of a host to another one (id)."""
    mark: Callable[[str, HostState], None]
    """Lets a host (id) take new instances, or none."""


def balance(fleet: Fleetwide, aim: Aim, progress: Progress) -> Rebalanced:
    """Plan, and unless it is only asked about, carry out. Raises Unavailable where the fleet cannot be asked."""
    progress(Step("asking the hosts what their instances use"))
    seen = fleet.look()
    loads, unheard = fleet.measure(seen)
    run = _Run(fleet, aim, progress, loads if aim.by == "use" else _without_use(loads), frozenset(unheard))
    names = {host.id: host.name for host in seen.hosts}
    return run.consolidate(names) if aim.consolidate else run.rebalance(names)


def _without_use(loads: dict[str, Load]) -> dict[str, Load]:
    return {key: load.model_copy(update={"used": None}) for key, load in loads.items()}


@dataclass(slots=True)
class _Run:
    fleet: Fleetwide
    aim: Aim
    progress: Progress
    loads: dict[str, Load]
    unheard: frozenset[str]
    made: list[Proposal] = field(default_factory=list)
    refused: dict[str, set[str]] = field(default_factory=dict)
    """By instance the hosts that would not take it: others may."""

    def snapshot(self) -> tuple[Snapshot, dict[str, Host]]:
        """The fleet now, with what was measured. Who did not say what it has takes no part."""
        seen = self.fleet.look()
        told = replace(seen, alive=seen.alive - self.unheard)
        snapshot = views.avoiding(views.snapshot(told, loads=self.loads), self.refused)
        return snapshot, {host.id: host for host in seen.hosts}

    # --- more alike

    def rebalance(self, names: dict[str, str]) -> Rebalanced:
        from bulkhead.cluster.rebalancing import Limits, rebalance

        limits = Limits(most_moves=self.aim.most_moves)
        now, (snapshot, hosts) = time.time(), self.snapshot()
        plan = rebalance(snapshot, limits, now=now)
        result = Rebalanced(
            done=not self.aim.dry_run,
            moves=tuple(_proposal(step.move, names, step.gain) for step in plan.steps),
            freed=(),
            before=plan.before,
            after=plan.after,
            watts=None,
            reason=plan.reason,
            unheard=self._unheard(names),
        )
        if self.aim.dry_run:
            return result
        steps, plans, done = list(plan.steps), 1, True
        while (steps or not done) and len(self.made) < limits.most_moves:
            if self.made:
                snapshot, hosts = self.snapshot()
                if not done or not _stands(snapshot, steps[0].move, limits):
                    if plans == MOST_PLANS:
                        return result.model_copy(update={"moves": tuple(self.made), "reason": CHANGED})
                    left = limits.most_moves - len(self.made)
                    plan = rebalance(snapshot, replace(limits, most_moves=left), now=time.time())
                    steps, plans, done = list(plan.steps), plans + 1, True
                    continue
            step = steps.pop(0)
            done = self._carry(_proposal(step.move, names, step.gain), step.move, hosts, len(steps)).done
        return result.model_copy(update={"moves": tuple(self.made), "after": plan.after, "reason": plan.reason})

    # --- whole hosts

    def consolidate(self, names: dict[str, str]) -> Rebalanced:
        from bulkhead.cluster.consolidating import consolidate

        snapshot, _ = self.snapshot()
        plan = consolidate(snapshot, now=time.time())
        freed, left = [], self.aim.most_moves
        for each in plan.freed:  # whole hosts, as many as the moves are enough for
            if len(each.moves) > left:
                break
            left -= len(each.moves)
            freed.append(each)
        reason = plan.reason
        if len(freed) < len(plan.freed):
            reason = f"{len(plan.freed) - len(freed)} more hosts would take more than {self.aim.most_moves} moves"
        done = [FreedHost(host=names[each.host], done=False, watts=each.watts) for each in freed]
        if self.aim.dry_run:
            self.made = [_proposal(move, names, None) for each in freed for move in each.moves]
        else:
            done = [self._free(each.host, each.moves, told, names) for each, told in zip(freed, done, strict=True)]
        watts = [each.watts for each in done if each.done or self.aim.dry_run]
        return Rebalanced(
            done=not self.aim.dry_run,
            moves=tuple(self.made),
            freed=tuple(done),
            before=0.0,
            after=0.0,
            watts=sum(each or 0.0 for each in watts) if watts and None not in watts else None,
            reason=reason,
            unheard=self._unheard(names),
        )

    def _free(self, host: str, moves: tuple[Proposed, ...], told: FreedHost, names: dict[str, str]) -> FreedHost:
        """Let a host take nothing new and move everything off; where that does not succeed it takes instances again."""
        self.fleet.mark(host, HostState.DRAINING)
        try:
            problem = self._empty(host, moves, names)
        except BaseException:
            self.fleet.mark(host, HostState.READY)
            raise
        if problem:
            self.fleet.mark(host, HostState.READY)
        return told.model_copy(update={"done": not problem, "problem": problem})

    def _empty(self, host: str, moves: tuple[Proposed, ...], names: dict[str, str]) -> str:
        from bulkhead.cluster.standing import objection

        for number, move in enumerate(moves):
            snapshot, hosts = self.snapshot()
            proposal = _proposal(move, names, None)
            if why := objection(snapshot, move):
                self.made.append(proposal.model_copy(update={"problem": f"{CHANGED}: {why}"}))
                return f"{move.name} stays: {CHANGED}: {why}"
            made = self._carry(proposal, move, hosts, len(moves) - number - 1)
            if not made.done:
                return f"{move.name} stays: {made.problem}"
        left = [place.name for place in self.fleet.look().places if place.host == host]
        return f"there is something new on it: {', '.join(left[:5])}" if left else ""

    # --- one move

    def _carry(self, proposal: Proposal, move: Proposed, hosts: dict[str, Host], left: int) -> Proposal:
        done = sum(each.done for each in self.made)
        self.progress(Step(f"{proposal.name} goes from {proposal.source} to {proposal.target}", done, done + left + 1))
        try:
            moved = self.fleet.carry(move.instance, hosts[move.source], move.target, self.progress)
        except BulkheadError as error:
            found = proposal.model_copy(update={"problem": error.what, "hint": error.hint})
            refused = self.refused.setdefault(move.instance, set())
            refused.add(move.target)
            if not isinstance(error, HostRefused) or len(refused) == MOST_ASKED:
                # It is not asked for again by this run.
                load = self.loads.get(move.instance) or _unknown(move.instance)
                self.loads[move.instance] = load.model_copy(update={"pinned": error.what})
        else:
            size = moved.hosts.sent if moved.hosts else proposal.size
            told = {"done": True, "downtime": moved.downtime, "size": size, "warning": "; ".join(moved.dropped)}
            found = proposal.model_copy(update=told)
        self.made.append(found)
        return found

    def _unheard(self, names: dict[str, str]) -> tuple[str, ...]:
        return tuple(sorted(names[host] for host in self.unheard))


def _unknown(instance_id: str) -> Load:
    return Load(id=instance_id, running=True, written=0, resident=0, used=None)


def _stands(snapshot: Snapshot, move: Proposed, limits: Limits) -> bool:
    """Whether it may still be made, and is still worth it."""
    from bulkhead.cluster.rebalancing import gain
    from bulkhead.cluster.standing import objection

    return not objection(snapshot, move) and gain(snapshot, move) >= limits.gain


def _proposal(move: Proposed, names: dict[str, str], gain: float | None) -> Proposal:
    return Proposal(
        id=move.instance,
        name=move.name,
        tenant=move.tenant,
        source=names[move.source],
        target=names[move.target],
        how=move.cost.how,
        gain=gain,
        size=move.cost.size,
        predicted=move.cost.downtime,
    )
