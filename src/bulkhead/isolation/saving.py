"""A stopped guest's devices into a file, and back: QEMU's migration with its memory left where it is."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

from bulkhead.errors import AgentError
from bulkhead.host.qmp import Qmp

SECONDS = 30.0
_NAME = "state"
_PAUSE = 0.001
IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
"""Memory that is a file is not part of the state (QEMU 2.12 and later)."""
WHOLE = {"capabilities": [{"capability": "x-ignore-shared", "state": False}]}
_SETTLED = frozenset({None, "none", "completed", "failed", "cancelled"})


def save(monitor: Qmp, state: Path) -> None:
    """Stop the guest and write its devices' state to a new file `state`; QEMU ends. Raises AgentError, HostError."""
    with ExitStack() as always:
        descriptor = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        always.callback(os.close, descriptor)
        monitor.execute("stop")
        monitor.execute("migrate-set-capabilities", IGNORE_SHARED)
        monitor.hand_over(descriptor, _NAME)
        monitor.execute("migrate", {"uri": f"fd:{_NAME}"})
        wait_saved(monitor)
        monitor.execute("quit")


def load(monitor: Qmp, state: Path, *, offset: int = 0, whole: bool = False, seconds: float = SECONDS) -> None:
    """Give a QEMU that waits for it (`-incoming defer`) what `save` wrote. Raises AgentError, HostError.

    `whole`: memory that is a file is part of the state. It begins at `offset`.
    """
    with ExitStack() as always:
        descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
        always.callback(os.close, descriptor)
        os.lseek(descriptor, offset, os.SEEK_SET)
        monitor.execute("migrate-set-capabilities", WHOLE if whole else IGNORE_SHARED)
        monitor.hand_over(descriptor, _NAME)
        monitor.execute("migrate-incoming", {"uri": f"fd:{_NAME}"})
        ended = ("shutdown", "internal-error", "guest-panicked")
        _wait(monitor, "query-status", done="paused", failed=ended, seconds=seconds)


def wait_saved(monitor: Qmp) -> None:
    """Wait until QEMU says that all of a state has been written. Raises AgentError."""
    _wait(monitor, "query-migrate", done="completed", failed=("failed", "cancelled"), seconds=SECONDS)


def wait_settled(monitor: Qmp) -> None:
    """Wait until nothing of a state is being written. Raises AgentError."""
    deadline = time.monotonic() + SECONDS
    while _status(monitor, "query-migrate") not in _SETTLED:
        if time.monotonic() > deadline:
            raise AgentError(f"QEMU has not given up saving a guest's state within {SECONDS:g} s")
        time.sleep(_PAUSE)


def _status(monitor: Qmp, query: str) -> object:
    answer = monitor.execute(query)
    return answer.get("status") if isinstance(answer, dict) else None


def _wait(monitor: Qmp, query: str, *, done: str, failed: tuple[str, ...], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        status = _status(monitor, query)
        if status == done:
            return
        if status in failed or time.monotonic() > deadline:
            raise AgentError(f"a guest's state could not be moved: QEMU says {str(status)[:100]!r}")
        time.sleep(_PAUSE)
