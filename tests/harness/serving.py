"""A server of somebody else's in a daemon's sandbox: a process that listens on the sandbox's loopback."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.harness.namespaces import Sandbox, in_network


class Served:
    """One server: `argv` is how it is started, `path` the PATH that it is given, `what` it is called when it fails."""

    what: str
    argv: Sequence[str]
    path: str

    def __init__(self, sandbox: Sandbox, directory: Path, *, port: int) -> None:
        self.sandbox, self.directory, self.port, self.pid = sandbox, directory, port, 0
        directory.mkdir(parents=True)
        self.log_file = directory / "log"

    def start(self) -> Self:
        """Start it and wait until it listens."""
        self.pid = self.sandbox.spawn(self.argv, env={"PATH": self.path}, output=self.log_file)
        deadline = time.monotonic() + 30
        while not self._listens():
            if time.monotonic() > deadline or self.sandbox.status(self.pid) is not None:
                raise AssertionError(f"the {self.what} does not start:\n{self.log()}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it. Idempotent."""
        pid, self.pid = self.pid, 0
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.sandbox.wait(pid)

    def log(self) -> str:
        """What it has said so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _listens(self) -> bool:
        def connect() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        return in_network(f"/proc/{self.sandbox.pid}/ns/net", connect)
