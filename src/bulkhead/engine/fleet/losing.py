"""A host is lost: what it ran, and is to be started elsewhere, gets another place.

A host counts as lost once it has not been heard of for the fleet's lease and GRACE_SECONDS on top, by this host's own
clock: by then its guard has ended what is to be started elsewhere (see design 0032). One living host sees to it, which
has claimed that in etcd; that the lost host is still not heard of is compared with each change. Where everything goes
is decided by the fleet's rules, the highest priority first.
"""

from __future__ import annotations

import logging
import math
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from bulkhead.amounts import Amounts
from bulkhead.cluster.placing import Decision
from bulkhead.cluster.placing import place as judge
from bulkhead.cluster.rules import IN_WORDS
from bulkhead.cluster.snapshot import Wanted
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.arriving import Arrivals
from bulkhead.engine.fleet.fencing import Fence
from bulkhead.engine.fleet.identity import Opened
from bulkhead.errors import Conflict, NotFound
from bulkhead.events import Event
from bulkhead.fleet import Phase, Place, Replica
from bulkhead.model import Spec
from bulkhead.moves import Leaving
from bulkhead.store import handing, replicas, wills
from bulkhead.store.fleet import Stale
from bulkhead.store.seen import Seen
from bulkhead.store.wills import Absent, Taking
from bulkhead.tenancy.names import DEFAULT

log = logging.getLogger(__name__)
GRACE_SECONDS = 3.0
"""For the lost host's guard, which begins to end instances when the lease is over at the latest."""
MOST_INDEXED = 64
"""Hosts up to which each is judged by itself: an index takes longer to make."""
_TRIES = 20
_PAUSE = 0.2


@dataclass(slots=True)
class _Gone:
    life: str
    since: float
    """By this host's own clock (monotonic)."""
    told: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    place: Place
    spec: Spec
    copy: Replica | None
    """Of its disk."""
    lost: Absent
    unheard: float
    """Seconds."""


@dataclass(slots=True)
class Losses:
    """Those that this host has noticed. One thread uses it."""

    context: Context
    fence: Fence
    arrivals: Arrivals
    _gone: dict[str, _Gone] = field(default_factory=dict)
    _wait: float = math.inf

    def unheard(self) -> dict[str, tuple[float, bool]]:
        """Of each host (id) that is not heard of: for how many seconds, and whether it counts as lost."""
        now, gone = time.monotonic(), self._gone
        return {host: (now - each.since, now - each.since >= self._wait) for host, each in gone.items()}

    def look(self, member: Opened) -> list[str]:
        """See to the hosts that are lost. Says what was done."""
        wait = self._wait = member.state.fleet().lease + GRACE_SECONDS
        gone, known = wills.absent(member.state, but=member.identity.id), self._gone
        now = time.monotonic()
        # One that was heard of in between leads another life: its time begins anew.
        self._gone = {
            each.host.id: there
            if (there := known.get(each.host.id)) and there.life == each.life
            else _Gone(each.life, now)
            for each in gone
        }
        told = []
        for each in gone:
            if (unheard := now - self._gone[each.host.id].since) >= wait:
                told += self._finish_moves(member, each) + self._see_to(member, each, unheard)
        return told

    def _finish_moves(self, member: Opened, lost: Absent) -> list[str]:
        """What was on its way here, has arrived whole, and was not handed over any more: it was stopped there before it
        was sent, and runs again nowhere while its move is under way.
        """
        own, told = member.identity.id, []
        for place in member.state.seen().places:
            if (place.host, place.phase, place.target) != (lost.host.id, Phase.MOVING, own):
                continue
            parcel = self.arrivals.whole(place.id)
            if parcel is None or parcel.move != place.move:
                continue
            amounts = self.context.scales.weigh(parcel.instance.spec)
            leaving = Leaving(move=parcel.move, target=own, ran=parcel.ran)
            with suppress(Conflict, NotFound):
                handing.hand_over(member.state, place.id, leaving, amounts)
                checkpoint("take.finished")
                told.append(f"{place.name} had come from host {lost.host.name}, which is lost: it is here from now on")
        return told

    def _see_to(self, member: Opened, lost: Absent, unheard: float) -> list[str]:
        lease = self.fence.held()
        if lease is None or not wills.claim(member.state, lost.host.id, by=member.identity.id, lease=lease):
            return []
        if not self._gone[lost.host.id].told:
            self._gone[lost.host.id].told = True
            attributes = {"unheard": f"{unheard:.1f}"}
            self._record(Event(time.time(), "host", lost.host.id, "lost", lost.host.name, attributes))
        checkpoint("take.claimed")
        told, all_wills, copies = [], wills.all_of(member.state), replicas.all_of(member.state)
        there = [each for each in member.state.seen().places if each.host == lost.host.id]
        there = [each for each in there if each.id in all_wills and all_wills[each.id].runs]
        for each in sorted(there, key=lambda each: (-each.where.priority, each.name)):
            if self.fence.held() is None:
                break
            told += self._take(member, _Case(each, all_wills[each.id].spec, copies.get(each.id), lost, unheard))
        return told

    def _take(self, member: Opened, case: _Case) -> list[str]:
        """Find it another place."""
        there, spec, copy, lost = case.place, case.spec, case.copy, case.lost
        if spec.where.on_host_loss == "restart" and (copy is None or not copy.at):
            return self._waits(member, case, "no copy of its disk was whole yet: it waits for its host")
        for _ in range(_TRIES):
            seen = member.state.seen()
            wanted = wanted_of(there, spec, host=copy.host if copy else "")
            decision = decide(seen, wanted, heard=member.identity.id, copy=copy)
            if decision.chosen is None:
                # A tenant is told by event: not what is sold on which host.
                return self._waits(member, case, refused(decision, examples=there.tenant == DEFAULT))
            target = next(host for host in seen.hosts if host.id == decision.chosen.id)
            amounts = views.sold_there(wanted.need, target)
            try:
                wills.take(
                    member.state,
                    there.id,
                    Taking(lost, target.id, decision.chosen.version, amounts, case.unheard),
                )
            except Stale:
                time.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - somebody else has got on
                continue
            except Conflict:
                return []  # removed, stopped, or another's meanwhile
            checkpoint("take.taken")
            attributes = {"host": lost.host.name, "target": target.name, "unheard": f"{case.unheard:.1f}"}
            self._tell(there, "take-over", attributes)
            return [f"{there.name} of host {lost.host.name}, which is lost, goes to host {target.name}"]
        return []

    def _waits(self, member: Opened, case: _Case, problem: str) -> list[str]:
        name, host = case.place.name, case.lost.host.name
        if not wills.tell(member.state, case.place.id, problem):
            return []
        self._tell(case.place, "lost", {"host": host, "why": problem})
        return [f"{name} of host {host}, which is lost, finds no place: {problem}"]

    def _tell(self, place: Place, action: str, attributes: dict[str, str]) -> None:
        self._record(Event(time.time(), "instance", place.id, action, place.name, attributes, tenant=place.tenant))

    def _record(self, event: Event) -> None:
        with self.context.journal.recording(event):
            pass


