"""What arrives from other hosts: kept beside the instances until the fleet's record says whose it is.

An arrival is `state_dir/incoming/ID` with the files of a bundle; it is whole once `parcel.json` is there, and takes of
the host's room from its first byte. It becomes an instance by its record and the renaming of its directory, in this
order, which the daemon's start finishes. See design 0030.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.engine import bundles, records, selling
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import parcels
from bulkhead.engine.fleet.expecting import Expected, has_come
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, Conflict, NotFound, Refused, Unavailable
from bulkhead.isolation.migration import To
from bulkhead.model import Instance, Isolation, Spec, State
from bulkhead.moves import Leaving, Parcel, Receipt, Settled
from bulkhead.storage import foreign
from bulkhead.store import handing
from bulkhead.store.state import within

log = logging.getLogger(__name__)
MOST = 8
"""Arrivals at the same time."""
SETTLE_SECONDS = 10.0
"""For which somebody who asks for one waits until it is an instance."""
_OWN_UIDS = (Isolation.CONTAINER, Isolation.VM, Isolation.UNIKERNEL)
Bring = Callable[[Spec], None]
"""Makes sure that the image of an instance is here. Raises NoImage."""


@dataclass(slots=True)
class _Coming:
    parcel: Parcel
    amounts: Amounts
    whole: bool = False
    instance: Instance | None = None
    """What a machine that waits is to be."""


@dataclass(slots=True)
class Arrivals:
    """All of them. Thread-safe."""

    context: Context
    lifecycle: Lifecycle
    bring: Bring
    expected: Expected
    _known: dict[str, _Coming] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def amounts(self) -> Amounts:
        """What they take of the host."""
        with self._guard:
            return sum((each.amounts for each in self._known.values()), NOTHING)

    def ids(self) -> set[str]:
        """Of the instances that they are to be."""
        with self._guard:
            return set(self._known)

    def recover(self) -> None:
        """Know again what was whole when the daemon ended; the rest goes. Idempotent; comes after `settle_names`."""
        for directory in _directories(self.context):
            if directory.name in self.ids():
                continue
            parcel = bundles.read_parcel(directory)
            if parcel is None:
                shutil.rmtree(directory)
                continue
            self._known[directory.name] = _Coming(parcel, self.context.scales.weigh(parcel.instance.spec), whole=True)
        recorded = {instance.spec.id for instance in self.context.state.instances()}
        for directory in self.context.config.instances_dir.iterdir():
            parcel = has_come(directory) if directory.name not in recorded else None
            if parcel is not None and directory.name not in self.ids():
                amounts = self.context.scales.weigh(parcel.instance.spec)
                self._known[directory.name] = _Coming(parcel, amounts, whole=True, instance=parcel.instance)

    def whole(self, instance_id: str) -> Parcel | None:
        """What has arrived of an instance that had been stopped, whole, and is none here yet."""
        with self._guard:
            coming = self._known.get(instance_id)
        return coming.parcel if coming is not None and coming.whole and coming.instance is None else None

    def is_coming(self, instance_id: str) -> bool:
        """Whether it is being received."""
        with self._guard:
            coming = self._known.get(instance_id)
        return coming is not None and not coming.whole

    def wait_for(self, reference: str, *, tenant: str | None) -> None:
        """Wait until what has come whole, and is meant by a name or an id, is an instance.

        Raises Unavailable where that takes too long: what it needs is not here, or the fleet's store is away.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._is_meant(reference, tenant):
            if time.monotonic() > deadline:
                raise Unavailable(f"{reference} has come to this host and is no instance yet", hint="try again later")
            time.sleep(0.02)

    def _is_meant(self, reference: str, tenant: str | None) -> bool:
        with self._guard:
            whole = [each.parcel.instance.spec for each in self._known.values() if each.whole]
        key = within(tenant, reference)
        return any(key == spec.key or (len(reference) >= 4 and spec.id.startswith(reference)) for spec in whole)

    # --- it comes

    def receive(self, member: Opened, parcel: Parcel, stream: BinaryIO, *, source: str) -> Receipt:
        """Take in what the host `source` sends. All or nothing; nothing but the fleet's record makes an instance of it.

        Raises Conflict where the fleet knows of no such move, Refused for what is not as it should be.
        """
        spec = parcel.instance.spec
        _check(parcel)
        place = handing.place_of(member.state, spec.id)
        leaving = Leaving(move=parcel.move, target=member.identity.id, ran=parcel.ran)
        if place is None or place.host != source or not handing.is_under_way(place, leaving):
            raise Conflict(f"the fleet knows of no move of {spec.name} from that host to this one")
        if spec.key != place.key:
            raise Refused(f"what is sent as {place.key} is {spec.key}")
        directory = self.context.bundle_dir(spec.id) if parcel.machine else _directory(self.context, spec.id)
        self._drop_older(spec.id)
        with ExitStack() as undo:
            coming = self._register(parcel)
            undo.callback(self._forget, spec.id)
            directory.mkdir(mode=0o700, parents=True)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            checkpoint("expect.begun" if parcel.machine else "arrive.begun")
            receipt = parcels.receive(parcel, stream, directory)
            bundles.make(directory, spec, list(parcel.layers))
            if parcel.machine:
                coming.instance = self.expected.make(parcel, directory, undo, ipv4=place.ipv4)
                undo.pop_all()
                return receipt
            if parcel.foreign:
                foreign.mark(directory / bundles.DISK)
            bundles.write_parcel(directory, parcel)
            _sync(directory)
            coming.whole = True
            undo.pop_all()
        checkpoint("arrive.received")
        return receipt

    def opened(self, member: Opened, instance_id: str, move: str, to: To, *, source: str) -> socket.socket:
        """The end of a stream in a machine that waits for this move. Raises Conflict where none does."""
        with self.context.locks.hold(instance_id):
            _, instance = self._waiting(member, instance_id, move, source)
            return self.expected.opened(instance, to)

    def complete(self, member: Opened, instance_id: str, move: str, log: BinaryIO, *, source: str) -> Receipt:
        """Hold for good what has come for a machine that waits. Raises Conflict, and AgentError where it is not all."""
        with self.context.locks.hold(instance_id):
            coming, instance = self._waiting(member, instance_id, move, source)
            count = self.expected.complete(instance, coming.parcel, log)
            coming.whole = True
        checkpoint("expect.whole")
        return Receipt(received=count, digest="")

    def _waiting(self, member: Opened, instance_id: str, move: str, source: str) -> tuple[_Coming, Instance]:
        with self._guard:
            coming = self._known.get(instance_id)
        place = handing.place_of(member.state, instance_id)
        leaving = Leaving(move=move, target=member.identity.id, ran=True)
        if place is None or place.host != source or not handing.is_under_way(place, leaving):
            raise Conflict(f"the fleet knows of no move of {instance_id[:12]} from that host to this one")
        if coming is None or coming.instance is None or coming.whole or coming.parcel.move != move:
            raise Conflict(f"no machine waits here for {instance_id[:12]} (any more)")
        return coming, coming.instance

    def _drop_older(self, instance_id: str) -> None:
        """Of a move that was taken back: another one is under way by now, so it will never be anything."""
        with self.context.locks.hold(instance_id):
            with self._guard:
                older = self._known.get(instance_id)
            if older is not None and (older.whole or older.instance):
                self._drop(instance_id, older)

    def _drop(self, instance_id: str, coming: _Coming) -> None:
        if coming.instance is not None:
            self.expected.drop(coming.instance)
        else:
            shutil.rmtree(_directory(self.context, instance_id))
        self._forget(instance_id)

    def _register(self, parcel: Parcel) -> _Coming:
        context, spec = self.context, parcel.instance.spec
        coming = _Coming(parcel, context.scales.weigh(spec))
        with context.state.atomic():
            with suppress(NotFound):
                context.state.get(spec.id)
                raise Conflict(f"instance {spec.name} is on this host already")
            selling.admit(context, spec)
            with self._guard:
                if spec.id in self._known:
                    raise Conflict(f"{spec.name} is arriving here already", hint="try again in a moment")
                if len(self._known) >= MOST:
                    raise Conflict(f"{MOST} instances are arriving on this host", hint="try again later")
                self._known[spec.id] = coming
        return coming

    def _forget(self, instance_id: str) -> None:
        with self._guard:
            self._known.pop(instance_id, None)

    # --- whose it is

    def look(self, member: Opened) -> list[str]:
        """Make instances of those that are this host's by now, and drop those that will not be. Says which."""
        with self._guard:
            # Before the fleet is asked: a move is recorded there before anything of it arrives.
            whole = {instance_id: each.parcel for instance_id, each in self._known.items() if each.whole}
            waiting = [instance_id for instance_id, each in self._known.items() if each.instance and not each.whole]
        told = [name for instance_id in waiting if (name := self._given_up(member, instance_id))]
        for instance_id, parcel in whole.items():
            name = parcel.instance.spec.name
            try:
                settled = self.settle(member, instance_id, parcel.move)
                if settled is not None:
                    told.append(f"{name} has arrived {settled.problem}".rstrip())
            except BulkheadError as error:
                told.append(f"{name} has not arrived (yet): {error}")
        return told

    def _given_up(self, member: Opened, instance_id: str) -> str:
        """End a machine that waits for what will not come any more. Says which."""
        with self.context.locks.hold(instance_id):
            with self._guard:
                coming = self._known.get(instance_id)
            if coming is None or coming.instance is None or coming.whole:
                return ""
            leaving = Leaving(move=coming.parcel.move, target=member.identity.id, ran=True)
            place = handing.place_of(member.state, instance_id)
            if place is not None and handing.is_under_way(place, leaving):
                return ""
            self._drop(instance_id, coming)
            return f"{coming.instance.spec.name} does not come (any more)"

    def settle(self, member: Opened, instance_id: str, move: str) -> Settled | None:
        """Make an instance of an arrival where it is this host's; None where it is not (yet), or has been dropped."""
        with self.context.locks.hold(instance_id):
            with self._guard:
                coming = self._known.get(instance_id)
            if coming is None or not coming.whole or coming.parcel.move != move:
                return self._settled(instance_id)
            place = handing.place_of(member.state, instance_id)
            own = member.identity.id
            if place is not None and place.host == own:
                return self._make(coming, place.ipv4)
            leaving = Leaving(move=move, target=own, ran=coming.parcel.ran)
            if place is None or not handing.is_under_way(place, leaving):
                self._drop(instance_id, coming)
            return None

    def _settled(self, instance_id: str) -> Settled | None:
        """What has become one already: whoever asks a second time is told the same."""
        try:
            return Settled(instance=self.context.state.get(instance_id))
        except NotFound:
            return None

    def restore(self, spec: Spec, layers: Sequence[str], disk: Path) -> Instance:
        """Make an instance, stopped, of the copy of a lost host's disk. Raises NoRoom, NoImage, Conflict."""
        instance, files = Instance(spec=spec, state=State.CREATED), {bundles.DISK: disk.stat().st_size}
        written = foreign.is_marked(disk)
        parcel = Parcel(move=spec.id, instance=instance, ran=False, layers=tuple(layers), foreign=written, files=files)
        with self.context.locks.hold(spec.id), ExitStack() as undo:
            self._drop_older(spec.id)
            coming, directory = self._register(parcel), _directory(self.context, spec.id)
            undo.callback(self._forget, spec.id)
            directory.mkdir(mode=0o700, parents=True)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            os.link(disk, directory / bundles.DISK)
            if written:
                foreign.mark(directory / bundles.DISK)
            bundles.make(directory, spec, list(layers))
            bundles.write_parcel(directory, parcel)
            _sync(directory)
            coming.whole = True
            undo.pop_all()
            checkpoint("recover.linked")
            return self._make(coming, "").instance

    def _make(self, coming: _Coming, ipv4: str) -> Settled:
        context, parcel = self.context, coming.parcel
        spec = parcel.instance.spec
        if coming.instance is None:
            self.bring(spec)
        changes = {"uid_start": None, "cpuset": (), "address": None, "pid": 0, "health": ""}
        kept = context.fleet_networks.address(spec.network_key, ipv4)
        instance = coming.instance or parcel.instance.model_copy(update={**changes, "kept_address": kept})
        with context.building.guard, context.state.atomic():
            if not spec.system:
                context.images.resolve(spec.image_digest)
            instance = context.state.reserve_instance(instance, uid_range=spec.isolation in _OWN_UIDS)
        checkpoint("arrive.recorded")
        if coming.instance is None:
            _directory(context, spec.id).rename(context.bundle_dir(spec.id))
            checkpoint("arrive.named")
        self._forget(spec.id)
        records.save(context, instance, "move", {"move": parcel.move})
        return self.finish(context.state.get(spec.id))

    def finish(self, instance: Instance) -> Settled:
        """Start what has arrived and ran. Once: where it cannot be started it stays, stopped."""
        bundle, problem = self.context.bundle_dir(instance), ""
        parcel = bundles.read_parcel(bundle)
        if parcel and parcel.machine and instance.state is State.RUNNING:
            instance, problem = self._enter(instance)
        elif parcel and parcel.ran and instance.state in (State.CREATED, State.EXITED):
            instance, problem = self._tried(instance, self.lifecycle.start)
        checkpoint("arrive.started")
        bundles.forget_parcel(bundle)
        return Settled(instance=instance, problem=problem)

    def _enter(self, instance: Instance) -> tuple[Instance, str]:
        """Let its machine go on; where that is of no use, let it begin anew from the disk that has come."""
        try:
            return self.expected.enter(instance)
        except BulkheadError as error:
            log.warning("the machine of %s does not go on: %s", instance.spec.name, error)
            instance, problem = self._tried(instance, self.expected.restart)
            return instance, problem or f"its machine did not go on ({error.what}): it was started anew"

    def _tried(self, instance: Instance, start: Callable[[Instance], Instance]) -> tuple[Instance, str]:
        try:
            return start(instance), ""
        except BulkheadError as error:
            problem = f"it could not be started here: {error.what}"
            return self.context.state.get(instance.spec.id), problem

    def finish_all(self) -> list[str]:
        """After a crash: start what had arrived and was not started yet."""
        told = []
        for instance in self.context.state.instances():
            if bundles.read_parcel(self.context.bundle_dir(instance)) is None:
                continue
            with self.context.locks.hold(instance.spec.id):
                settled = self.finish(self.context.state.get(instance.spec.id))
            told.append(f"{instance.spec.name} has arrived {settled.problem}".rstrip())
        return told


