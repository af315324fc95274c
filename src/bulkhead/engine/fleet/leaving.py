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
from bulkhead.engine import bundles, records
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import staying, views
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.parcels import Sender
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, NotMoved, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.fleet import Host
from bulkhead.model import Instance, State
from bulkhead.moves import Judgement, Leaving, Moved, Parcel, Passage, Receipt
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


@dataclass(slots=True)
class Departures:
    """Those of this host."""

    context: Context
    lifecycle: Lifecycle
    peer: Callable[[Host], Peer]
    _active: set[str] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def move(
        self, member: Opened, instance_id: str, host: Host, *, rate: int | None, dry_run: bool, progress: Progress
    ) -> Moved:
        """Let an instance be on another host. Raises Refused with every problem before anything changes, NotMoved
        where it has stayed, Unavailable where that is not known yet.
        """
        with self.context.locks.hold(instance_id), self._being_active(instance_id):
            instance = self.context.state.get(instance_id)
            progress(Step(f"asking host {host.name}"))
            judgement, passage = self._judge(member, instance, host)
            moved = Moved(instance=instance, source=instance.spec.isolation, hosts=passage)
            if dry_run:
                return moved
            return self._carry_out(member, moved, host, Amounts(**judgement.amounts), rate=rate, progress=progress)

    def _judge(self, member: Opened, instance: Instance, host: Host) -> tuple[Judgement, Passage]:
        context, own = self.context, member.identity
        problems = staying.problems(context, instance, host, here=own.id)
        size = context.disks.held(instance.spec.id, context.bundle_dir(instance) / bundles.DISK)
        judgement = None
        if host.id != own.id:
            try:
                judgement = self.peer(host).judge(instance.spec, size)
                problems += staying.objections(judgement)
                problems += views.objections(member.state.seen(), instance.spec.id, host.id)
            except Unavailable as error:
                problems += error.problems
        if problems or judgement is None:
            raise Refused(problems)
        rate = judgement_rate(judgement)
        ran = instance.state is State.RUNNING
        predicted = size / rate + (instance.start_seconds or START_SECONDS) if ran else 0.0
        return judgement, Passage(
            source=own.name, target=host.name, done=False, size=size, rate=rate, predicted=predicted
        )

    def _carry_out(
        self, member: Opened, moved: Moved, host: Host, amounts: Amounts, *, rate: int | None, progress: Progress
    ) -> Moved:
        context, instance, clock = self.context, moved.instance, Clock()
        spec, ran = instance.spec, instance.state is State.RUNNING
        leaving = Leaving(move=secrets.token_hex(16), target=host.id, ran=ran)
        checkpoint("leave.begin")
        with clock.phase("prepare"):
            progress(Step(f"looking for the image on host {host.name}"))
            self.peer(host).prepare(spec, moved.hosts.size if moved.hosts else 0)
        bundles.write_leaving(context.bundle_dir(instance), leaving)
        checkpoint("leave.noted")
        began = time.monotonic()
        try:
            handing.begin(member.state, spec.id, leaving, host=member.identity.id)
            checkpoint("leave.begun")
            with clock.phase("stop"):
                if ran:
                    progress(Step("stopping it"))
                    instance = self.lifecycle.stop(instance)
            checkpoint("leave.stopped")
            with clock.phase("send"):
                receipt = self._send(instance, leaving, host, rate, progress)
            checkpoint("leave.sent")
            progress(Step(f"handing it over to host {host.name}"))
            with clock.phase("hand-over"):
                handing.hand_over(member.state, spec.id, leaving, amounts)
        except BaseException as error:
            self._failed(member, spec.id, error)
            receipt = Receipt(received=0, digest="")  # it was handed over all the same
        checkpoint("leave.handed")
        with clock.phase("start"):
            settled, problem = self._settle(spec.id, leaving, host)
        down = time.monotonic() - began if ran and settled and settled.pid else 0.0
        with clock.phase("erase"):
            self._erase(spec.id, host.name)
        passage = moved.hosts and moved.hosts.model_copy(
            update={"done": True, "sent": receipt.received, "digest": receipt.digest, "phases": clock.phases}
        )
        dropped = (problem,) if problem else ()
        return moved.model_copy(
            update={
                "instance": settled or instance,
                "downtime": down,
                "well": down,
                "hosts": passage,
                "dropped": dropped,
            }
        )

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
        if leaving.ran and instance.state in (State.CREATED, State.EXITED):
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
        if instance.state in (State.RUNNING, State.PAUSED):  # a stop comes before it can be handed over
            instance = self.lifecycle.stop(instance, timeout=0, signal="SIGKILL")
        records.save(self.context, instance, "move", {"host": target})
        checkpoint("leave.told")
        self.lifecycle.delete(instance)
        checkpoint("leave.erased")

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
