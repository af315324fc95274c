"""Clean rooms: instances that belong to the request that opened them, and what was changed in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from bulkhead.engine import attaching, bundles, machines, snapshotting
from bulkhead.engine.carrying import Carrier
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, Conflict, NotFound, Problem, Refused
from bulkhead.events import quiet
from bulkhead.model import CreateRequest, Instance, Spec, State
from bulkhead.storage import changes, difference
from bulkhead.storage.changes import Changes

MOUNTED = ("/dev", "/proc", "/sys")
"""In every root."""


class Rooms:
    """Opens rooms, tells what has changed in an instance, and removes rooms that nobody holds any more."""

    def __init__(self, context: Context, lifecycle: Lifecycle, create: Callable[..., Instance]) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._create = create
        self._carrier = Carrier(context, lifecycle.resources)

    def open(self, request: CreateRequest) -> Instance:
        """Make a room, which does not run yet. Whoever opens it closes it, whatever happens."""
        problems = []
        if request.restart.kind != "no":
            what = f"--restart {request.restart.kind}: a room is thrown away when its program has ended"
            problems.append(Problem(what, "use bulkhead run"))
        if request.auto_remove:
            problems.append(Problem("--rm says nothing of a room: it is removed in any case", "leave out --rm"))
        if problems:
            raise Refused(problems)
        room = self._create(request, at_once=True, room=True)
        checkpoint("room.created")
        return room

    def is_there(self, instance_id: str) -> bool:
        """Whether a room has not been removed yet, by whomever. Asked again and again while it is held."""
        checkpoint("room.held")
        try:
            self._context.state.get(instance_id)
        except NotFound:
            return False
        return True

    def close(self, instance_id: str) -> None:
        """Throw a room away, with whatever runs in it. Fine when it is gone."""
        with suppress(NotFound):
            instance = self._context.state.get(instance_id)
            checkpoint("room.closing")
            if instance.pid and attaching.writes(instance.spec):
                # What is in it unmounts them.
                checkpoint("rescue.closing")
                with suppress(BulkheadError):
                    self._lifecycle.stop(instance, timeout=attaching.ORDER_SECONDS)
                checkpoint("rescue.stopped")
            self._lifecycle.delete(self._context.state.get(instance_id), force=True)
            checkpoint("room.closed")

    def close_all(self) -> None:
        """When the daemon ends: nobody can hold a room any more."""
        for instance in self._context.state.instances():
            if instance.spec.room:
                with suppress(BulkheadError):  # the next daemon's recovery pass does it then
                    self.close(instance.spec.id)

    def changes(self, instance: Instance) -> Changes:
        """What has been changed in an instance that does not run. Raises Conflict, HostError, Refused."""
        spec = instance.spec
        if machines.is_machine(spec):
            disk = self._context.bundle_dir(instance) / bundles.DISK
            # The host does not look into what a guest's kernel has written.
            return Changes(files=None, removed=None, size=disk.stat().st_blocks * 512 if disk.exists() else 0)
        with self._upper(instance) as upper:
            checkpoint("room.changes")
            return changes.measure(upper, bundles.read_own(self._context.bundle_dir(instance)))

    def layer(self, instance: Instance) -> Iterator[bytes]:
        """What has been changed in an instance that does not run as an OCI layer, a tar in pieces.

        Raises Conflict, HostError, Refused for what a layer cannot hold, AgentError.
        """
        own = bundles.read_own(self._context.bundle_dir(instance))
        with self._upper(instance) as upper:
            changes.check_names(upper)
            for portion in difference.layer(upper, stubs=_stubs(instance.spec), own=own):
                yield portion
                checkpoint("room.layer")

    @contextmanager
    def _upper(self, instance: Instance) -> Iterator[Path]:
        """The upper directory of an instance that does not run; nobody can start it meanwhile.

        Of a VM that of a copy: the host mounts nothing that a guest's kernel has written.
        """
        context, spec = self._context, instance.spec
        with context.locks.hold(spec.id), ExitStack() as always:
            instance = context.state.get(spec.id)
            if instance.state not in (State.CREATED, State.EXITED):
                what = f"instance {spec.name} is {instance.state}: its files may be changing"
                raise Conflict(what, hint=f"bulkhead stop {spec.name}")
            snapshotting.require_no_memory(context, instance)
            if spec.powered:
                what = f"{spec.name} is {'a unikernel' if spec.program else 'an unmodified system'}: it has no layer"
                raise Refused(what, hint="bulkhead snapshot keeps its disk")
            if machines.is_machine(spec):
                yield always.enter_context(self._carrier.copied(instance, quiet))
                return
            disk = context.disks.attach(spec.id, context.bundle_dir(instance) / bundles.DISK)
            always.callback(context.disks.detach, spec.id)
            yield disk / "upper"


def _stubs(spec: Spec) -> set[bytes]:
    """Where something is mounted in a root, and what is above: relative paths."""
    targets = [PurePosixPath(target) for target in (*MOUNTED, *(mount.target for mount in spec.mounts))]
    tops = {path for target in targets for path in (target, *target.parents)}
    return {str(path).lstrip("/").encode() for path in tops} - {b""}