def wanted_of(place: Place, spec: Spec, *, host: str = "") -> Wanted:
    """What is to be started in a lost host's place, elsewhere than it is now. `host`: the one that has the copy of its
    disk.
    """
    return Wanted(
        id=spec.id,
        name=spec.name,
        need=views.need_of(spec.plan, spec.isolation),
        level=spec.isolation,
        tenant=spec.tenant,
        trusted=place.trusted,
        image=spec.image_digest,
        cpu_model=spec.cpu_model,
        labels=place.labels,
        requires=views.labels_of(place.where),
        terms=views.terms_of(place.where),
        host=host,
        avoid=frozenset({place.host}),
        priority=place.where.priority,
    )


def decide(seen: Seen, wanted: Wanted, *, heard: str, copy: Replica | None = None) -> Decision:
    """The room that is kept for the loss of a host is there for this, and so is that of the copy."""
    snapshot = replace(views.snapshot(seen, heard={heard}), spare=False)
    if copy is not None:
        room = Amounts(**copy.amounts)
        hosts = [replace(each, sold=each.sold - room) if each.id == copy.host else each for each in snapshot.hosts]
        snapshot = replace(snapshot, hosts=tuple(hosts))
    policy = seen.fleet.policy if seen.fleet else "balance"
    if len(snapshot.hosts) <= MOST_INDEXED:
        return judge(snapshot, wanted, policy)
    from bulkhead.cluster.index import Index

    return Index(snapshot.hosts, spare=False).place(wanted, policy)


def refused(decision: Decision, *, examples: bool = True) -> str:
    """Why no host will do; `examples`: with the name of one for each reason, and what is sold there."""
    total = sum(decision.counts.values())
    found = []
    for rule, count in decision.counts.items():
        example = decision.examples[rule]
        such = f", such as {example.host}: {example.reasons[0].what}" if examples else ""
        found.append(f"{count} of {total} hosts: {IN_WORDS[rule]}{such}")
    return "; ".join(found)
