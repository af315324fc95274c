"""Signals for what runs: through its agent, and for a machine its power button."""

from __future__ import annotations

import signal as signals
from contextlib import suppress

from bulkhead.agent.ending import ANSWER_SECONDS
from bulkhead.agent.session import Session
from bulkhead.engine import records
from bulkhead.engine.context import Context
from bulkhead.errors import BulkheadError, Refused
from bulkhead.isolation.base import Presses
from bulkhead.model import Instance
from bulkhead.quantities import parse_signal

ENDING = (signals.SIGTERM, signals.SIGINT, signals.SIGHUP, signals.SIGQUIT, signals.SIGPWR)
"""Signals that ask a program to end."""


class Signals:
    """Sends them, and remembers of those that ask for the end that it was asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def send(self, instance: Instance, number: int) -> Instance:
        """Any but KILL, to the workload's first process."""
        spec = instance.spec
        driver = self._context.driver(instance)
        if isinstance(driver, Presses):
            return self._press_power(instance, driver, number)
        if number == parse_signal(spec.stop_signal):
            with self._context.locks.hold(spec.id):
                instance = records.save(self._context, self._context.state.get(spec.id), stop_requested=True)
        with Session.connect(self._context.bundle_dir(instance) / "agent.sock") as session:
            session.signal(number)
        return instance

    def kill_now(self, instance: Instance) -> None:
        """KILL without waiting for the lock, which a stop may hold for its whole timeout."""
        with suppress(BulkheadError), Session.connect(self._context.bundle_dir(instance) / "agent.sock") as session:
            session.signal(signals.SIGKILL, everyone=True, timeout=ANSWER_SECONDS)

    def _press_power(self, instance: Instance, driver: Presses, number: int) -> Instance:
        """What a signal that asks for the end means to a machine."""
        if number not in ENDING:
            known = ", ".join(signals.Signals(each).name for each in ENDING)
            raise Refused(f"a machine takes no signal {number}", hint=f"{known} press its power button; KILL ends it")
        with self._context.locks.hold(instance.spec.id):
            instance = records.save(self._context, self._context.state.get(instance.spec.id), stop_requested=True)
        driver.press_power(self._context.bundle_dir(instance))
        return instance
