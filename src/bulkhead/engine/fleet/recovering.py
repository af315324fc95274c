"""What was taken from a lost host is made here; and when this host is heard of again after it was lost, what others
have taken goes, and what nobody has goes on. See design 0032.

Each step is found again by whoever comes after a crash: a place that is `recovering` is made and started before it is
`placed`; a record of remains stands until the copy here is erased.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from bulkhead.engine import records, restarts
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.arriving import Arrivals
from bulkhead.engine.fleet.copies import Copies
from bulkhead.engine.fleet.fencing import Fence, is_fenced
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.losing import decide, wanted_of
from bulkhead.engine.fleet.taking import taking
from bulkhead.engine.lifecycle import LOST, Lifecycle
from bulkhead.errors import BulkheadError, CommandNotExecutable, CommandNotFound, Conflict, NotFound
from bulkhead.fleet import Phase, Place, Will
from bulkhead.model import Instance, Spec, State
from bulkhead.moves import Inquiry, Judgement
from bulkhead.store import handing, replicas, wills
from bulkhead.store.abilities import Lease
from bulkhead.store.fleet import Stale
from bulkhead.store.wills import Passing

log = logging.getLogger(__name__)
Judge = Callable[[Inquiry], Judgement]
REST_SECONDS = 30.0
"""After every host has been asked to make something; then it is begun again."""
TRIES = 20
STILL = (State.CREATED, State.EXITED)
ALIVE = (State.RUNNING, State.PAUSED)


@dataclass(slots=True)
class Recoveries:
    """Those of this host. One thread uses it."""

    context: Context
    lifecycle: Lifecycle
    fence: Fence
    arrivals: Arrivals
    copies: Copies
    judge: Judge
    """What stands in the way of an instance here, with its image fetched. Raises Refused, NoImage."""
    _told: dict[str, tuple[Spec, bool]] = field(default_factory=dict)
    """What the fleet knows of each instance: its spec, whether it is to run."""
    _lease: Lease | None = None
    """Under which this host has looked after all that does not run any more."""
    _rest: dict[str, float] = field(default_factory=dict)
    """Until when (monotonic) what no host could make is left alone."""

    def look(self, member: Opened) -> list[str]:
        """Everything that is to be done now. Says what was."""
        lease = self.fence.held()
        if lease is None:
            return []
        fresh, self._lease = lease is not self._lease, lease
        told = self._erase_remains(member) + self._go_on(member, fresh=fresh)
        self._keep(member, fresh=fresh)
        return told + self._recover(member)

    # --- what was taken from here

    def remains(self, member: Opened) -> set[str]:
        """Ids of what others have taken."""
        return set(wills.remains(member.state, member.identity.id))

    def _erase_remains(self, member: Opened) -> list[str]:
        own, told = member.identity.id, []
        for instance_id in wills.remains(member.state, own):
            checkpoint("return.begin")
            with self.context.locks.hold(instance_id):
                instance = self._found(instance_id)
                if instance is not None:
                    self._erase(instance)
                    told.append(
                        f"{instance.spec.name} was started elsewhere while this host was lost, its copy is gone"
                    )
                checkpoint("return.erased")
                wills.forget_remains(member.state, own, instance_id)
                checkpoint("return.forgotten")
                self.fence.guard.disarm(instance_id)
        return told

    def _erase(self, instance: Instance) -> None:
        place = Place(
            id=instance.spec.id,
            name=instance.spec.name,
            tenant=instance.spec.tenant,
            host="0" * 32,
            level=instance.spec.isolation,
            amounts={},
        )
        if instance.state in ALIVE:
            instance = self.lifecycle.stop(instance, timeout=0, signal="SIGKILL")
        with taking(place, recovering=True):  # wherever it is, its place stays
            self.lifecycle.delete(instance)

    # --- what was ended here and has been taken by nobody

    def _go_on(self, member: Opened, *, fresh: bool) -> list[str]:
        """`fresh`: this host is heard of again, and restart policies have waited for that."""
        told, ended = [], self.fence.guard.fenced()
        if fresh:
            ended |= {each.spec.id for each in self._own() if _is_to_run(each)}
        for instance_id in ended:
            with self.context.locks.hold(instance_id):
                instance = self._found(instance_id)
                if instance is None or instance.stop_requested:
                    self.fence.guard.disarm(instance_id)
                elif instance.state in STILL:
                    told += self._start_again(member, instance)
        return told

    def _start_again(self, member: Opened, instance: Instance) -> list[str]:
        place, name = handing.place_of(member.state, instance.spec.id), instance.spec.name
        if place is None or (place.host, place.phase) != (member.identity.id, Phase.PLACED):
            return []  # what is recovering is seen to below
        try:
            self.lifecycle.start(instance)
        except BulkheadError as error:
            if self.fence.held() is None:
                return []
            self._disarm_ended(instance.spec.id)
            return [f"{name} was ended while this host was not heard of, and could not be started again: {error.what}"]
        return [f"{name} was ended while this host was not heard of, and runs again"]

    # --- what the fleet is to know

    def _keep(self, member: Opened, *, fresh: bool) -> None:
        """Let the fleet know what is to be started elsewhere, and the guard what it is about."""
        fenced = self.fence.guard.fenced()
        for instance in self._own():
            spec = instance.spec
            if instance.state not in (*STILL, *ALIVE):
                continue
            runs = instance.pid != 0 or spec.id in fenced or restarts.wanted(instance)
            due = fresh or spec.id in self.fence.begun
            if not due and (self._told.get(spec.id) == (spec, runs) or not (runs or spec.id in self._told)):
                continue
            if wills.note(member.state, spec, host=member.identity.id, runs=runs):
                self._told[spec.id] = (spec, runs)
                self.fence.begun.discard(spec.id)
        for instance_id in self.fence.guard.armed():
            self._disarm_ended(instance_id)

    def settle(self) -> None:
        """When the daemon ends: the guard need not stay for what does not run any more and is not to."""
        for instance_id in self.fence.known():
            if instance_id not in self.fence.guard.fenced() or self._found(instance_id) is None:
                self._disarm_ended(instance_id)

    def _disarm_ended(self, instance_id: str) -> None:
        """Nothing of it runs: there is nothing to end."""
        with self.context.locks.hold(instance_id):
            found = self._found(instance_id)
            if found is None or found.state in STILL:
                self.fence.guard.disarm(instance_id)

    # --- what was taken from others

    def _recover(self, member: Opened) -> list[str]:
        own, told = member.identity.id, []
        places = [each for each in member.state.seen().places if (each.host, each.phase) == (own, Phase.RECOVERING)]
        for place in sorted(places, key=lambda each: (-each.where.priority, each.name)):
            will = wills.of(member.state, place.id)
            rests = time.monotonic() < self._rest.get(place.id, 0.0)
            if will is None or rests or place.id in wills.remains(member.state, own):
                continue
            with self.context.locks.hold(place.id):
                try:
                    told += self._make(member, place, will)
                except BulkheadError as error:
                    told += self._refuse(member, place, will, error.what)
        return told

    def _refuse(self, member: Opened, place: Place, will: Will, why: str) -> list[str]:
        """It cannot be made here: another host is to try."""
        about = f"{place.name} of host {will.lost}, which is lost, cannot be made here: {why}"
        if place.where.on_host_loss != "recreate":
            return [about] if wills.tell(member.state, place.id, f"host {member.identity.name}: {why}") else []
        target = self._pass_on(member, place, will, why)
        if target:
            return [f"{about}; it goes on to host {target}"]
        refused = will.refused | {member.identity.name: why}
        self._rest[place.id] = time.monotonic() + REST_SECONDS
        wills.pass_on(member.state, place.id, None, by=member.identity.id, refused=refused)
        return [about]

    def _pass_on(self, member: Opened, place: Place, will: Will, why: str) -> str:
        """Let the next best host start what this one cannot, and does not run; its name, "" where there is none."""
        if place.where.on_host_loss != "recreate":  # the copy of its disk is here alone
            return ""
        there = self._found(place.id)
        if (there is not None and there.state not in (*STILL, State.CREATING, State.DELETING)) or not self.fence.held():
            return ""
        refused = will.refused | {member.identity.name: why}
        for _ in range(TRIES):
            seen = member.state.seen()
            avoid = {host.id for host in seen.hosts if host.name in refused or host.name == will.lost}
            wanted = wanted_of(place, will.spec)
            wanted = replace(wanted, avoid=wanted.avoid | avoid)
            chosen = decide(seen, wanted, heard=member.identity.id).chosen
            if chosen is None:
                return ""
            target = next(host for host in seen.hosts if host.id == chosen.id)
            passing = Passing(target.id, chosen.version, views.sold_there(wanted.need, target))
            with suppress(Stale):
                passed = wills.pass_on(member.state, place.id, passing, by=member.identity.id, refused=refused)
                return target.name if passed else ""
        return ""

    def _make(self, member: Opened, place: Place, will: Will) -> list[str]:
        checkpoint("recover.begin")
        spec, problem = will.spec, ""
        instance = self._found(spec.id)
        if instance is None:
            instance = self._created(place, spec)
            checkpoint("recover.created")
        if will.runs and instance.state in STILL:
            try:
                instance = self.lifecycle.start(instance)
            except BulkheadError as error:
                problem = error.what
                instance = self.context.state.get(spec.id)
                image = isinstance(error, CommandNotFound | CommandNotExecutable)  # it is the same everywhere
                if not image and (target := self._pass_on(member, place, will, problem)):
                    return [f"{spec.name} of host {will.lost} does not start here: {problem}; it goes to {target}"]
        if self.fence.held() is None:
            return []  # it is begun again
        checkpoint("recover.started")
        try:
            member.state.confirm(spec.id)
        except NotFound:
            raise Conflict(f"{spec.name} has been removed meanwhile") from None
        attributes = {"host": will.lost, "unheard": f"{will.unheard:.1f}"} | ({"why": problem} if problem else {})
        if (held := self.copies.held(spec.id)) is not None:
            attributes["copied"] = f"{held[0].shipment.at:.3f}"
            replicas.drop(member.state, spec.id)
        records.save(self.context, instance, "recover", attributes)
        checkpoint("recover.confirmed")
        told = f"{spec.name} of host {will.lost}, which is lost, "
        return [told + (f"is here, and could not be started: {problem}" if problem else "runs here")]

    def _created(self, place: Place, spec: Spec) -> Instance:
        """With the copy of its disk that is here, or with an empty one."""
        held = self.copies.held(spec.id) if spec.where.on_host_loss == "restart" else None
        if held is None and spec.where.on_host_loss == "restart":
            raise NotFound(f"the copy of the disk of {spec.name} is not on this host any more")
        self.copies.consume(spec.id)
        try:
            self.judge(Inquiry(spec=spec, size=0, fetch=True))
            if held is not None:
                return self.arrivals.restore(spec, held[0].shipment.layers, held[1])
            with taking(place, recovering=True):
                return self.lifecycle.create(spec, self.context.images.resolve(spec.image_digest))
        except BaseException:
            self.copies.recover()  # its room is not free
            raise

    # --- inside

    def _own(self) -> list[Instance]:
        return [each for each in self.context.state.instances() if is_fenced(each.spec)]

    def _found(self, instance_id: str) -> Instance | None:
        try:
            return self.context.state.get(instance_id)
        except NotFound:
            return None


def _is_to_run(instance: Instance) -> bool:
    """Whether it has ended by no will of its own, or is to run again."""
    return (instance.exit == LOST and not instance.stop_requested) or restarts.wanted(instance)
