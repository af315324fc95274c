"""The end of a supervisor that does not do what it is asked: one that is stopped, or stuck."""

from __future__ import annotations

import time
from pathlib import Path

from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import BulkheadError, Unavailable
from bulkhead.host import processes

EXECUTABLE = "/memfd:agent"
"""What /proc says a supervisor runs: the sealed copy of the agent."""
ANSWER_SECONDS = 2.0
"""Within which a supervisor answers, unless it is busy with an end already."""
QUIT_SECONDS = 15.0
"""Within which it has ended: it tries for 10 s to kill, then for 2 s to remove each cgroup."""
STOPPED_SECONDS = 1.0
"""How long a stopped supervisor may wait to be continued by whoever has stopped it."""


def quit_or_kill(bundle: Path) -> None:
    """End the supervisor of a bundle and all that it supervises, if there is one. Returns when it has gone.

    One that does not answer is killed; what it leaves then is for whoever removes its cgroups.
    """
    try:
        with Session.connect(bundle / SOCKET) as session:
            session.quit(timeout=ANSWER_SECONDS)
    except BulkheadError as error:
        if not isinstance(error.__cause__, (TimeoutError, BlockingIOError)):
            return  # nobody listens, or it has ended in the middle of the answer
        for pid, started in processes.holding(bundle, EXECUTABLE):
            unstick(pid, started)
            if not processes.wait_gone(pid, started, timeout=QUIT_SECONDS):
                _kill(pid, started)


def unstick(pid: int, started: int) -> None:
    """Kill a supervisor that is stopped and is not continued soon: it would never answer."""
    end = time.monotonic() + STOPPED_SECONDS
    while processes.is_stopped(pid, started):
        if time.monotonic() > end:
            _kill(pid, started)
            return
        time.sleep(0.05)


def _kill(pid: int, started: int) -> None:
    processes.kill(pid, started)
    if not processes.wait_gone(pid, started, timeout=QUIT_SECONDS):
        raise Unavailable(f"the supervisor {pid} does not end after KILL", hint="see `cat /proc/PID/stack`, and dmesg")
