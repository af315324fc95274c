"""This host in its fleet, while the daemon runs: it says that it lives, keeps the fleet's record of it right, and
remembers the fleet as it saw it last, for when the fleet's store does not answer.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bulkhead.engine.context import Context
from bulkhead.engine.fleet import absences, taking
from bulkhead.engine.fleet.fencing import Fence
from bulkhead.engine.fleet.identity import Coordinates, Identity, Opened
from bulkhead.engine.fleet.images import Fetcher
from bulkhead.engine.fleet.membership import Membership, OpenStore, Welcome, Wish, host_lines, require_processor
from bulkhead.engine.fleet.placing import Placer
from bulkhead.errors import BulkheadError, Conflict, NotFound, Unavailable
from bulkhead.fleet import LEASE_SECONDS, FleetView, Host, HostLine, Phase, Place, Policy, ReplicaLine
from bulkhead.host import peers
from bulkhead.model import Instance, State
from bulkhead.store import replicas, wills
from bulkhead.store.abilities import Hurries, Lease, Leases, Watches
from bulkhead.store.fleet import Seen, pick_host
from bulkhead.store.following import Following
from bulkhead.store.state import within

if TYPE_CHECKING:
    from bulkhead.engine.fleet.travel import Travels

log = logging.getLogger(__name__)
T = TypeVar("T")
INTERVAL_SECONDS = 3.0
NO_FLEET = "this host is in no fleet"
HINT = "bulkhead cluster init begins one, bulkhead cluster join TOKEN joins one"


@dataclass(frozen=True, slots=True)
class View:
    """The fleet as it was seen `when` (seconds since the epoch); `error`: why it is not seen now, "" where it is."""

    seen: Seen
    when: float
    error: str = ""


class Member:
    """The fleet as the rest of the daemon asks for it."""

    def __init__(self, context: Context, *, open_store: OpenStore) -> None:
        self._context = context
        self.membership = Membership(context, open_store=open_store)
        self.fence = context.places.fence = Fence()
        self._interval = INTERVAL_SECONDS
        self._began = time.time()
        self._opened: Opened | None = None
        self._view: View | None = None
        self._silent = ""
        """Why the fleet's store did not answer when it was asked last; "" where it did."""
        self._tls: tuple[str, ssl.SSLContext] | None = None
        self.placer = Placer(context, member=self.opened)
        self.images = Fetcher(others=self.others, tls=self.tls)
        self._stop, self._soon = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.travels: Travels
        """Moves to and from this host. The engine hangs it here."""
        self.changed: Callable[[Identity | None], None] = lambda _: None
        """Told when this host joins or leaves: the listener for other hosts hangs here."""

    # --- the daemon's begin and end

    def open(self) -> None:
        """Be the member that this host is; nothing where it is none."""
        self.travels.arrivals.recover()
        self.travels.loss.recover()
        opened = self.membership.open()
        if opened is not None:
            self._begin(opened)
        else:
            self._context.fleet_networks.forget()

    def hurry(self) -> None:
        """The daemon is about to end: nobody waits for a store that does not answer. What is left open by it is found
        by the next daemon, as after a crash.
        """
        if self._opened is not None and isinstance(self._opened.state.store, Hurries):
            self._opened.state.store.hurry()

    def close(self) -> None:
        """Say no more that this host lives. Its lease runs out by itself: its instances run on."""
        self.hurry()
        self._end()

    def _begin(self, opened: Opened) -> None:
        if isinstance(opened.state.store, Watches):
            opened.state.following = Following(opened.state.store)
            opened.state.following.begin()
        self._opened = self._context.places.member = opened
        self._stop.clear()
        self.fence.begin(opened, self._context.config, self._context.layout)
        self._thread = threading.Thread(target=self._keep, args=(opened,), name="fleet", daemon=True)
        self._thread.start()
        self._context.fleet_networks.open(opened)

    def _end(self) -> None:
        opened, self._opened, self._context.places.member = self._opened, None, None
        self._stop.set()
        self._soon.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.travels.close()
        self._context.fleet_networks.close()
        self.fence.end()
        if opened is not None:
            if opened.state.following is not None:
                opened.state.following.close()
            opened.state.store.close()
        self._view, self._silent = None, ""

    # --- verbs

    @property
    def identity(self) -> Identity | None:
        """Who this host is in its fleet; None where it is in none."""
        return self._opened.identity if self._opened else None

    def init(
        self,
        *,
        fleet: str,
        name: str | None,
        address: str,
        store: Coordinates,
        policy: Policy = "balance",
        lease: float = LEASE_SECONDS,
        cpu_baseline: str = "",
    ) -> Identity:
        """Make a fleet with this host as its first."""
        identity = self.membership.init(
            fleet=fleet, name=name, address=address, store=store, policy=policy, lease=lease, cpu_baseline=cpu_baseline
        )
        self._came(identity)
        return identity

    def join(self, token: str, *, name: str | None, address: str) -> Identity:
        """Join the fleet of a token."""
        identity = self.membership.join(token, name=name, address=address)
        self._came(identity)
        return identity

    def _came(self, identity: Identity) -> None:
        self.open()
        self.changed(identity)

    def leave(self) -> None:
        """Be in no fleet any more. Raises Conflict while something is placed here."""
        opened = self.opened()
        self.membership.leave(opened)
        self._end()
        self._context.fleet_networks.forget()
        self.changed(None)

    def invite(self, *, seconds: float, by: str) -> str:
        """A token with which one host can join."""
        return self.membership.invite(self.opened(), seconds=seconds, by=by)

    def admit(self, wish: Wish) -> Welcome:
        """Take in a host that shows a good token."""
        welcome = self.membership.admit(self.opened(), wish)
        self._soon.set()
        return welcome

    def authority(self) -> str:
        """The certificate (PEM) that signs those of the hosts."""
        self.opened()
        return self.membership.files.authority.read_text()

    def status(self) -> FleetView:
        """The fleet as it is seen from here."""
        opened, view = self.opened(), self.view()
        record = view.seen.fleet or opened.state.fleet()
        records = absences.Records.of(None if view.error else opened.state)
        return FleetView(
            fleet=opened.identity.fleet,
            id=opened.identity.fleet_id,
            host=opened.identity.name,
            hosts=self._lines(view.seen),
            instances=len(view.seen.places),
            policy=record.policy,
            spare=record.spare,
            cpu_baseline=record.cpu_baseline,
            seen=view.when,
            error=view.error,
            lease=record.lease,
            waiting=absences.waiting(view.seen, absences.silent(view.seen), records, lost=self._lost()),
            taken=absences.taken(view.seen, records),
        )

    def change(self, **changes: object) -> None:
        """Write the fleet's own record anew. Raises Unavailable, Refused for a processor that no host can run."""
        if model := str(changes.get("cpu_baseline", "")):
            require_processor(model, self.view().seen.hosts)
        self.opened().state.change_fleet(**changes)

    def giving_back(self, work: Callable[[], T]) -> T:
        """What `work` makes; where it fails after its request was answered, the place that it had is free."""
        return work() if taking.current() is None else self._context.places.giving_back(work)

    def take_over(self, instance_id: str) -> Place:
        """Answer for what another host has reserved here. Raises Stale."""
        return self._context.places.take_over(instance_id)

    def hosts(self) -> list[HostLine]:
        """Every host."""
        return self._lines(self.view().seen)

    def _lines(self, seen: Seen) -> list[HostLine]:
        return host_lines(seen, self.opened().identity.id, self.travels.loss.unheard())

    def _lost(self) -> set[str]:
        return {host for host, (_, lost) in self.travels.loss.unheard().items() if lost}

    def absent(self, missing: Collection[str], *, tenant: str | None) -> list[dict[str, Any]]:
        """Instances on hosts (ids) that did not answer, and those that are about to start in their place, as lines of a
        list: by the fleet's records, as they were seen last.
        """
        opened, view = self.opened(), self._view
        if view is None or not (missing or any(place.phase is Phase.RECOVERING for place in view.seen.places)):
            return []
        records, seen = absences.Records.of(None if self._silent else opened.state), view.seen
        places, hosts = {place.id: place for place in seen.places}, {host.id: host for host in seen.hosts}
        found = absences.waiting(seen, missing, records, lost=self._lost())
        return [
            absences.line(each, places[each.id], records.wills.get(each.id), hosts.get(places[each.id].host))
            for each in found
            if tenant in (None, each.tenant)
        ]

    def hears(self, host: Host) -> bool:
        """Whether a host was heard of when the fleet was seen last."""
        return self._view is None or host.id in self._view.seen.alive

    def host(self, reference: str) -> Host:
        """One host by name or id. Raises NotFound, Conflict."""
        return pick_host(list(self.view().seen.hosts), reference)

    def replicas(self) -> list[ReplicaLine]:
        """Every replica, by the names of their instances. Raises Unavailable."""
        state = self.opened().state
        seen, records = state.seen(), replicas.all_of(state)
        names, places = {host.id: host.name for host in seen.hosts}, {place.id: place for place in seen.places}
        lines = [
            ReplicaLine(**dict(each), source=names[places[each.id].host], target=names[each.host])
            for each in records.values()
            if each.id in places and each.host in names and places[each.id].host in names
        ]
        return sorted(lines, key=lambda line: (line.tenant, line.name))

    def change_host(self, reference: str, change: Callable[[Host], Host]) -> Host:
        """Write a host's record anew. Raises NotFound, Unavailable."""
        opened = self.opened()
        changed = opened.state.change_host(self.host(reference).id, change)
        self._soon.set()
        return changed

    def forget_host(self, reference: str, *, force: bool = False) -> None:
        """Take a host out that is gone for good, with `force` all that is placed there as well.

        Raises Conflict for one that lives, or where something is placed.
        """
        opened, view = self.opened(), self.view()
        host = pick_host(list(view.seen.hosts), reference)
        if host.id in view.seen.alive:
            raise Conflict(f"host {host.name} lives", hint=f"bulkhead cluster leave on {host.name} itself")
        if force:
            for place in opened.state.seen().places:
                if place.host == host.id:
                    opened.state.release(place.id, host=host.id)
        opened.state.leave(host.id, hint=f"bulkhead host rm --force {host.name} gives them up with it")

    # --- who is where

    def view(self) -> View:
        """The fleet now; as it was seen last where its store does not answer, which is not waited for each time."""
        opened = self.opened()
        if self._view is not None and self._silent:
            return View(self._view.seen, self._view.when, self._silent)
        try:
            self._view = View(opened.state.seen(), time.time())
        except Unavailable as error:
            if self._view is None:
                raise
            return View(self._view.seen, self._view.when, error.what)
        return self._view

    def elsewhere(self, reference: str, *, tenant: str | None) -> Host | None:
        """The other host that has an instance; None where none has, or this one. While the fleet's store does not
        answer, as it was seen last. Raises Conflict, and Unavailable where nobody knows of it.
        """
        if self._opened is None:
            return None
        try:
            return self.where(reference, tenant=tenant)
        except Unavailable as error:
            seen = self._view.seen if self._view else None
            place = _among(seen.places, reference, tenant) if seen else None
            if seen is None or place is None:
                what = f"{reference} is not on this host, and whether another one has it cannot be asked: {error.what}"
                raise Unavailable(what, hint=error.hint) from error
            return None if place.host == self._opened.identity.id else pick_host(list(seen.hosts), place.host)

    def where(self, reference: str, *, tenant: str | None) -> Host | None:
        """The same as it is now. Raises Conflict, Unavailable."""
        opened = self.opened()
        place = opened.state.find(reference, tenant=tenant)
        if place is None or place.host == opened.identity.id:
            return None
        return pick_host(opened.state.hosts(), place.host)

    def left_for(self, instance: Instance) -> Host | None:
        """The host that an instance has moved to, whose copy here is about to go; None where it is this host's."""
        if self._opened is None:
            return None
        if instance.state is not State.DELETING and not self.travels.departures.is_leaving(instance.spec.id):
            return None
        with suppress(Unavailable):  # then its copy here is what is known of it
            return self.where(instance.spec.id, tenant=None)
        return None

    def await_arrival(self, reference: str, *, tenant: str | None) -> None:
        """Wait while an instance that has come to this host is none yet. Raises Unavailable."""
        if self._opened is not None:
            self.travels.arrivals.wait_for(reference, tenant=tenant)

    def others(self) -> list[Host]:
        """Every other host."""
        identity = self.identity
        return [host for host in self.view().seen.hosts if host.id != identity.id] if identity else []

    def tls(self) -> ssl.SSLContext:
        """What this host asks the others with. Made once: reading certificates takes longer than a request."""
        identity, files = self.opened().identity, self.membership.files
        if self._tls is None or self._tls[0] != identity.id:
            authority = files.authority.read_text()
            self._tls = identity.id, peers.verified(authority, certificate=files.certificate, key=files.key)
        return self._tls[1]

    def knows(self, host_id: str) -> bool:
        """Whether a certificate's host is a member (still)."""
        view = self._view
        if view is not None and any(host.id == host_id for host in view.seen.hosts):
            return True
        return any(host.id == host_id for host in self.view().seen.hosts)

    def opened(self) -> Opened:
        """This host as a member. Raises NotFound where it is none."""
        if self._opened is None:
            raise NotFound(NO_FLEET, hint=HINT)
        return self._opened

    # --- saying that it lives

    def _keep(self, opened: Opened) -> None:
        lease: Lease | None = None
        said = ""
        while not self._stop.is_set():
            self._soon.clear()
            try:
                lease = self._renew(opened, lease)
                for mended in self._context.places.reconcile(self._context.state.instances, began=self._began):
                    log.info("fleet: %s", mended)
                self.travels.look(opened)
                self._view = View(opened.state.seen(), time.time())
                said = self._silent = ""
            except BulkheadError as error:
                self._silent = error.what if isinstance(error, Unavailable) else ""
                if error.what != said:
                    log.warning("the fleet's store: %s", error.what)
                said = error.what
            except Exception:  # or this host would say no more that it lives, and nobody why
                log.exception("the fleet")
            self._soon.wait(self._interval)

    def _renew(self, opened: Opened, lease: Lease | None) -> Lease | None:
        """Be alive by a lease, and keep the record of what this host is and can."""
        store, host_id = opened.state.store, opened.identity.id
        if not isinstance(store, Leases):
            return None
        if lease is None or lease.lost.is_set():
            facts, seconds = self.membership.facts(), opened.state.fleet().lease
            with ExitStack() as undo:
                lease = store.grant(seconds)
                undo.callback(lease.revoke)
                opened.state.change_host(host_id, lambda host: host.model_copy(update=facts))
                wills.appear(opened.state, host_id, f"{time.time()}", lease)
                self.fence.adopt(lease)
                undo.pop_all()
            self._interval = min(INTERVAL_SECONDS, seconds / 3)
        return lease


def _among(places: Iterable[Place], reference: str, tenant: str | None) -> Place | None:
    key = within(tenant, reference)
    for place in places:
        if tenant in (None, place.tenant) and (place.key == key or place.id == reference):
            return place
    return None
