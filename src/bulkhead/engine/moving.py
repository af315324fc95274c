"""Another wall for an instance: a stop, its disk handed over or its files copied, a start, and a way back.

What is under way is written down in the bundle (`move.json`) before anything changes and forgotten when it is done:
that is the moment at which a move has happened. Until then a failure, and after a crash the recovery, leads back; only
where the workload runs behind the new wall and is well does the recovery go on. See docs/design/0013.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from bulkhead.engine import bundles, records, selling
from bulkhead.engine.carrying import Carrier
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.errors import BulkheadError, NotMoved, Unavailable
from bulkhead.events import Progress, Step, quiet
from bulkhead.isolation.base import Handle
from bulkhead.model import HealthCheck, Instance, Isolation, Spec, State
from bulkhead.moves import Move, Moved
from bulkhead.storage import foreign

SETTLE_SECONDS = 1.0
"""How long a workload without a health check must have run."""
POLL_SECONDS = 0.25
RECOVERY_SECONDS = 20.0
"""What recovery gives a workload to be well, whatever the move did: nobody can use the daemon meanwhile."""
_OWN_UIDS = (Isolation.CONTAINER, Isolation.VM)

Check = Callable[[Instance, HealthCheck], bool]


class Mover:
    """Carries moves out. `check` runs a health check once."""

    def __init__(self, context: Context, lifecycle: Lifecycle, check: Check) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._carrier = Carrier(context, lifecycle.resources)
        self._check = check

    def move(self, instance: Instance, after: Spec, *, within: float, progress: Progress) -> Moved:
        """Put an instance behind another wall. The caller holds its lock and has admitted it.

        Raises NotMoved where it is back behind the old one; before anything changes whatever the trial raises.
        """
        context, spec = self._context, instance.spec
        checkpoint("move.begin")
        progress(Step(f"trying a {after.isolation} of this size"))
        self._carrier.rehearse(instance, after)
        move = Move(before=spec, after=after, ran=instance.state is State.RUNNING, within=within)
        with selling.growing(context, instance, after):
            return self._carry_out(instance, move, progress)

    def _carry_out(self, instance: Instance, move: Move, progress: Progress) -> Moved:
        context, after = self._context, move.after
        bundle = context.bundle_dir(instance)
        bundles.write_move(bundle, move)
        checkpoint("move.prepared")
        try:
            moved = self._forward(instance, move, progress)
        except BaseException as error:
            self._back(after.id, error)
            raise  # BrokenPipeError and the like: whoever asked has gone
        instance = self._done(moved.instance, after)
        return moved.model_copy(update={"instance": instance})

    def recover(self) -> list[str]:
        """After a crash: end every move that was under way. Says which and how."""
        repairs = []
        for instance in self._context.state.instances():
            try:
                repair = self._recover(instance)
            except BulkheadError as error:
                repair = f"{instance.spec.name}: its move was interrupted: {error}"
            repairs += [repair] if repair else []
        return repairs

    def _recover(self, instance: Instance) -> str:
        context, name = self._context, instance.spec.name
        bundle = context.bundle_dir(instance)
        move = bundles.read_move(bundle)
        if move is None:
            context.disks.forget_old(bundle / bundles.DISK)
            self._let_address_go(instance)
            return ""
        if instance.kept_address:
            context.networks.keep(instance.kept_address)
        with context.locks.hold(instance.spec.id):
            try:
                if self._has_arrived(instance, move):
                    self._done(instance, move.after)
                    return f"{name}: its move to a {move.after.isolation} was interrupted, carried out"
            except BulkheadError:
                pass
            with suppress(NotMoved):
                self._back(instance.spec.id, NotMoved("the daemon was killed"))
        return f"{name}: its move to a {move.after.isolation} was interrupted, undone"

    def _has_arrived(self, instance: Instance, move: Move) -> bool:
        if instance.spec.isolation is not move.after.isolation:
            return False
        if not move.ran:
            return True
        if instance.state is not State.RUNNING:
            return False
        self._wait_until_well(instance, min(move.within, RECOVERY_SECONDS))
        return True

    # --- forwards

    def _forward(self, instance: Instance, move: Move, progress: Progress) -> Moved:
        context, after = self._context, move.after
        bundle = context.bundle_dir(instance)
        began = time.monotonic()
        if move.ran:
            progress(Step("stopping it"))
            if instance.address:
                context.networks.keep(instance.address)
                instance = records.save(self._context, instance, kept_address=instance.address)
            instance = self._lifecycle.stop(instance)
        checkpoint("move.stopped")
        copied, dropped = 0, tuple[str, ...]()
        if after.isolation is not Isolation.VM and foreign.is_marked(bundle / bundles.DISK):
            carried = self._carrier.carry(instance, after, progress)
            copied, dropped = carried.copied, carried.dropped
        elif after.plan.disk != move.before.plan.disk:
            context.disks.resize(after.id, bundle / bundles.DISK, after.plan.disk)
        instance = self._switch(instance, after)
        checkpoint("move.switched")
        down = well = 0.0
        if move.ran:
            progress(Step(f"starting it as a {after.isolation}"))
            instance = self._enter(instance, move)
            down = time.monotonic() - began
            checkpoint("move.started")
            progress(Step("waiting until it is well"))
            self._wait_until_well(instance, move.within)
            well = time.monotonic() - began
        checkpoint("move.well")
        instance = context.state.get(after.id)
        return Moved(
            instance=instance,
            source=move.before.isolation,
            downtime=down,
            well=well,
            copied=copied,
            dropped=dropped,
        )

    def _enter(self, instance: Instance, move: Move) -> Instance:
        """Start it behind the new wall. From here on what its disk there holds is what counts."""
        bundle = self._context.bundle_dir(instance)
        bundles.write_move(bundle, move.model_copy(update={"entered": True}))
        checkpoint("move.entering")
        try:
            return self._lifecycle.start(instance)
        except Unavailable:
            raise  # it may have run
        except BulkheadError:
            bundles.write_move(bundle, move)
            raise

    def _switch(self, instance: Instance, spec: Spec) -> Instance:
        uids = instance.uid_start
        if uids is None and spec.isolation in _OWN_UIDS:
            uids = self._context.state.lease_uid_range(spec.id)
        instance = records.save(self._context, instance, spec=spec, uid_start=uids)
        bundles.write_spec(self._context.bundle_dir(instance), spec)
        return instance

    def _wait_until_well(self, instance: Instance, within: float) -> None:
        """Until its health check passes, without one until it has run for a moment. Raises NotMoved."""
        spec, deadline = instance.spec, time.monotonic() + within
        settled = time.monotonic() + SETTLE_SECONDS
        while True:
            self._require_alive(instance)
            if spec.health and self._passes(instance, spec.health):
                self._lifecycle.set_health(spec.id, "healthy")
                return
            if not spec.health and time.monotonic() >= settled:
                return
            if time.monotonic() >= deadline:
                raise NotMoved(f"its health check did not pass within {within:g} s behind the {spec.isolation}")
            time.sleep(POLL_SECONDS)

    def _passes(self, instance: Instance, health: HealthCheck) -> bool:
        try:
            return self._check(instance, health)
        except BulkheadError:
            return False

    def _require_alive(self, instance: Instance) -> None:
        context = self._context
        bundle = context.bundle_dir(instance)
        handle: Handle | None = bundles.read_handle(bundle)
        found = context.driver(instance).inspect(bundle, handle) if handle else None
        if found is None or not found.running:
            code = f" with code {found.exit.code}" if found and found.exit else ""
            raise NotMoved(f"it ended{code} behind the {instance.spec.isolation}")

    def _done(self, instance: Instance, after: Spec) -> Instance:
        """The move has happened."""
        context = self._context
        bundle = context.bundle_dir(instance)
        bundles.forget_move(bundle)
        checkpoint("move.forgotten")
        context.disks.forget_old(bundle / bundles.DISK)
        with context.journal.recording(records.event_of(instance, "move", {"isolation": str(after.isolation)})):
            instance = self._let_address_go(instance)
        checkpoint("move.done")
        return instance

    def _let_address_go(self, instance: Instance) -> Instance:
        """Nobody waits for its address any more: it has it, or does not run."""
        if instance.kept_address is None or self._context.fleet_networks.find(instance.spec.network_key):
            return instance  # a fleet's addresses are for good
        self._context.networks.let_go(instance.kept_address)
        return records.save(self._context, instance, kept_address=None)

    # --- back

    def _back(self, instance_id: str, why: BaseException) -> None:
        """Behind the old wall again, with all that was written. Raises NotMoved, which says what came of it."""
        context = self._context
        instance = context.state.get(instance_id)
        move = bundles.read_move(context.bundle_dir(instance))
        if move is None:
            return
        checkpoint("moveback.begin")
        reason, hint = _words(why)
        name, old, new = move.before.name, move.before.isolation, move.after.isolation
        try:
            if instance.state in (State.RUNNING, State.PAUSED):
                instance = self._lifecycle.stop(instance)
            self._bring_disk_back(instance, move)
        except BulkheadError as error:
            self._strand(instance, move)
            what = f"{name} could not be moved to a {new} ({reason}), nor back: {error}"
            raise NotMoved(what, hint=f"its data is behind the {new}: bulkhead start {name}") from why
        checkpoint("moveback.disk")
        instance = self._switch(instance, move.before)
        checkpoint("moveback.switched")
        failed = ""
        if move.ran:
            try:
                instance = self._lifecycle.start(instance)
            except BulkheadError as error:
                failed = f", where it could not be started again: {error.what}"
        checkpoint("moveback.started")
        self._forget(instance)
        state = "runs as" if move.ran and not failed else "is"
        raise NotMoved(f"{name} was not moved, it {state} a {old} as before{failed}: {reason}", hint=hint) from why

    def _bring_disk_back(self, instance: Instance, move: Move) -> None:
        disks, disk = self._context.disks, self._context.bundle_dir(instance) / bundles.DISK
        if move.before.isolation is Isolation.VM:
            if move.entered:
                disks.forget_old(disk)  # what has been written since is on the fresh one, which a guest may have
            else:
                disks.put_back(instance.spec.id, disk)
        elif not disks.finish_exchange(instance.spec.id, disk) and foreign.is_marked(disk):
            source = instance.model_copy(update={"spec": move.after})
            self._carrier.carry(source, move.before, quiet)

    def _strand(self, instance: Instance, move: Move) -> None:
        """It cannot come back: it stays behind the new wall, stopped, with all that it has written there."""
        with suppress(BulkheadError):
            self._lifecycle.release_run(instance)
        self._forget(self._switch(self._context.state.get(instance.spec.id), move.after))

    def _forget(self, instance: Instance) -> None:
        bundle = self._context.bundle_dir(instance)
        bundles.forget_move(bundle)
        self._context.disks.forget_old(bundle / bundles.DISK)
        self._let_address_go(self._context.state.get(instance.spec.id))


def _words(why: BaseException) -> tuple[str, str]:
    """The reason of a failure, and the hint."""
    if isinstance(why, BulkheadError):
        return why.what, why.hint
    if isinstance(why, BrokenPipeError):
        return "whoever asked for it has gone", ""
    return f"{type(why).__name__}: {why}", "see the daemon's log"
