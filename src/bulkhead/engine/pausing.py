"""Instances that are frozen, and go on."""

from __future__ import annotations

from pathlib import Path

from bulkhead.engine import bundles, inside, records
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import Conflict, Refused
from bulkhead.isolation.base import Handle, Pauses
from bulkhead.model import Instance, State


class Pausing:
    """Freezes and thaws, under the instance's lock."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def pause(self, instance: Instance) -> Instance:
        """Freeze it."""
        with self._context.locks.hold(instance.spec.id):
            instance, driver, bundle, handle = self._expect(instance, State.RUNNING)
            checkpoint("pause.begin")
            driver.pause(bundle, handle)
            checkpoint("pause.frozen")
            instance = records.save(self._context, instance, "pause", state=State.PAUSED)
        checkpoint("pause.done")
        return instance

    def unpause(self, instance: Instance) -> Instance:
        """Let it go on."""
        with self._context.locks.hold(instance.spec.id):
            instance, driver, bundle, handle = self._expect(instance, State.PAUSED)
            checkpoint("unpause.begin")
            driver.resume(bundle, handle)
            checkpoint("unpause.thawed")
            instance = records.save(self._context, instance, "unpause", state=State.RUNNING)
        checkpoint("unpause.done")
        return instance

    def _expect(self, instance: Instance, state: State) -> tuple[Instance, Pauses, Path, Handle]:
        instance = self._context.state.get(instance.spec.id)
        inside.require_awake(self._context, instance.spec)
        name, driver, bundle = instance.spec.name, self._context.driver(instance), self._context.bundle_dir(instance)
        if instance.state is not state:
            raise Conflict(f"instance {name} is {instance.state}, not {state}", hint=f"bulkhead inspect {name}")
        if not isinstance(driver, Pauses):
            raise Refused(f"a {instance.spec.isolation} cannot be paused", hint=f"bulkhead stop {name}")
        return instance, driver, bundle, bundles.require_handle(bundle)
