"""Snapshots as the engine's users see them: made of an instance, listed, put back, removed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bulkhead.engine import bundles, machines, records, snapshotting
from bulkhead.engine.cloning import OF_A_MACHINE
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import Conflict, NotFound, Problem, Refused
from bulkhead.events import Progress
from bulkhead.isolation.base import Snapshots
from bulkhead.model import Instance, Snapshot, State
from bulkhead.storage import foreign
from bulkhead.store.records import near


class SnapshotCatalog:
    """The snapshots of this host's instances. `ref` is an instance's name, its id, or the beginning of one."""

    def __init__(self, context: Context, lifecycle: Lifecycle) -> None:
        self._context = context
        self._lifecycle = lifecycle

    def list(self, ref: str | None = None, *, tenant: str | None = None) -> Sequence[Snapshot]:
        """Every snapshot, those of a tenant, or those of one instance, the oldest first."""
        instance_id = self._context.state.find(ref, tenant=tenant).spec.id if ref else ""
        found = [one for one in self._context.state.snapshots(instance_id) if one.state == "ready"]
        return [one for one in found if tenant in (None, one.spec.tenant)]

    def get(self, ref: str, name: str, *, tenant: str | None = None) -> Snapshot:
        """One snapshot of an instance. Raises NotFound with names that look alike."""
        instance = self._context.state.find(ref, tenant=tenant)
        found = {snapshot.name: snapshot for snapshot in self.list(instance.spec.id)}
        if name not in found:
            hint = near(name, found) or f"see: bulkhead snapshot ls {instance.spec.name}"
            raise NotFound(f"{instance.spec.name} has no snapshot {name}", hint=hint)
        return found[name]

    def find(self, reference: str, *, tenant: str | None = None) -> Snapshot:
        """The snapshot that INSTANCE/NAME means. Raises NotFound, Refused."""
        ref, slash, name = reference.partition("/")
        if not (ref and slash and name):
            raise Refused(f"{reference!r} is no snapshot", hint="say INSTANCE/NAME; see: bulkhead snapshot ls")
        return self.get(ref, name, tenant=tenant)

    def disk(self, snapshot: Snapshot) -> tuple[int, bool]:
        """Bytes of its disk, and whether a guest's kernel has written it."""
        file = snapshotting.directory(self._context, snapshot) / bundles.DISK
        return file.stat().st_size, foreign.is_marked(file)

    def create(
        self, ref: str, *, name: str | None, memory: bool, progress: Progress, tenant: str | None = None
    ) -> Snapshot:
        """Copy an instance's disk, with `memory` a VM's memory too; None for a name: snap0, snap1 and so on."""
        instance = self._context.state.find(ref, tenant=tenant)
        return snapshotting.take(self._context, instance, name, memory=memory, progress=progress)

    def remove(self, ref: str, name: str, *, tenant: str | None = None) -> None:
        """Remove a snapshot."""
        snapshotting.remove(self._context, self.get(ref, name, tenant=tenant))

    def restore(
        self,
        ref: str,
        name: str,
        *,
        force: bool,
        memory: bool,
        progress: Progress,
        tenant: str | None = None,
    ) -> Instance:
        """Put a snapshot back: the instance's disk is as it was, and what has come since is lost.

        One that runs is ended first where `force` says so, and started again. With a saved `memory` it goes on where
        it was then.
        """
        context, snapshot = self._context, self.get(ref, name, tenant=tenant)
        resumes = snapshot.memory and memory
        with context.locks.hold(snapshot.spec.id), context.locks.hold(snapshot.id), ExitStack() as undo:
            snapshotting.require_there(context, snapshot)
            instance = context.state.get(snapshot.spec.id)
            ran = self._check_restore(instance, snapshot, force=force, resumes=resumes)
            checkpoint("restore.begin")
            bundle = context.bundle_dir(instance)
            # It runs on while its disk is copied: where that fails, nothing has been changed.
            snapshotting.bring(context, snapshot, bundle, instance.spec.plan.disk, progress=progress)
            undo.callback(context.disks.forget_copy, bundle / bundles.DISK)
            checkpoint("restore.copied")
            if ran:
                instance = self._lifecycle.stop(instance, timeout=0, signal="SIGKILL")
            checkpoint("restore.stopped")
            bundles.drop_memory(bundle)
            context.disks.put(instance.spec.id, bundle / bundles.DISK)
            checkpoint("restore.disk")
            if resumes:
                bundles.give_memory(bundle, snapshotting.directory(context, snapshot) / bundles.MEMORY)
            records.save(context, instance, "restore", {"snapshot": snapshot.name})
            checkpoint("restore.saved")
            return self._lifecycle.start(instance) if ran or resumes else instance

    def _check_restore(self, instance: Instance, snapshot: Snapshot, *, force: bool, resumes: bool) -> bool:
        """Whether it runs. Raises Conflict or Refused where it cannot be restored."""
        spec, ran = instance.spec, instance.state in (State.RUNNING, State.PAUSED)
        if not ran and instance.state not in (State.CREATED, State.EXITED):
            raise Conflict(f"instance {spec.name} is {instance.state}", hint="try again in a moment")
        if ran and not force:
            hint = f"stop it first, or bulkhead snapshot restore -f {snapshot.reference}: it is ended and started again"
            raise Conflict(f"instance {spec.name} is {instance.state}", hint=hint)
        if ran and spec.auto_remove:
            what = f"instance {spec.name} is removed as soon as it has ended (--rm), with its snapshots"
            raise Refused(what, hint=f"bulkhead run --from {snapshot.reference} makes another one of it")
        if self.disk(snapshot)[1] and not machines.is_machine(spec):
            what = f"the disk of {snapshot.reference} was written by a guest, and no {spec.isolation} here mounts it"
            raise Refused(what, hint=f"bulkhead run --from {snapshot.reference}: a vm of it, which can be moved")
        problems = _memory_problems(self._context, instance, snapshot) if resumes else []
        if problems:
            raise Refused(problems)
        return ran


def _memory_problems(context: Context, instance: Instance, snapshot: Snapshot) -> list[Problem]:
    spec, hint = instance.spec, "add --no-memory to put the disk back alone"
    if not isinstance(context.driver(instance), Snapshots):
        return [Problem(f"a {spec.isolation} cannot go on from a saved memory here", hint)]
    old, new = snapshot.spec.plan, spec.plan
    return [
        Problem(f"{spec.name} has another {field} now than when its memory was saved", hint)
        for field in OF_A_MACHINE
        if getattr(old, field) != getattr(new, field)
    ]
