"""An instance leaves for another host: a stop, its files sent, the fleet's record changed, its copy here erased.

What is under way is in its bundle (`leaving.json`), from before anything changes until it is known whose the instance
is. That is known from the fleet's record alone: it is the other host's once the record says so, in one transaction,
and until then this host's. See design 0030.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bulkhead.amounts import Amounts
from bulkhead.engine import bundles, machines, records
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import staying, views
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.living import Living, Sent
from bulkhead.engine.fleet.parcels import Sender
from bulkhead.engine.lifecycle import LOST, Lifecycle
from bulkhead.errors import BulkheadError, HostRefused, NotMoved, Problem, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.fleet import Host
from bulkhead.model import Exit, Instance, Isolation, State
from bulkhead.moves import Blueprint, Inquiry, Judgement, Leaving, Moved, Parcel, Passage, Receipt, Wanted
from bulkhead.storage import foreign
from bulkhead.store import handing

log = logging.getLogger(__name__)
START_SECONDS = 1.0
"""What a start is taken to last of which none is known."""


class Clock:
    """How long each phase of a move took, in seconds."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time this block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = time.monotonic() - began


@dataclass(frozen=True, slots=True)
class _Trip:
    """A move that nothing stands in the way of."""

    moved: Moved
    """As it is foreseen."""
    passage: Passage
    host: Host
    amounts: Amounts
    """What it takes there."""
    wanted: Wanted
    inquiry: Inquiry
    """With what is to be made there, of one that runs on meanwhile."""


