"""Another plan for an instance: enforced where it runs, kept for its next start where it does not.

What is wanted is written down in the bundle first. After a crash in the middle it is done again from its beginning,
whatever part of it had been done; where that fails, the old plan is enforced.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from bulkhead.engine import bundles, machines, records, selling, sharing, snapshotting, unikernels, unmodified
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.metering import Meter
from bulkhead.engine.resources import Resources
from bulkhead.errors import Conflict
from bulkhead.model import Instance, Plan, RestartPolicy, State

_ALIVE = (State.RUNNING, State.PAUSED)


class Updates:
    """Changes the plans of instances."""

    def __init__(self, context: Context, resources: Resources, meter: Meter) -> None:
        self._context = context
        self._resources = resources
        self._meter = meter

    def carry_out(self, instance: Instance, *, plan: Plan, restart: RestartPolicy) -> Instance:
        """Give it another plan, enforced at once where it runs, and restart policy."""
        context, spec = self._context, instance.spec
        with context.locks.hold(spec.id):
            instance = context.state.get(spec.id)
            if plan != spec.plan:
                snapshotting.require_no_memory(context, instance)
            with ExitStack() as always:
                after = spec.model_copy(update={"plan": plan})
                always.enter_context(selling.growing(context, instance, after))
                self._begin(instance, plan, always)
                instance = self._enforce(instance, plan)
                changed = instance.spec.model_copy(update={"restart": restart})
                bundles.write_spec(context.bundle_dir(instance), changed)
                instance = records.save(context, instance, "update", spec=changed)
                self._meter.change(instance)
                checkpoint("update.saved")
            if instance.state is State.RUNNING:
                sharing.settle(context, spec.inside or spec.id)
        checkpoint("update.done")
        return instance

    def finish(self, instance: Instance) -> bool:
        """After a crash in the middle of an update: carry it out. False when there was none."""
        plan = bundles.read_update(self._context.bundle_dir(instance))
        if plan is None:
            return False
        self.carry_out(instance, plan=plan, restart=instance.spec.restart)
        return True

    def _enforce(self, instance: Instance, plan: Plan) -> Instance:
        """Put an instance under another plan: its record, not saved. An error leaves the old plan.

        All but this: a VM's disk that has grown stays so, also where the file system in it does not follow at once.
        """
        if machines.is_machine(instance.spec):
            return self._machine(instance, plan)
        spec = instance.spec
        if spec.inside:
            return self._inside(instance, plan)
        if plan.disk != spec.plan.disk:
            self._context.disks.resize(spec.id, self._context.bundle_dir(instance) / "disk.img", plan.disk)
        checkpoint("update.disk")
        if instance.state in _ALIVE:
            instance = self._resources.resize(instance, spec.plan, plan)
        checkpoint("update.enforced")
        return _with(instance, plan)

    def _begin(self, instance: Instance, plan: Plan, always: ExitStack) -> None:
        """Remember what is wanted until `always` ends."""
        directory = self._context.bundle_dir(instance)
        bundles.write_update(directory, plan)
        always.callback(partial(bundles.forget_update, directory))
        checkpoint("update.begin")

    def _inside(self, instance: Instance, plan: Plan) -> Instance:
        """Within a VM: the disk is a guest's, which alone can make its file system larger."""
        spec, context = instance.spec, self._context
        if plan.disk != spec.plan.disk and instance.state is not State.RUNNING:
            what = f"{spec.name} does not run: only its VM's guest can make its disk's file system larger"
            raise Conflict(what, hint=f"bulkhead start {spec.name}")
        if plan.disk != spec.plan.disk:
            context.disks.check_extension(context.bundle_dir(instance) / bundles.DISK, plan.disk)
            context.disks.extend(spec.id, context.bundle_dir(instance) / bundles.DISK, plan.disk)
        checkpoint("update.disk")
        if instance.state in _ALIVE:
            instance = self._resources.resize(instance, spec.plan, plan)
        checkpoint("update.enforced")
        return _with(instance, plan)

    def _machine(self, instance: Instance, plan: Plan) -> Instance:
        spec, context = instance.spec, self._context
        if instance.state is State.PAUSED:
            raise Conflict(
                f"VM {spec.name} is paused: it can take no part in a change", hint=f"bulkhead unpause {spec.name}"
            )
        alive = instance.state in _ALIVE
        if spec.system:
            unmodified.check_live(instance, plan)
        if spec.program:
            unikernels.check_live(instance, plan)
        machines.check_disk(context, instance, plan.disk)
        without_disk = plan.model_copy(update={"disk": spec.plan.disk})
        if alive:
            instance = self._resources.resize(instance, spec.plan, without_disk)
        checkpoint("update.enforced")
        if plan.disk == spec.plan.disk:
            return _with(instance, plan)
        if not spec.powered:
            machines.mark_grown(context, instance)
        context.disks.extend(spec.id, context.bundle_dir(instance) / "disk.img", plan.disk)
        checkpoint("update.disk")
        instance = _with(instance, plan)
        if alive:
            # From here on it has the larger disk; where its kernel does not make use of it now, the next start does.
            context.state.save(instance)
            instance = self._resources.resize(instance, without_disk, plan)
            machines.forget_grown(context, instance)
        return instance


def _with(instance: Instance, plan: Plan) -> Instance:
    return instance.model_copy(update={"spec": instance.spec.model_copy(update={"plan": plan})})
