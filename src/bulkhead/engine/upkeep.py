"""What is done about instances that run: how they end is recorded, their health is checked, they are started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bulkhead.engine.context import Context
from bulkhead.engine.exits import ExitWatcher
from bulkhead.engine.health import Check, HealthMonitor
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.engine.restarts import Restarter
from bulkhead.errors import BulkheadError
from bulkhead.model import Instance, State


class Upkeep:
    """Watches what runs, and does what restart policies and health checks say; `check` runs the command of one."""

    def __init__(self, context: Context, lifecycle: Lifecycle, check: Check) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._exits = ExitWatcher(lifecycle.finish)
        self._restarts = Restarter(self._restart)
        self._health = HealthMonitor(find=context.state.get, check=check, report=self._report_health)

    def begin(self) -> None:
        """Watch what runs and start what should run."""
        self._lifecycle.on_started = self._watch  # those that run by now are watched below
        # Not earlier: nothing is started while the pass looks for what is left over.
        self._lifecycle.on_exited = self._restarts.consider
        for instance in self._context.state.instances():
            if instance.state in (State.RUNNING, State.PAUSED):
                self._watch(instance)
            elif instance.state is State.EXITED:
                self._restarts.consider(instance)

    def quiet(self) -> None:
        """Start nothing any more."""
        self._restarts.close()
        self._health.close()

    def close(self) -> None:
        """Watch nothing any more."""
        self._exits.close()

    def _watch(self, instance: Instance) -> None:
        if instance.spec.build:
            return  # the build watches it
        self._exits.add(instance.spec.id, instance.started, self._context.bundle_dir(instance))
        self._health.add(instance)

    def _restart(self, instance_id: str) -> None:
        instance = self._context.state.get(instance_id)
        due = not instance.stop_requested and instance.state is State.EXITED
        if due and self._context.places.may_run(instance):
            with self._going_on(instance_id):
                self._lifecycle.start(instance, restarts=instance.restarts + 1)

    def _report_health(self, instance_id: str, health: str) -> None:
        with self._going_on(instance_id):
            self._lifecycle.set_health(instance_id, health)

    @contextmanager
    def _going_on(self, instance_id: str) -> Iterator[None]:
        """A restart that fails counts as an end: the restart policy holds for it as well."""
        try:
            yield
        except BulkheadError:
            self._restarts.consider(self._context.state.get(instance_id))
            raise
