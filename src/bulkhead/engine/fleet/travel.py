"""Moves between this host and the others: the verbs, and what a crash has left open of them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from bulkhead.engine.context import Context
from bulkhead.engine.fleet import balancing, emptying, loads, parcels
from bulkhead.engine.fleet.arriving import Arrivals
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.balancing import Aim
from bulkhead.engine.fleet.commissioning import Commission
from bulkhead.engine.fleet.expecting import Expected
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.judging import Judge
from bulkhead.engine.fleet.leaving import Departures
from bulkhead.engine.fleet.living import Living
from bulkhead.engine.fleet.loss import Loss
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.engine.plans import Plans
from bulkhead.errors import BulkheadError, Conflict, Forbidden, Refused
from bulkhead.events import Progress
from bulkhead.fleet import Host, HostState, Load
from bulkhead.isolation.migration import To
from bulkhead.moves import (
    Drained,
    Inquiry,
    Judgement,
    Moved,
    Objection,
    Parcel,
    Rebalanced,
    Receipt,
    Settled,
    Wanted,
)
from bulkhead.store.fleet import Seen
from bulkhead.tenancy.principal import Principal

if TYPE_CHECKING:
    from bulkhead.engine.fleet.member import Member

log = logging.getLogger(__name__)


class Travels:
    """Both directions. `look` is carried out again and again, by a thread that goes on with the daemon alone."""

    def __init__(self, context: Context, lifecycle: Lifecycle, member: Member, plans: Plans) -> None:
        self._context, self._member = context, member
        expected = Expected(context, lifecycle)
        self.judge = Judge(context, plans, member.images, expected)
        self.arrivals = Arrivals(context, lifecycle, self.judge.bring, expected)
        self.loss = Loss(context, lifecycle, member.fence, judge=self.judge, arrivals=self.arrivals, peer=self._peer)
        self.departures = Departures(context, lifecycle, Living(context), self._peer)
        context.places.arriving = self.arrivals.ids
        context.places.leaving = lambda: self.departures.ids() | self.loss.remains()
        context.coming.append(self.arrivals.amounts)
        context.fleet_networks.presences.names_changed = lifecycle.resources.update_names
        self._thread: threading.Thread | None = None
        self._fresh = True

    def _peer(self, host: Host) -> Peer:
        return Peer(host, self._member.tls())

    # --- verbs

    def move(self, ref: str, host: str, wanted: Wanted, *, dry_run: bool, progress: Progress) -> Moved:
        """Let an instance of this host be on another one. See `Departures.move`."""
        opened = self._member.opened()
        instance = self._context.state.find(ref)
        target = self._member.host(host)
        return self.departures.move(opened, instance.spec.id, target, wanted, dry_run=dry_run, progress=progress)

    def empty(self, *, deadline: float, dry_run: bool, progress: Progress) -> Drained:
        """Let this host take nothing new, and everything that is there be on others."""

        def carry(instance_id: str, target: str, progress: Progress) -> Moved:
            return self.move(instance_id, target, Wanted(way="any"), dry_run=False, progress=progress)

        own = {load.id: load for load in self.loads()}
        return emptying.empty(self._member.opened(), carry, own, deadline=deadline, dry_run=dry_run, progress=progress)

    def balance(self, aim: Aim, *, principal: Principal, progress: Progress) -> Rebalanced:
        """Let the hosts of the fleet be more alike, or free whole ones, for whoever asked here."""
        member, opened = self._member, self._member.opened()
        own = opened.identity.id

        def carry(instance_id: str, source: Host, target: str, progress: Progress) -> Moved:
            if source.id == own:
                return self.move(instance_id, target, Wanted(way="any"), dry_run=False, progress=progress)
            return Commission(source, member.tls(), principal).move(instance_id, target, progress)

        def measure(seen: Seen) -> tuple[dict[str, Load], list[str]]:
            others = [host for host in seen.hosts if host.id != own and host.id in seen.alive]
            found, unheard = loads.of_others(others, member.tls())
            return found | {load.id: load for load in self.loads()}, unheard

        def mark(host_id: str, state: HostState) -> None:
            opened.state.change_host(host_id, lambda host: host.model_copy(update={"state": state}))

        return balancing.balance(balancing.Fleetwide(opened.state.seen, measure, carry, mark), aim, progress)

    def loads(self) -> list[Load]:
        """What this host's instances take and use."""
        self._member.opened()
        return loads.own(self._context)

    def judged(self, inquiry: Inquiry, stream: BinaryIO) -> Judgement:
        """What this host says of an instance that is to come; takes the padding as it would take its disk."""
        self._member.opened()
        began = time.monotonic()
        parcels.measure(stream, inquiry.padding, self._context.config.state_dir)
        judgement = self.judge.judge(inquiry, seconds=time.monotonic() - began)
        if not self.arrivals.is_coming(inquiry.spec.id):
            return judgement
        # What was cut off is noticed after a while only.
        busy = Objection(what=f"{inquiry.spec.name} is arriving there already", hint="try again in a minute")
        return judgement.model_copy(update={"objections": (*judgement.objections, busy)})

    def receive(self, instance_id: str, parcel: Parcel, stream: BinaryIO, *, source: str) -> Receipt:
        """Take in what another host sends."""
        if parcel.instance.spec.id != instance_id:
            raise Refused(f"what is sent as {instance_id} is another instance")
        return self.arrivals.receive(self._member.opened(), parcel, stream, source=source)

    def opened(self, instance_id: str, move: str, to: To, *, source: str) -> socket.socket:
        """The end of a stream in a machine that waits here for another host's."""
        return self.arrivals.opened(self._member.opened(), instance_id, move, to, source=source)

    def complete(self, instance_id: str, move: str, log: BinaryIO, *, source: str) -> Receipt:
        """All of a machine has been sent: see that it is here."""
        return self.arrivals.complete(self._member.opened(), instance_id, move, log, source=source)

    def settle(self, instance_id: str, move: str) -> Settled:
        """Make an instance of what has arrived. Raises Conflict where it is not this host's."""
        settled = self.arrivals.settle(self._member.opened(), instance_id, move)
        if settled is None:
            raise Conflict(f"instance {instance_id[:12]} is not this host's")
        return settled

    # --- again and again

    def look(self, opened: Opened) -> None:
        """Settle what is open, in a thread of its own: a start may take longer than this host can be silent."""
        self.loss.look(opened)
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._look, args=(opened,), name="moves", daemon=True)
        self._thread.start()

    def _look(self, opened: Opened) -> None:
        works: list[Callable[[], list[str]]] = [
            *([self.arrivals.finish_all] if self._fresh else []),
            lambda: self.arrivals.look(opened),
            lambda: self.departures.look(opened),
        ]
        self._fresh = False
        for work in works:
            try:
                for told in work():
                    log.info("moves: %s", told)
            except BulkheadError as error:
                log.warning("moves: %s", error)
            except Exception:
                log.exception("moves")

    def close(self) -> None:
        """Wait for what is being settled."""
        self.loss.close()
        if self._thread is not None:
            self._thread.join()


def require_host(name: str) -> str:
    """The id in the name of a host's certificate. Raises Forbidden for whoever else asks."""
    from bulkhead.fleet import CERTIFICATE_PREFIX

    host = name.removeprefix(CERTIFICATE_PREFIX)
    if host == name:
        raise Forbidden("this is for hosts of the fleet alone", hint="bulkhead move NAME --host HOST")
    return host
