"""The files and the record of a snapshot: made, given to an instance, removed, and repaired after a crash.

A snapshot is the directory `snapshots_dir/<id>` with `disk.img`, `layers` and `spec.json` of the bundle it was made of,
and `memory` where a VM's was saved. The record says whether it is complete.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bulkhead.amounts import Amounts
from bulkhead.engine import bundles, keeping, quotas, selling
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import BulkheadError, Conflict, Problem, Refused
from bulkhead.events import Event, Progress, Step
from bulkhead.isolation import resizing
from bulkhead.isolation.base import Flushes, Pauses, Snapshots
from bulkhead.model import Instance, Snapshot, Spec, State
from bulkhead.tenancy import acting
from bulkhead.tenancy.quotas import Used

TAKEN_FROM = (State.CREATED, State.EXITED, State.RUNNING, State.PAUSED)


def directory(context: Context, snapshot: Snapshot) -> Path:
    """Where its files are."""
    return context.config.snapshots_dir / snapshot.id


def take(context: Context, instance: Instance, name: str | None, *, memory: bool, progress: Progress) -> Snapshot:
    """Copy an instance's disk, with `memory` a VM's memory too; all or nothing. It goes on afterwards as before."""
    spec = instance.spec
    with context.locks.hold(spec.id), ExitStack() as undo:
        instance = context.state.get(spec.id)
        _check(context, instance, memory=memory)
        bundle = context.bundle_dir(instance)
        snapshot = Snapshot(
            id=secrets.token_hex(16),
            name=name or _free_name(context, spec),
            spec=instance.spec,
            memory=memory,
            size=_estimate(bundle, spec, memory=memory),
            created=time.time(),
        )
        checkpoint("snapshot.begin")
        with context.state.atomic():
            quotas.admit(context, spec.tenant, Used(disk=snapshot.size))
            selling.require_room(context, Amounts(disk=snapshot.size))
            context.state.create_snapshot(snapshot)
        undo.callback(drop, context, snapshot)
        checkpoint("snapshot.reserved")
        target = directory(context, snapshot)
        bundles.make(target, spec, bundles.read_layers(bundle))
        checkpoint("snapshot.directory")
        with still(context, instance, target / bundles.MEMORY if memory else None, progress):
            checkpoint("snapshot.still")
            context.disks.copy_out(
                spec.id, bundle / bundles.DISK, target / bundles.DISK, told=_copying("copying the disk", progress)
            )
            checkpoint("snapshot.copied")
        size = sum(file.stat().st_blocks * 512 for file in target.iterdir())
        snapshot = snapshot.model_copy(update={"state": "ready", "size": size})
        with context.journal.recording(event_of(snapshot, "create")):
            context.state.save_snapshot(snapshot)
        undo.pop_all()
    checkpoint("snapshot.done")
    return snapshot


def fill(context: Context, snapshot: Snapshot, spec: Spec, bundle: Path, *, resumes: bool, progress: Progress) -> None:
    """Give a new instance the snapshot's disk, and where it `resumes` the memory to go on with."""
    with context.locks.hold(snapshot.id):
        require_there(context, snapshot)
        bring(context, snapshot, bundle, spec.plan.disk, progress=progress)
        context.disks.put(spec.id, bundle / bundles.DISK)
        checkpoint("clone.copied")
        if resumes:
            bundles.give_memory(bundle, directory(context, snapshot) / bundles.MEMORY)


def bring(context: Context, snapshot: Snapshot, bundle: Path, size: int, *, progress: Progress) -> None:
    """Copy its disk into a bundle, to be put in the place of the one there."""
    source = directory(context, snapshot) / bundles.DISK
    told = _copying(f"copying the disk of {snapshot.reference}", progress)
    context.disks.bring_in(source, bundle / bundles.DISK, size, told=told)


def remove(context: Context, snapshot: Snapshot) -> None:
    """Remove a snapshot; what was made of it stays as it is."""
    with context.locks.hold(snapshot.id):
        require_there(context, snapshot)
        drop(context, snapshot)


def drop(context: Context, snapshot: Snapshot) -> None:
    """Remove its files, then its record. Idempotent."""
    if snapshot.state == "ready":
        checkpoint("unsnapshot.begin")
        context.ledger.record([keeping.of_snapshot(snapshot)])
        context.state.save_snapshot(snapshot.model_copy(update={"state": "deleting"}))
        checkpoint("unsnapshot.marked")
    bundles.remove(directory(context, snapshot))
    checkpoint("unsnapshot.files")
    if snapshot.state == "creating":
        context.state.delete_snapshot(snapshot)
        return
    with context.journal.recording(event_of(snapshot, "remove")):
        context.state.delete_snapshot(snapshot)
    context.ledger.end(snapshot.id)


def drop_all(context: Context, instance_id: str) -> None:
    """Remove every snapshot of an instance."""
    for snapshot in context.state.snapshots(instance_id):
        with context.locks.hold(snapshot.id):
            drop(context, snapshot)


def recover(context: Context) -> list[str]:
    """After a crash: remove what is not whole, and let what was stopped for it go on. Says what it was."""
    repairs = []
    for snapshot in context.state.snapshots():
        if snapshot.state != "ready":
            try:
                if snapshot.state == "creating" and snapshot.memory:
                    _go_on(context, snapshot)
                drop(context, snapshot)
            except BulkheadError as error:
                repairs.append(f"could not repair snapshot {snapshot.reference}: {error}")
            else:
                repairs.append(f"snapshot {snapshot.reference}: {snapshot.state} was interrupted, removed")
    known = {snapshot.id for snapshot in context.state.snapshots()}
    for entry in context.config.snapshots_dir.iterdir():
        if entry.name not in known:
            bundles.remove(entry)
            repairs.append(f"snapshot {entry.name[:12]} without a record removed")
    return repairs


