"""A witness of where an instance runs: looks at the cgroups of several hosts by itself, whatever their daemons say."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bulkhead.host import cgroups
from tests.harness.fleet import Host

PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class Sight:
    """When (monotonic seconds) an instance was first and last seen to run on a host, without a gap."""

    host: str
    first: float
    last: float


class Witness:
    """Looks again and again, in a thread, from its making to its end."""

    def __init__(self, hosts: Sequence[Host], instance_id: str) -> None:
        layout = cgroups.detect()
        self._files = {
            host.name: layout.path("pids", f"{host.daemon.config.cgroup}/{instance_id}") / "cgroup.procs"
            for host in hosts
        }
        self.sights: list[Sight] = []
        self.twice = 0
        """How often it was seen on two hosts at once."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(PAUSE):
            seen = [name for name, file in self._files.items() if _any(file)]
            if len(seen) > 1:
                self.twice += 1
            for name in seen:
                self._note(name, time.monotonic())

    def _note(self, host: str, when: float) -> None:
        if self.sights and self.sights[-1].host == host:
            self.sights[-1] = Sight(host, self.sights[-1].first, when)
        else:
            self.sights.append(Sight(host, when, when))

    @property
    def route(self) -> list[str]:
        """The hosts that it was seen on, in order."""
        return [sight.host for sight in self.sights]

    @property
    def gap(self) -> float:
        """Seconds between the last sight of it on the first host and the first on the next one."""
        return self.sights[1].first - self.sights[0].last

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _any(file: object) -> bool:
    try:
        with open(str(file), "rb") as opened:  # noqa: PTH123 - a hundred times a second
            return bool(opened.read(1))
    except OSError:
        return False
