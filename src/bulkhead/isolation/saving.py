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
_IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
"""Memory that is a file is not part of the state (QEMU 2.12 and later)."""


def save(monitor: Qmp, state: Path) -> None:
    """Stop the guest and write its devices' state to a new file `state`; QEMU ends. Raises AgentError, HostError."""
    with ExitStack() as always:
        descriptor = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        always.callback(os.close, descriptor)
        monitor.execute("stop")
        monitor.execute("migrate-set-capabilities", _IGNORE_SHARED)
        monitor.hand_over(descriptor, _NAME)
        monitor.execute("migrate", {"uri": f"fd:{_NAME}"})
        _wait(monitor, "query-migrate", done="completed", failed=("failed", "cancelled"))
        monitor.execute("quit")


def load(monitor: Qmp, state: Path) -> None:
    """Give a QEMU that waits for it (`-incoming defer`) what `save` wrote. Raises AgentError, HostError."""
    with ExitStack() as always:
        descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
        always.callback(os.close, descriptor)
        monitor.execute("migrate-set-capabilities", _IGNORE_SHARED)
        monitor.hand_over(descriptor, _NAME)
        monitor.execute("migrate-incoming", {"uri": f"fd:{_NAME}"})
        _wait(monitor, "query-status", done="paused", failed=("shutdown", "internal-error", "guest-panicked"))


def _wait(monitor: Qmp, query: str, *, done: str, failed: tuple[str, ...]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        answer = monitor.execute(query)
        status = answer.get("status") if isinstance(answer, dict) else None
        if status == done:
            return
        if status in failed or time.monotonic() > deadline:
            raise AgentError(f"a guest's state could not be moved: QEMU says {str(status)[:100]!r}")
        time.sleep(_PAUSE)