def settle_names(context: Context) -> list[str]:
    """After a crash, before all else: what has a record as an instance has its directory where those are."""
    told = []
    known = {instance.spec.id: instance for instance in context.state.instances()}
    for directory in _directories(context):
        instance = known.get(directory.name)
        if instance is not None and not context.bundle_dir(instance).exists():
            directory.rename(context.bundle_dir(instance))
            told.append(f"{instance.spec.name} had arrived: its files are where they belong")
    return told


def _directory(context: Context, instance_id: str) -> Path:
    return context.config.state_dir / "incoming" / instance_id


def _directories(context: Context) -> list[Path]:
    top = context.config.state_dir / "incoming"
    return sorted(top.iterdir()) if top.exists() else []


def _check(parcel: Parcel) -> None:
    """Raise Refused for what no host sends."""
    spec = parcel.instance.spec
    if parcel.machine is not None:
        if parcel.instance.state is not State.RUNNING or bundles.DISK in parcel.files:
            raise Refused(f"{spec.name} arrives {parcel.instance.state} with {', '.join(parcel.files)}: it must run")
    elif parcel.instance.state not in (State.CREATED, State.EXITED) or parcel.instance.pid:
        raise Refused(f"{spec.name} arrives {parcel.instance.state}: it must have ended")
    size = parcel.machine.disk if parcel.machine else parcel.files.get(bundles.DISK, spec.plan.disk + 1)
    if size > spec.plan.disk:
        raise Refused(f"the disk of {spec.name} is larger than its plan")
    if sum(size for name, size in parcel.files.items() if name != bundles.DISK) > parcels.MOST_SMALL:
        raise Refused(f"{spec.name} arrives with more than {parcels.MOST_SMALL} bytes beside its disk")
    if spec.mounts or spec.disks or spec.secrets or spec.inside:
        raise Refused(f"{spec.name} arrives with what stays on its host: mounts, disks, secrets, or a VM around it")


def _sync(directory: Path) -> None:
    for path in (directory, directory.parent):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
