"""Commands in running instances: for users, and for health checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import ExecRequest
from bulkhead.agent.session import Session
from bulkhead.engine import bundles
from bulkhead.engine.context import Context
from bulkhead.errors import Conflict
from bulkhead.isolation.base import Collects, Command
from bulkhead.model import HealthCheck, Instance, State

HEALTH_OUTPUT = 4096
"""Bytes of a health check's output that are read before the rest is dropped."""


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands beside workloads."""

    context: Context

    def prepare(self, instance: Instance, command: Command) -> tuple[Path, ExecRequest]:
        """The agent's socket and what EXEC is to carry. Raises Conflict where the instance does not run."""
        require_running(instance)
        bundle = self.context.bundle_dir(instance)
        handle = bundles.require_handle(bundle)
        return bundle / "agent.sock", self.context.driver(instance).exec_request(instance.spec, handle, command)

    def collect(self, instance: Instance, command: Command, *, alive: Callable[[], bool]) -> Collected:
        """Run a command to its end where no client can be joined to it."""
        require_running(instance)
        driver = self.context.driver(instance)
        assert isinstance(driver, Collects)
        return driver.collect(self.context.bundle_dir(instance), command, alive=alive)

    def check_health(self, instance: Instance, health: HealthCheck) -> bool:
        """Whether the check's command ends with 0 in time."""
        agent, request = self.prepare(instance, Command(argv=health.command))
        with Session.connect(agent) as session:
            try:
                return session.exec_collect(request, timeout=health.timeout, limit=HEALTH_OUTPUT).code == 0
            except TimeoutError:
                return False


def require_running(instance: Instance) -> None:
    """Raise Conflict where an instance does not run."""
    if instance.state is not State.RUNNING:
        raise Conflict(
            f"instance {instance.spec.name} is {instance.state}, not running",
            hint=f"bulkhead {'unpause' if instance.state is State.PAUSED else 'start'} {instance.spec.name}",
        )
