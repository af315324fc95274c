"""Restart policies: start again what ended by itself, ever more slowly while it keeps failing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bulkhead.errors import BulkheadError
from bulkhead.model import Instance

log = logging.getLogger(__name__)
FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
SETTLED = 10.0
"""A workload that ran this long starts again without delay's growth (as Docker does)."""


def wanted(instance: Instance) -> bool:
    """Whether the policy wants an ended instance to run again."""
    policy, ended = instance.spec.restart, instance.exit
    if instance.stop_requested or ended is None or policy.kind == "no":
        return False
    if policy.kind == "always":
        return True
    return ended.code != 0 and (policy.retries == 0 or instance.restarts < policy.retries)


def delay(instance: Instance) -> float:
    """Seconds to wait before the next start: doubled with every restart in a row."""
    # By the exit's own times: of a start that failed both are the same, whenever the run before it began.
    if instance.exit and instance.exit.started and instance.exit.ended - instance.exit.started > SETTLED:
        return FIRST_DELAY
    return min(FIRST_DELAY * float(1 << min(instance.restarts, 10)), LONGEST_DELAY)


class Restarter:
    """Waits for the delay and calls `restart(instance_id)`; an instance is scheduled at most once.

    A restart that fails is the caller's to consider again: the record tells how often it has been tried.
    """

    def __init__(self, restart: Callable[[str], object]) -> None:
        self._restart = restart
        self._timers: dict[str, threading.Timer] = {}
        self._guard = threading.Lock()

    def consider(self, instance: Instance) -> None:
        """An instance has ended: schedule a restart where its policy wants one."""
        if not wanted(instance):
            return
        instance_id = instance.spec.id
        timer = threading.Timer(delay(instance), self._run, (instance_id,))
        timer.daemon = True
        with self._guard:
            earlier = self._timers.pop(instance_id, None)
            self._timers[instance_id] = timer
        if earlier:
            earlier.cancel()
        timer.start()

    def _run(self, instance_id: str) -> None:
        with self._guard:
            self._timers.pop(instance_id, None)
        try:
            self._restart(instance_id)
        except BulkheadError as error:
            log.warning("restart of %s: %s", instance_id[:12], error)

    def close(self) -> None:
        """Forget what is scheduled; the next daemon looks at every instance again."""
        with self._guard:
            timers = list(self._timers.values())
            self._timers.clear()
        for timer in timers:
            timer.cancel()
