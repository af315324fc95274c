"""What is where in the fleet, as this host's instances come and go.

The order of the two writes, the fleet's and the host's own, is design 0027's: a place is there before the instance is,
and is given back after the instance is gone. What a crash leaves between them `reconcile` mends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from bulkhead.amounts import Amounts
from bulkhead.engine import bundles
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import taking, views
from bulkhead.engine.fleet.fencing import Fence
from bulkhead.engine.fleet.identity import Opened
from bulkhead.errors import NotFound, Problem, Unavailable
from bulkhead.fleet import Phase, Place
from bulkhead.model import Address, Instance, Spec, State
from bulkhead.store import handing, reserving
from bulkhead.store.fleet import Seen, Stale
from bulkhead.store.overlays import Occupied
from bulkhead.where import Where

log = logging.getLogger(__name__)
RESERVED_SECONDS = 600.0
"""How long a reservation stands that nothing has come of."""
PASSING_SECONDS = 60.0
"""The same until the host that it is on has taken it over from the one that judged."""
_TRIES = 20
Weigh = Callable[[Spec], Amounts]
T = TypeVar("T")


class Places:
    """The fleet's side of this host's instances; nothing at all while it is in no fleet."""

    def __init__(self, weigh: Weigh) -> None:
        self._weigh = weigh
        self.member: Opened | None = None
        self.fence: Fence | None = None
        """What may run while the fleet is not heard of. The member hangs it here."""
        self.arriving: Callable[[], set[str]] = set
        """Ids of what has come from other hosts and is no instance yet."""
        self.leaving: Callable[[], set[str]] = set
        """Ids of instances that may be another host's by now, or have been removed there."""
        self.claims: Callable[[Spec], dict[str, Any]] = lambda _: {}
        """What an instance is to have of the fleet's networks, as a place says it."""
        self.address: Callable[[str, str], Address | None] = lambda _, __: None
        """Its address, of a network's key and the place's `ipv4`."""

    def reserve(self, spec: Spec) -> Address | None:
        """Take the name and the place, or that which was reserved for it; its address on a network of the fleet.

        Raises Conflict where the name is taken, Stale where the reservation is gone, Unavailable without the store.
        """
        member = self.member
        if member is None or not placed(spec):
            return None
        place = self._reserved(member, spec)
        return self.address(place.network, place.ipv4)

    def _reserved(self, member: Opened, spec: Spec) -> Place:
        place = self._place(spec, member.identity.id, until=time.time() + RESERVED_SECONDS)
        taken = taking.current()
        if taken is not None and taken.recovering:
            return taken.place
        if taken is not None and taken.place.key == place.key:
            place = place.model_copy(update={"until": taken.place.until, "ipv4": taken.place.ipv4})
            if place != taken.place:  # a warm guest's id, or what only this host knows of the image
                taken.place = reserving.restate(member.state, taken.place, place)
            return taken.place
        for _ in range(_TRIES):
            sold = member.state.seen_sold(place.host)
            try:
                return member.state.reserve(place, scored=sold.version)
            except Stale:
                continue  # another of this host's own: room is judged by the host itself
        raise Unavailable("the fleet's store changes faster than a place can be taken", hint="try again")

    def confirm(self, spec: Spec) -> None:
        """The instance is there. Where the fleet cannot be told now, the next look over all of them tells it."""
        if (taken := taking.current()) is not None and taken.place.id == spec.id:
            taken.made = True
        if self.member is None or not placed(spec) or _is_recovering(spec):
            return
        try:
            self.member.state.confirm(spec.id)
        except Unavailable as error:
            log.warning("the fleet is told later that %s is there: %s", spec.name, error)

    def release(self, spec: Spec) -> None:
        """The instance is gone. Idempotent; where the fleet cannot be told now, it is told later."""
        if self.member is None or not placed(spec) or _is_recovering(spec):
            return
        try:
            self.member.state.release(spec.id, host=self.member.identity.id)
        except Unavailable as error:
            log.warning("the fleet is told later that %s is gone: %s", spec.name, error)

    @contextmanager
    def fine_if_gone(self, spec: Spec) -> Iterator[None]:
        """That an instance is not there any more is fine, but for one that another host has by now: NotFound."""
        try:
            yield
        except NotFound:
            member = self.member
            place = handing.place_of(member.state, spec.id) if member is not None and placed(spec) else None
            if place is not None and member is not None and place.host != member.identity.id:
                raise

    def require_here(self, bundle: Path, spec: Spec) -> None:
        """Before a start: raise Conflict where the instance may be another host's by now, Unavailable."""
        bundles.require_here(bundle)
        if self.fence is not None:
            self.fence.admit(spec)

    def may_run(self, instance: Instance) -> bool:
        """Whether a restart is to be tried. What waits for the lease is started when that is held."""
        return self.fence is None or self.fence.may_run(instance.spec)

    def launching(self, spec: Spec, on_launch: Callable[[Path], None] | None) -> Callable[[Path], None]:
        """What is called just before the workload runs: the same once more, since time has passed."""

        def launch(agent: Path) -> None:
            if self.fence is not None:
                self.fence.require(spec)
            if on_launch:
                on_launch(agent)

        return launch

    def take_over(self, instance_id: str) -> Place:
        """Answer for what another host has reserved here. Raises Stale where it is gone, Unavailable."""
        member = self.member
        if member is None:
            raise Stale("this host is in no fleet any more")
        until = time.time() + RESERVED_SECONDS
        place = reserving.claim(member.state, instance_id, host=member.identity.id, until=until)
        checkpoint("place.taken")
        return place

    def giving_back(self, work: Callable[[], T]) -> T:
        """What `work` makes, in the place that this request was given; where it fails, nobody waits for that place."""
        try:
            return work()
        except BaseException:
            taken = taking.current()
            if taken is not None and not taken.made and self.member is not None:
                with suppress(Unavailable):
                    self.member.state.release(taken.place.id, host=self.member.identity.id)
            raise

    def problems(self, where: Where) -> list[Problem]:
        """What cannot be kept of where an instance is to be."""
        if self.member is not None or not where.given:
            return []
        hint = "leave it out; bulkhead cluster init begins a fleet"
        return [Problem(f"{', '.join(where.given)} decides nothing: this host is in no fleet", hint)]

    def reconcile(self, instances: Callable[[], list[Instance]], *, began: float) -> list[str]:
        """Make the fleet's record of this host agree with what the host has; what had to be mended, in words.

        `began`: when this daemon did, in seconds since the epoch. What was reserved earlier nobody makes any more.
        """
        member = self.member
        if member is None:
            return []
        own, mended = member.identity.id, []
        # The fleet first: what is confirmed there is here already, so nothing that has just been made looks lost.
        seen = member.state.seen()
        recorded = {place.id: place for place in seen.places}
        # Before the instances, which those become, and of which these may be erased.
        arriving, leaving = self.arriving(), self.leaving()
        records = [each for each in instances() if placed(each.spec)]
        there = {each.spec.id: each for each in records if each.state is not State.CREATING}
        making = {each.spec.id for each in records if each.state is State.CREATING}
        going = {each.spec.id for each in records if each.state is State.DELETING} | leaving
        for instance_id, instance in there.items():
            if instance_id not in going:
                mended += self._mend(member, instance, recorded.get(instance_id))
        for place in recorded.values():
            if place.host != own or place.id in there or place.id in making or place.id in arriving:
                continue
            if place.phase is Phase.PLACED:
                member.state.release(place.id, host=own)
                mended.append(f"{place.name} is not on this host (any more)")
        return mended + _expired(member, seen, making={*there, *making, *arriving}, began=began)

    def _mend(self, member: Opened, instance: Instance, place: Place | None) -> list[str]:
        spec = instance.spec
        amounts = self._weigh(spec)
        if place is None:
            ipv4 = instance.kept_address.ipv4 if instance.kept_address else ""
            known = {"phase": Phase.PLACED, "ipv4": ipv4}
            try:
                if member.state.adopt(self._place(spec, member.identity.id, until=0.0).model_copy(update=known)):
                    return [f"{spec.name} was not in the fleet's record"]
            except Occupied as error:
                return [f"{spec.name} is not in the fleet's record: {error.what}"]
            return [f"the name {spec.name} is another instance's in the fleet: rename or remove one of them"]
        if place.host != member.identity.id:
            return []
        if place.phase is Phase.RESERVED:
            member.state.confirm(spec.id)
        if Amounts(**place.amounts) != amounts:
            member.state.resize(spec.id, amounts)
        return []

    def _place(self, spec: Spec, host: str, *, until: float) -> Place:
        return Place(
            id=spec.id,
            name=spec.name,
            tenant=spec.tenant,
            host=host,
            level=spec.isolation,
            image=spec.image,
            amounts=self._weigh(spec).as_dict(),
            labels=dict(spec.labels),
            until=until,
            by=host if until else None,
            trusted=_trusted(spec),
            where=spec.where,
            cpu_model=spec.cpu_model,
            **self.claims(spec),
        )