@dataclass(slots=True)
class Departures:
    """Those of this host."""

    context: Context
    lifecycle: Lifecycle
    living: Living
    peer: Callable[[Host], Peer]
    _active: set[str] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def move(
        self, member: Opened, instance_id: str, host: Host, wanted: Wanted, *, dry_run: bool, progress: Progress
    ) -> Moved:
        """Let an instance be on another host. Raises Refused with every problem before anything changes, NotMoved
        where it has stayed, Unavailable where that is not known yet.
        """
        with self.context.locks.hold(instance_id), self._being_active(instance_id):
            instance = self.context.state.get(instance_id)
            progress(Step(f"asking host {host.name}"))
            trip = self._judge(member, instance, host, wanted)
            if dry_run:
                return trip.moved
            return self._carry_out(member, trip, progress)

    def _judge(self, member: Opened, instance: Instance, host: Host, wanted: Wanted) -> _Trip:
        context, own = self.context, member.identity
        problems = staying.problems(context, instance, host, here=own.id)
        theirs: list[Problem] = []
        size = context.disks.held(instance.spec.id, context.bundle_dir(instance) / bundles.DISK)
        machine, against = self._machine(instance, wanted)
        kernel = (machines.kernel_report(context, instance) or {}) if not instance.spec.powered else {}
        found = tuple(each for each in (kernel.get("name"), kernel.get("digest")) if each)
        inquiry = Inquiry(spec=instance.spec, size=size, kernels=found, machine=machine)
        judgement = None
        if host.id != own.id:
            try:
                judgement = self.peer(host).judge(inquiry)
                theirs += staying.objections(judgement)
                theirs += views.objections(member.state.seen(), instance.spec.id, host.id)
                against += [Problem(each.what, each.hint) for each in judgement.live]
            except Unavailable as error:
                theirs += error.problems
        if against and wanted.way != "any":
            problems += against
        if problems:
            raise Refused([*problems, *theirs])
        if theirs or judgement is None:
            raise HostRefused(theirs)
        if against:
            machine, inquiry = None, inquiry.model_copy(update={"machine": None})
        rate = judgement_rate(judgement)
        ran = instance.state is State.RUNNING
        predicted = size / rate + (instance.start_seconds or START_SECONDS) if ran else 0.0
        passage = Passage(
            source=own.name,
            target=host.name,
            way="live" if machine else "stop-copy-start",
            done=False,
            size=size,
            rate=rate,
            predicted=wanted.downtime if machine else predicted,
        )
        moved = Moved(instance=instance, source=instance.spec.isolation, hosts=passage)
        return _Trip(moved, passage, host, Amounts(**judgement.amounts), wanted, inquiry)

    def _machine(self, instance: Instance, wanted: Wanted) -> tuple[Blueprint | None, list[Problem]]:
        """What is to be made on the other host, of one that is to run on meanwhile; why it cannot."""
        runs = instance.spec.isolation is Isolation.VM and instance.state is State.RUNNING
        if wanted.way == "stop" or (wanted.way != "live" and not runs):
            return None, []
        try:
            return self.living.machine(instance), []
        except BulkheadError as error:
            return None, list(error.problems)

    def _carry_out(self, member: Opened, trip: _Trip, progress: Progress) -> Moved:
        context, instance, clock, host = self.context, trip.moved.instance, Clock(), trip.host
        spec, ran, live = instance.spec, instance.state is State.RUNNING, trip.inquiry.machine is not None
        leaving = Leaving(move=secrets.token_hex(16), target=host.id, ran=ran, live=live)
        checkpoint("leave.begin")
        with clock.phase("prepare"):
            progress(Step(f"looking for the image on host {host.name}"))
            try:
                self.peer(host).prepare(trip.inquiry)
            except BulkheadError as error:  # nothing is changed yet
                raise HostRefused(error.problems) from error
        bundles.write_leaving(context.bundle_dir(instance), leaving)
        checkpoint("leave.noted")
        sent = Sent(stopped=time.monotonic(), bytes=0, flow=None, digest="")  # it was handed over all the same
        try:
            handing.begin(member.state, spec.id, leaving, host=member.identity.id)
            checkpoint("leave.begun")
            sent = (self._go_live if live else self._go_stopped)(trip, leaving, clock, progress)
            checkpoint("leave.sent")
            if not live:  # whose guest does not stand still
                progress(Step(f"handing it over to host {host.name}"))
            with clock.phase("hand-over"):
                handing.hand_over(member.state, spec.id, leaving, trip.amounts)
        except BaseException as error:
            self._failed(member, spec.id, error)
        checkpoint("leave.handed")
        with clock.phase("start"):
            settled, problem = self._settle(spec.id, leaving, host)
        down = time.monotonic() - sent.stopped if ran and settled and settled.pid else 0.0
        with clock.phase("erase"):
            self._erase(spec.id, host.name)
        went = {"done": True, "sent": sent.bytes, "digest": sent.digest, "flow": sent.flow, "phases": clock.phases}
        return trip.moved.model_copy(
            update={
                "instance": settled or instance,
                "downtime": down,
                "well": down,
                "hosts": trip.passage.model_copy(update=went),
                "dropped": (problem,) if problem else (),
            }
        )

    def _go_live(self, trip: _Trip, leaving: Leaving, clock: Clock, progress: Progress) -> Sent:
        assert trip.inquiry.machine is not None
        return self.living.carry(
            trip.moved.instance,
            trip.inquiry.machine,
            leaving,
            self.peer(trip.host),
            trip.wanted,
            phase=clock.phase,
            progress=progress,
        )

    def _go_stopped(self, trip: _Trip, leaving: Leaving, clock: Clock, progress: Progress) -> Sent:
        instance, began = trip.moved.instance, time.monotonic()
        with clock.phase("stop"):
            if leaving.ran:
                progress(Step("stopping it"))
                instance = self.lifecycle.stop(instance)
        checkpoint("leave.stopped")
        with clock.phase("send"):
            receipt = self._send(instance, leaving, trip.host, trip.wanted.rate, progress)
        return Sent(stopped=began, bytes=receipt.received, flow=None, digest=receipt.digest)

    def _send(self, instance: Instance, leaving: Leaving, host: Host, rate: int | None, progress: Progress) -> Receipt:
        context, spec = self.context, instance.spec
        bundle = context.bundle_dir(instance)
        context.disks.still(spec.id, bundle / bundles.DISK)
        parcel = Parcel(
            move=leaving.move,
            instance=instance,
            ran=leaving.ran,
            layers=tuple(bundles.read_layers(bundle)),
            foreign=foreign.is_marked(bundle / bundles.DISK),
            files={name: (bundle / name).stat().st_size for name in staying.files(bundle)},
        )
        total = sum((bundle / name).stat().st_blocks * 512 for name in parcel.files)

        def told(sent: int) -> None:
            progress(Step(f"sending its disk to host {host.name}", sent, max(total, sent), "bytes"))
            checkpoint("leave.sending")

        sender = Sender(parcel, bundle, told=told, rate=rate)
        receipt = self.peer(host).send(spec.id, sender)
        if (receipt.received, receipt.digest) != (sender.sent, sender.digest):
            raise Unavailable(f"host {host.name} has received something else than was sent", hint="try again")
        return receipt

    def _settle(self, instance_id: str, leaving: Leaving, host: Host) -> tuple[Instance | None, str]:
        """Let the target make an instance of it now; where it does not answer, it does so by itself."""
        try:
            settled = self.peer(host).settle(instance_id, leaving.move)
        except BulkheadError as error:
            return None, f"it is on host {host.name}, which does not say yet whether it runs: {error.what}"
        return settled.instance, settled.problem

    # --- it stays, or has gone

    def _failed(self, member: Opened, instance_id: str, error: BaseException) -> None:
        """What comes of a move that went wrong: returns where it was made all the same, else raises."""
        name = self.context.state.get(instance_id).spec.name
        why = error.what if isinstance(error, BulkheadError) else "it was cancelled"
        if not isinstance(error, BulkheadError | BrokenPipeError):
            why = f"{type(error).__name__}: {error}"
        try:
            told = self._decide(member, instance_id)
        except Unavailable as unknown:
            what = f"whether {name} has moved is not known yet ({why}): {unknown.what}"
            raise Unavailable(what, hint="it is decided as soon as etcd answers: see bulkhead ps") from error
        if told is None:
            return
        if isinstance(error, BrokenPipeError):
            raise error
        raise NotMoved(f"{name} was not moved, it {told}: {why}", hint=getattr(error, "hint", "")) from error

    def _decide(self, member: Opened, instance_id: str) -> str | None:
        """Find out whose it is. What it does, in words, where it has stayed; None where it has left."""
        instance = self.context.state.get(instance_id)
        bundle = self.context.bundle_dir(instance)
        leaving = bundles.read_leaving(bundle)
        if leaving is None:
            return f"is {instance.state}"
        if not leaving.stays:
            if not handing.take_back(member.state, instance_id, leaving, host=member.identity.id):
                return None
            checkpoint("stay.decided")
            bundles.write_leaving(bundle, leaving.model_copy(update={"stays": True}))
        checkpoint("stay.noted")
        told = "runs as before" if instance.state is State.RUNNING else "is stopped as before"
        if leaving.live and instance.state is State.RUNNING:
            told = self.living.stay(instance)
        elif leaving.ran and instance.state in (State.CREATED, State.EXITED):
            told = "runs again where it was"
            try:
                self.lifecycle.start(instance)
            except BulkheadError as error:
                told = f"could not be started again where it was ({error.what})"
        checkpoint("stay.started")
        bundles.forget_leaving(bundle)
        return told

    def _erase(self, instance_id: str, target: str) -> None:
        """It is another host's: its copy here goes."""
        instance = self.context.state.get(instance_id)
        leaving = bundles.read_leaving(self.context.bundle_dir(instance))
        if leaving is not None and leaving.live:
            # It goes on elsewhere: no event tells of an end, and who waits for one here learns why none comes.
            self.lifecycle.release_run(instance)
            gone = Exit(code=LOST.code, error="it runs on at another host of the fleet")
            instance = records.save(self.context, instance, state=State.EXITED, pid=0, address=None, exit=gone)
        elif instance.state in (State.RUNNING, State.PAUSED):  # a stop comes before it can be handed over
            instance = self.lifecycle.stop(instance, timeout=0, signal="SIGKILL")
        records.save(self.context, instance, "move", {"host": target})
        checkpoint("leave.told")
        self.lifecycle.delete(instance)
        checkpoint("leave.erased")

    def is_leaving(self, instance_id: str) -> bool:
        """Whether it may be another host's by now."""
        return bundles.read_leaving(self.context.bundle_dir(instance_id)) is not None

    def ids(self) -> set[str]:
        """Of those that may be another host's by now."""
        instances = [instance.spec.id for instance in self.context.state.instances()]
        return {one for one in instances if bundles.read_leaving(self.context.bundle_dir(one))}

    def look(self, member: Opened) -> list[str]:
        """Decide what an earlier daemon, or a fleet that could not be asked, has left open. Says what came of it."""
        told = []
        for instance in self.context.state.instances():
            instance_id, name = instance.spec.id, instance.spec.name
            with self._guard:
                if instance_id in self._active:
                    continue
            if bundles.read_leaving(self.context.bundle_dir(instance)) is None:
                continue
            with self.context.locks.hold(instance_id):
                kept = self._decide(member, instance_id)
                if kept is None:
                    self._erase(instance_id, "")
            told.append(f"{name} has left for another host" if kept is None else f"{name} has not left, it {kept}")
        return told

    @contextmanager
    def _being_active(self, instance_id: str) -> Iterator[None]:
        with self._guard:
            self._active.add(instance_id)
        try:
            yield
        finally:
            with self._guard:
                self._active.discard(instance_id)


def judgement_rate(judgement: Judgement) -> float:
    """Bytes per second, as the padding came."""
    from bulkhead.engine.fleet.asking import PADDING

    return PADDING / max(judgement.seconds, 1e-3)
