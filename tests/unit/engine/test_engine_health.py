"""Health checks that are under way when something else happens."""

from __future__ import annotations

import threading
import time

from bulkhead.engine.health import HealthMonitor
from bulkhead.model import HealthCheck, Instance, Isolation, Plan, Spec, State


def checked(state: State = State.RUNNING) -> Instance:
    """An instance with a check that is due at once and counts at its first failure."""
    spec = Spec(
        id="0" * 32,
        name="checked",
        image="busybox",
        image_digest="sha256:0",
        isolation=Isolation.CONTAINER,
        plan=Plan(memory=64 << 20, cpus=1, disk=64 << 20),
        argv=("true",),
        hostname="checked",
        network="none",
        health=HealthCheck(command=("true",), interval=0.1, timeout=30, retries=1),
        created=0,
    )
    return Instance(spec=spec, state=state, started=time.time())


class World:
    """An instance whose check waits for `answer`, then fails."""

    def __init__(self) -> None:
        self.instance = checked()
        self.asked, self.answer = threading.Event(), threading.Event()
        self.reports: list[str] = []
        self.monitor = HealthMonitor(
            find=lambda _: self.instance, check=self._check, report=lambda _, health: self.reports.append(health)
        )
        self.monitor.add(self.instance)

    def _check(self, _instance: Instance, _health: HealthCheck) -> bool:
        self.asked.set()
        self.answer.wait(20)
        return False


def test_the_end_waits_for_no_check_and_hears_of_none() -> None:
    world = World()
    assert world.asked.wait(10)
    world.monitor.close()
    assert not world.answer.is_set(), "the check is still under way"
    world.answer.set()
    time.sleep(0.2)
    assert world.reports == []


def test_what_is_frozen_meanwhile_has_not_failed() -> None:
    world = World()
    try:
        assert world.asked.wait(10)
        world.instance = checked(State.PAUSED)
        world.answer.set()
        time.sleep(0.2)
        assert world.reports == []
    finally:
        world.monitor.close()