def _is_recovering(spec: Spec) -> bool:
    taken = taking.current()
    return taken is not None and taken.recovering and taken.place.id == spec.id


def _trusted(spec: Spec) -> bool:
    choice = spec.choice
    hostile = choice is not None and choice.hostile_input
    return views.trusted(spec.tenant, choice.trust if choice else None, hostile_input=hostile)


def _expired(member: Opened, seen: Seen, *, making: set[str], began: float) -> list[str]:
    """Drop reservations of which nothing comes any more: those that this host answers for, and of hosts that are gone.

    What another host has judged a moment ago is on its way here, whenever this daemon has begun.
    """
    own, now, mended = member.identity.id, time.time(), []
    for place in seen.places:
        if place.phase is not Phase.RESERVED or place.id in making:
            continue
        forgotten = place.by == own and place.until - RESERVED_SECONDS < began
        mine = place.host == own and (forgotten or place.until <= now)
        # Its host may be slow, and its clock another.
        left = place.host not in seen.alive and place.until + RESERVED_SECONDS <= now
        if (mine or left) and reserving.expire(member.state, place):
            mended.append(f"nothing has come of the place that was reserved for {place.name}")
    return mended


def placed(spec: Spec) -> bool:
    """Whether an instance has a place of its own: what a build runs has none, nor what others are made for."""
    return not (spec.build or spec.only_for or spec.inside)
