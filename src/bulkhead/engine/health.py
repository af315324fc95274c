"""Health checks: commands run in instances at intervals, with what follows from their failures."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bulkhead.errors import BulkheadError, NotFound
from bulkhead.model import HealthCheck, Instance, State

log = logging.getLogger(__name__)
WORKERS = 4

Check = Callable[[Instance, HealthCheck], bool]
Report = Callable[[str, str], object]


class HealthMonitor:
    """Runs `check(instance, health)` for every instance that has one and reports "healthy" or "unhealthy".

    `find` gives the instance as it is now (NotFound when gone). One thread keeps the time, a few run the checks.
    """

    def __init__(self, *, find: Callable[[str], Instance], check: Check, report: Report) -> None:
        self._find, self._check, self._report = find, check, report
        self._due: list[tuple[float, str, float]] = []
        self._failures: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="health")
        self._thread = threading.Thread(target=self._loop, name="health", daemon=True)
        self._thread.start()

    def add(self, instance: Instance) -> None:
        """Begin with an instance that has just started, or was found running."""
        if instance.spec.health:
            self._failures[instance.spec.id] = 0
            self._schedule(instance, instance.spec.health)

    def close(self) -> None:
        """Stop checking. Nobody waits for a check that is under way: what it finds is no longer asked for."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout=5)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _schedule(self, instance: Instance, health: HealthCheck) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + health.interval, instance.spec.id, instance.started))
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, instance_id, started = heapq.heappop(self._due)
            self._workers.submit(self._run, instance_id, started)

    def _run(self, instance_id: str, started: float) -> None:
        try:
            self._check_one(instance_id, started)
        except Exception:
            log.exception("health check of %s", instance_id)

    def _check_one(self, instance_id: str, started: float) -> None:
        try:
            instance = self._find(instance_id)
        except NotFound:
            self._failures.pop(instance_id, None)
            return
        health = instance.spec.health
        # A later start has its own series of checks.
        if health is None or instance.started != started:
            return
        if instance.state is State.PAUSED:
            self._schedule(instance, health)
            return
        if instance.state is not State.RUNNING:
            return
        try:
            passed = self._check(instance, health)
        except BulkheadError as error:
            log.info("health check of %s: %s", instance.spec.name, error)
            passed = False
        if self._closing:
            return
        if not passed and self._is_paused(instance_id):
            # The command was frozen with the rest.
            self._schedule(instance, health)
            return
        try:
            self._judge(instance, health, passed=passed)
        except BulkheadError as error:
            log.warning("health of %s: %s", instance.spec.name, error)
        self._schedule(instance, health)

    def _is_paused(self, instance_id: str) -> bool:
        try:
            return self._find(instance_id).state is State.PAUSED
        except NotFound:
            return False

    def _judge(self, instance: Instance, health: HealthCheck, *, passed: bool) -> None:
        instance_id = instance.spec.id
        if passed:
            self._failures[instance_id] = 0
            if instance.health != "healthy":
                self._report(instance_id, "healthy")
            return
        if time.time() - instance.started < health.start_period:
            return
        self._failures[instance_id] = self._failures.get(instance_id, 0) + 1
        if self._failures[instance_id] == health.retries:
            self._report(instance_id, "unhealthy")