def event_of(snapshot: Snapshot, action: str) -> Event:
    """What followers are told of a snapshot."""
    return Event(
        time.time(),
        "snapshot",
        snapshot.id,
        action,
        snapshot.reference,
        tenant=snapshot.spec.tenant,
        by=acting.user(),
    )


def checks_memory(context: Context, instance: Instance) -> list[Problem]:
    """Why the memory of this instance cannot be saved."""
    spec, problems = instance.spec, []
    if not isinstance(context.driver(instance), Snapshots):
        what = f"the memory of a {spec.isolation} cannot be saved here"
        problems.append(Problem(what, "leave out --memory: the snapshot has the disk alone"))
    if instance.state is not State.RUNNING:
        problems.append(Problem(f"instance {spec.name} is {instance.state}: it has no running memory to save"))
    if within := [each.spec.name for each in context.state.instances() if each.spec.inside == spec.id and each.pid]:
        what = f"{', '.join(within)} run in {spec.name}: what a saved memory knows of their disks would not be true"
        problems.append(Problem(what, "stop them first, or leave out --memory"))
    handle = bundles.read_handle(context.bundle_dir(instance)) if instance.pid else None
    if handle and resizing.was_resized(handle):
        what = f"the memory or the processors of {spec.name} were changed since its start: none could go on from it"
        problems.append(Problem(what, "stop it and start it first, or leave out --memory"))
    if spec.mounts:
        volumes = ", ".join(mount.source for mount in spec.mounts)
        what = f"{volumes} of {spec.name} would go on changing, and the saved memory would know nothing of it"
        problems.append(Problem(what, "leave out --memory: the snapshot has the disk alone"))
    return problems


def require_copyable(context: Context, instance: Instance) -> None:
    """Raise what stands in the way of a copy of its disk as it is now."""
    spec = instance.spec
    if instance.state not in TAKEN_FROM:
        raise Conflict(f"instance {spec.name} is {instance.state}", hint="try again in a moment")
    if spec.inside or spec.only_for:
        what = f"{spec.name} is in a VM, whose guest's kernel keeps part of its disk in memory"
        raise Refused(what, hint="bulkhead cp copies its files")
    if instance.state is State.PAUSED and isinstance(context.driver(instance), Flushes):
        what = f"instance {spec.name} is paused: its kernel cannot write out what it keeps in memory"
        raise Conflict(what, hint=f"bulkhead unpause {spec.name}")
    require_no_memory(context, instance)


def _check(context: Context, instance: Instance, *, memory: bool) -> None:
    spec, bundle = instance.spec, context.bundle_dir(instance)
    if memory and (problems := checks_memory(context, instance)):
        raise Refused(problems)
    require_copyable(context, instance)
    needed = spec.plan.memory if memory else 0
    context.disks.check_room(spec.id, bundle / bundles.DISK, context.config.snapshots_dir, more=needed)


def require_no_memory(context: Context, instance: Instance) -> None:
    """Raise Conflict where the next start goes on with a saved memory, to which the disk as it is belongs."""
    if bundles.saved_memory(context.bundle_dir(instance)):
        name = instance.spec.name
        what = f"instance {name} is to go on with the memory of a snapshot, and its disk must be as that knows it"
        raise Conflict(what, hint=f"bulkhead start {name}")


def _estimate(bundle: Path, spec: Spec, *, memory: bool) -> int:
    """Bytes that a snapshot will take, before it is made."""
    return (bundle / bundles.DISK).stat().st_blocks * 512 + (spec.plan.memory if memory else 0)


def _free_name(context: Context, spec: Spec) -> str:
    taken = {snapshot.name for snapshot in context.state.snapshots(spec.id)}
    return next(name for number in range(len(taken) + 1) if (name := f"snap{number}") not in taken)


def require_there(context: Context, snapshot: Snapshot) -> None:
    """Raise Conflict where it was removed while its lock was waited for."""
    if snapshot not in context.state.snapshots(snapshot.spec.id):
        raise Conflict(f"snapshot {snapshot.reference} has just been removed")


@contextmanager
def still(context: Context, instance: Instance, memory: Path | None, progress: Progress) -> Iterator[None]:
    """A VM writes nothing meanwhile, and what it had to write is on its disk, or its memory is in that new file.

    Disks of other levels are mounted on the host, which sees to that itself.
    """
    driver, bundle = context.driver(instance), context.bundle_dir(instance)
    handle = bundles.read_handle(bundle)
    if instance.state is not State.RUNNING or handle is None or not isinstance(driver, Flushes):
        yield
        return
    with ExitStack() as always:
        if memory and isinstance(driver, Snapshots):
            progress(Step("saving the memory"))
            always.callback(driver.resume_saved, bundle, handle)
            driver.save(bundle, handle, memory)
        elif isinstance(driver, Pauses):
            progress(Step("writing out what the machine keeps in memory"))
            driver.flush(bundle, handle)
            always.callback(driver.resume, bundle, handle)
            driver.pause(bundle, handle)
        yield


def _go_on(context: Context, snapshot: Snapshot) -> None:
    """Let an instance that was stopped to have its memory saved go on."""
    instance = next((one for one in context.state.instances() if one.spec.id == snapshot.spec.id), None)
    if instance is None or instance.state is not State.RUNNING:
        return
    driver, bundle = context.driver(instance), context.bundle_dir(instance)
    handle = bundles.read_handle(bundle)
    if handle and isinstance(driver, Snapshots):
        driver.resume_saved(bundle, handle)


def _copying(label: str, progress: Progress) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        progress(Step(label, done, total, "bytes"))
        if done == 0:
            checkpoint("snapshot.copying")

    return told
