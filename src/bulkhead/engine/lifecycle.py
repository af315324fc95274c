"""The life of an instance. With its parts (`updating`, `pausing`, `signals`) the only code that changes its state.

Every change is made under the instance's lock, written to the store before and after what it does on the host, and
undone when it fails; `recovery` does the same after a crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGKILL

from bulkhead.engine import bundles, inside, machines, records, secrets, selling, sharing, snapshotting, unmodified
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.metering import Meter
from bulkhead.engine.pausing import Pausing
from bulkhead.engine.resources import Resources
from bulkhead.engine.signals import Signals
from bulkhead.engine.updating import Updates
from bulkhead.engine.waiters import Waiters
from bulkhead.errors import BulkheadError, Conflict
from bulkhead.events import Progress, quiet
from bulkhead.images import Image
from bulkhead.isolation.root import own_files
from bulkhead.model import Exit, Instance, Isolation, Snapshot, Spec, State


def _ignore(instance: Instance) -> None:
    """What is called where nobody wants to be told of `instance`."""


def _launched(on_launch: Callable[[Path], None], agent: Path) -> None:
    """The supervisor listens and has not been asked to start anything yet."""
    checkpoint("start.launched")
    on_launch(agent)


_OWN_UIDS = (Isolation.CONTAINER, Isolation.VM, Isolation.UNIKERNEL)
LOST = Exit(code=255, error="the supervisor is gone without a trace of how the workload ended")


class Lifecycle:
    """Create, start, stop, delete, and what happens when a workload ends by itself."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.waiters = Waiters(context.state)
        self.resources = Resources(context, threading.Lock())
        self.meter = Meter(context)
        self.updates = Updates(context, self.resources, self.meter)
        self.pausing = Pausing(context)
        self.signals = Signals(context)
        self.on_started: Callable[[Instance], None] = _ignore
        """Told about every start: the exit watcher and health checks hang here."""
        self.on_exited: Callable[[Instance], None] = _ignore
        """Told about every end that leaves the instance in place: restart policies hang here."""

    # --- create and delete

    def create(
        self,
        spec: Spec,
        image: Image,
        *,
        source: Snapshot | None = None,
        resumes: bool = False,
        user_data: str | None = None,
        progress: Progress = quiet,
    ) -> Instance:
        """Make the instance, its bundle and its disk, that of a snapshot where one is given; all or nothing.

        `user_data`: what the seed of an unmodified system is to say.
        """
        context = self._context
        checkpoint("create.begin")
        instance = Instance(spec=spec, state=State.CREATING)
        with context.locks.hold(spec.id), ExitStack() as undo:
            undo.callback(context.places.release, spec)
            instance = instance.model_copy(update={"kept_address": context.places.reserve(spec)})
            checkpoint("create.placed")
            # No image is removed between the look whether it is there and the record that needs it.
            with context.building.guard, context.state.atomic():
                if not spec.build:  # builds hold what they use, and begin with nothing at times
                    context.images.resolve(image.digest)
                inside.admit(context, spec)
                selling.admit(context, spec)
                secrets.admit(context, spec)
                instance = context.state.reserve_instance(instance, uid_range=spec.isolation in _OWN_UIDS)
            undo.callback(self.erase, instance)
            checkpoint("create.reserved")
            directory = context.bundle_dir(instance)
            if not context.warm.is_claimed(spec.id):
                directory.mkdir(mode=0o700)
            checkpoint("create.bundle")
            bundles.make(directory, spec, [] if spec.only_for else [layer.diff_id for layer in image.layers])
            checkpoint("create.spec")
            if source:
                snapshotting.fill(context, source, spec, directory, resumes=resumes, progress=progress)
            elif spec.system:
                unmodified.make_disk(context, spec, image)
            elif not spec.only_for:  # that has nothing of its own
                # A guest's would have to be unmounted before the first start.
                mount = not (machines.is_machine(spec) or spec.inside)
                context.disks.create(spec.id, directory / "disk.img", spec.plan.disk, mount=mount)
            checkpoint("create.disk")
            if spec.system:
                unmodified.make_seed(context, spec, user_data)
            checkpoint("create.driver")
            instance = records.save(self._context, instance, "create", {"image": spec.image}, state=State.CREATED)
            undo.pop_all()
        checkpoint("create.unconfirmed")
        context.places.confirm(spec)
        checkpoint("create.done")
        return instance

    def delete(self, instance: Instance, *, force: bool = False) -> None:
        """Remove the instance and everything that it holds."""
        instance_id = instance.spec.id
        inside.require_free(self._context, instance.spec, force=force)
        inside.require_awake(self._context, instance.spec)
        for inner in self._within(instance):
            self.delete(inner, force=True)
        if force and instance.state in (State.RUNNING, State.PAUSED, State.STARTING, State.STOPPING):
            self.signals.kill_now(instance)
            self.stop(instance, timeout=0, signal="SIGKILL")
        with self._context.locks.hold(instance_id), self._context.places.fine_if_gone(instance.spec):  # --rm
            instance = self._context.state.get(instance_id)
            if instance.state in (State.RUNNING, State.PAUSED):
                raise Conflict(
                    f"instance {instance.spec.name} is {instance.state}",
                    hint=f"stop it first, or bulkhead rm -f {instance.spec.name}",
                )
            self._delete(instance)

    def _delete(self, instance: Instance) -> None:
        checkpoint("delete.begin")
        if instance.state is not State.DELETING:
            instance = records.save(self._context, instance, state=State.DELETING)
        checkpoint("delete.marked")
        self.erase(instance)
        checkpoint("delete.done")
        self.waiters.resolve(instance.spec.id, instance.exit or Exit(code=0))

    def erase(self, instance: Instance) -> None:
        """Release all that a create or start may have made and drop the record; idempotent."""
        context, instance_id = self._context, instance.spec.id
        directory = context.bundle_dir(instance)
        context.warm.release(instance_id)
        if instance.pid:
            self.meter.change(instance)
        context.driver(instance).delete(directory, instance_id)
        self.meter.end(instance, flush=False)
        checkpoint("delete.driver")
        self.resources.release_network(instance)
        checkpoint("delete.network")
        context.disks.discard(instance_id, directory / "disk.img")
        self.resources.release_volumes(instance.spec)
        checkpoint("delete.disk")
        snapshotting.drop_all(context, instance_id)
        checkpoint("delete.snapshots")
        if machine := inside.own_machine(context, instance.spec):
            with context.locks.hold(machine.spec.id):
                self.erase(machine)
        checkpoint("delete.machine")
        bundles.remove(directory)
        checkpoint("delete.bundle")
        with context.journal.recording(records.event_of(instance, "remove")):
            context.state.remove(instance_id)
        checkpoint("delete.unplaced")
        context.places.release(instance.spec)
        self.meter.forget(instance_id)
        sharing.settle(context, instance.spec.inside)
        network = self.resources.network_of(instance.spec) if instance.address else None
        if network:
            self.resources.update_names(network)

    # --- start and stop

    def start(
        self, instance: Instance, *, on_launch: Callable[[Path], None] | None = None, restarts: int = 0
    ) -> Instance:
        """Run the workload; returns when its program has been executed. `restarts`: how often in a row it did."""
        instance_id = instance.spec.id
        with self._context.locks.hold(instance_id):
            instance = self._context.state.get(instance_id)
            if instance.state not in (State.CREATED, State.EXITED):
                raise Conflict(f"instance {instance.spec.name} is {instance.state}, it cannot be started")
            with ExitStack() as undo:
                machine = inside.own_machine(self._context, instance.spec)
                if machine and machine.state is not State.RUNNING:
                    undo.callback(self.end_machine, instance)
                    self.start(machine)
                    checkpoint("start.machine")
                instance = self._start(instance.model_copy(update={"restarts": restarts}), on_launch)
                undo.pop_all()
        self.on_started(instance)
        return instance

    def end_machine(self, instance: Instance) -> None:
        """End the VM that was made for an instance, which does not run any more. Idempotent."""
        machine = inside.own_machine(self._context, instance.spec)
        if machine and machine.pid:
            self.stop(machine, timeout=0, signal="SIGKILL")

    def _start(self, instance: Instance, on_launch: Callable[[Path], None] | None) -> Instance:
        context, began = self._context, time.monotonic()
        directory = context.bundle_dir(instance)
        context.places.require_here(directory, instance.spec)
        checkpoint("start.begin")
        before = instance
        with context.state.atomic():
            selling.admit_start(context, instance)
            instance = records.save(self._context, instance, state=State.STARTING, exit=None, stop_requested=False)
        try:
            with ExitStack() as always, ExitStack() as undo:
                if not context.warm.is_claimed(instance.spec.id):
                    bundles.forget_run(directory)
                undo.callback(bundles.forget_run, directory)
                instance, bundle = self.resources.acquire(instance, undo=undo, always=always)
                always.callback(bundles.drop_memory, directory)  # from here on the disk changes
                named = instance.spec.isolation is not Isolation.CHROOT
                bundles.write_own(directory, own_files(bundle, hostname=named))
                counted = self.meter.before(bundle)
                on_launch = context.places.launching(instance.spec, on_launch)
                handle = context.driver(instance).start(bundle, on_launch=partial(_launched, on_launch))
                undo.callback(context.driver(instance).delete, directory, instance.spec.id)
                checkpoint("start.running")
                bundles.write_handle(directory, handle)
                checkpoint("start.handle")
                self.meter.begin(instance, handle, counted)
                checkpoint("start.metered")
                instance = records.save(
                    self._context,
                    instance,
                    "start",
                    state=State.RUNNING,
                    pid=handle.pid,
                    started=time.time(),
                    start_seconds=time.monotonic() - began,
                    health="starting" if instance.spec.health else "",
                )
                undo.pop_all()
            machines.forget_grown(context, instance)
        except BulkheadError as error:
            self._start_failed(before, error)
            raise
        except BaseException:
            context.state.save(before)
            raise
        checkpoint("start.done")
        return instance

    def _start_failed(self, before: Instance, error: BulkheadError) -> None:
        now = time.time()
        failed = Exit(code=error.exit_code, error=error.what, started=now, ended=now)
        changes = {"exit": failed, "address": None, "pid": 0}
        if before.restarts:  # the stop that came before was the restart's own
            changes["stop_requested"] = False
        self._context.state.save(before.model_copy(update=changes))
        sharing.settle(self._context, before.spec.inside)
        network = self.resources.network_of(before.spec)
        if network:
            self.resources.update_names(network)

    def undo_start(self, instance: Instance) -> None:
        """After a crash in the middle of a start: release what it had made, back to created."""
        self.meter.undo(instance)
        self.release_run(instance)
        bundles.drop_memory(self._context.bundle_dir(instance))
        records.save(self._context, instance, state=State.CREATED, address=None, pid=0)

    def release_run(self, instance: Instance) -> None:
        """Make sure that nothing of a run is left on the host; idempotent."""
        context, directory = self._context, self._context.bundle_dir(instance)
        context.driver(instance).delete(directory, instance.spec.id)
        self.meter.end(instance)
        self.resources.release_network(instance)
        context.disks.detach(instance.spec.id)

    def stop(self, instance: Instance, *, timeout: float | None = None, signal: str | None = None) -> Instance:
        """End the workload: its stop signal, after `timeout` seconds KILL. Returns when it has ended."""
        spec = instance.spec
        inside.require_awake(self._context, spec)
        if not spec.only_for:
            self._stop_within([each for each in self._within(instance) if each.pid])
        with self._context.locks.hold(spec.id):
            instance = self._context.state.get(spec.id)
            if instance.state is State.PAUSED:
                instance = self.pausing.unpause(instance)
            if instance.state is not State.RUNNING:
                return records.save(self._context, instance, stop_requested=True)
            checkpoint("stop.begin")
            instance = records.save(self._context, instance, state=State.STOPPING, stop_requested=True)
            bundle = self._context.bundle_dir(instance)
            self._context.driver(instance).stop(
                bundle,
                bundles.require_handle(bundle),
                signal=signal or spec.stop_signal,
                timeout=spec.stop_timeout if timeout is None else timeout,
            )
            checkpoint("stop.signalled")
            return self.finish(spec.id) or instance

    def _within(self, machine: Instance) -> list[Instance]:
        """What is in a VM, which goes on for it where it is paused."""
        found = inside.held(self._context, machine.spec)
        if found and self._context.state.get(machine.spec.id).state is State.PAUSED:
            self.pausing.unpause(machine)
        return found

    def _stop_within(self, instances: Sequence[Instance]) -> None:
        """End what runs in a VM, all of it side by side."""
        if instances:
            with ThreadPoolExecutor(len(instances)) as workers:
                list(workers.map(self.stop, instances))

    def signal(self, instance: Instance, number: int) -> Instance:
        """Send a signal to the workload. KILL returns when it has ended; KILL and the stop signal end restarts."""
        spec = instance.spec
        inside.require_awake(self._context, spec)
        if instance.state is State.PAUSED:
            instance = self.pausing.unpause(instance)
        if number == SIGKILL:
            self.signals.kill_now(instance)
            return self.stop(instance, timeout=0, signal="SIGKILL")
        return self.signals.send(instance, number)

    # --- changes while it lives

    def set_health(self, instance_id: str, health: str) -> None:
        """Record what the health checks say, and act on it."""
        with self._context.locks.hold(instance_id):
            instance = self._context.state.get(instance_id)
            if instance.state is not State.RUNNING:
                return
            instance = records.save(self._context, instance, "health", {"status": health}, health=health)
        check = instance.spec.health
        if health == "unhealthy" and check and check.on_unhealthy == "restart":
            restarts = instance.restarts + 1
            self.start(self.stop(instance), restarts=restarts)

    # --- the end of a workload

    def finish(self, instance_id: str, started: float | None = None) -> Instance | None:
        """Record how a workload ended and release what it held. None when the instance was removed with it.

        With `started` it concerns that run alone: nothing is done where another one has begun since.
        """
        context = self._context
        with context.locks.hold(instance_id):
            instance = context.state.get(instance_id)
            alive = (State.RUNNING, State.PAUSED, State.STOPPING)
            if instance.state not in alive or started not in (None, instance.started):
                return instance
            checkpoint("exit.begin")
            self.meter.end(instance)
            checkpoint("exit.metered")
            instance = instance.model_copy(update={"exit": self._read_exit(instance), "pid": 0, "health": ""})
            ended = instance.exit or LOST
            attributes = {"code": str(ended.code), **({"oom": "true"} if ended.oom else {})}
            if instance.spec.auto_remove:
                instance = records.save(self._context, instance, "exit", attributes, state=State.DELETING)
                self._delete(instance)
                return None
            network = self.resources.network_of(instance.spec)
            instance = self.resources.release_network(instance)
            checkpoint("exit.network")
            instance = records.save(self._context, instance, "exit", attributes, state=State.EXITED)
            checkpoint("exit.saved")
            if network:
                self.resources.update_names(network)
            context.driver(instance).delete(context.bundle_dir(instance), instance_id)
            context.disks.detach(instance_id)
            self.resources.release_volumes(instance.spec)
            checkpoint("exit.disk")
            self.end_machine(instance)
            sharing.settle(context, instance.spec.inside)
        self.waiters.resolve(instance_id, ended)
        self.on_exited(instance)
        return instance

    def _read_exit(self, instance: Instance) -> Exit:
        handle = bundles.read_handle(self._context.bundle_dir(instance))
        if handle is None:
            return LOST
        inspection = self._context.driver(instance).inspect(self._context.bundle_dir(instance), handle)
        return inspection.exit or LOST
