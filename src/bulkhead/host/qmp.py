"""QEMU's monitor (QMP), synchronously: a small face of the `qemu.qmp` library, which speaks asyncio.

QEMU is not trusted: a guest may have broken out into it. An answer has a limit in size (the library's 10 MiB) and in
time, events are not collected, and its socket is opened without following a link that it may have put there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from bulkhead.errors import HostError, Unavailable

T = TypeVar("T")
# Its ends of connections are ours to tell.
logging.getLogger("qemu.qmp").setLevel(logging.ERROR)
TIMEOUT = 10.0
_PAUSE = 0.002


class QmpError(HostError):
    """QEMU refused a command."""


def connect_below(directory: Path, name: str) -> socket.socket:
    """A connection to the unix socket `name` in a directory that a stranger can write to. Raises Unavailable."""
    with ExitStack() as always:
        try:
            parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            always.callback(os.close, parent)
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            always.callback(os.close, found)
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                raise Unavailable(f"{directory / name} is not a socket")
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            undo = always.enter_context(ExitStack())
            undo.callback(connection.close)
            connection.connect(f"/proc/self/fd/{found}")
            undo.pop_all()
        except OSError as error:
            raise Unavailable(f"nobody answers at {directory / name}: {error.strerror}") from error
    return connection


class Qmp:
    """One connection, ready for commands. For one thread. QEMU serves one connection at a time."""

    def __init__(self, connection: socket.socket, *, name: str = "QEMU", timeout: float = TIMEOUT) -> None:
        self._name, self._timeout = name, timeout
        self._client = QMPClient()
        # Whoever wants an event asks for the state instead: a flood of them is dropped.
        self._client.events.event_filter = lambda _: False
        with ExitStack() as undo:
            undo.callback(connection.close)
            self._runner = asyncio.Runner()
            undo.callback(self._runner.close)
            self._run(self._client.connect(connection), "its greeting")
            undo.pop_all()

    @classmethod
    def open(cls, directory: Path, name: str, *, timeout: float = TIMEOUT) -> Qmp:
        """Connect to the socket `name` in `directory`, once it is there. Raises Unavailable after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return cls(connect_below(directory, name), name=f"QEMU at {directory / name}", timeout=timeout)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """One command's answer. Raises QmpError where QEMU refuses it, Unavailable where none comes."""
        return self._run(self._client.execute(command, arguments), command)

    def hand_over(self, descriptor: int, name: str) -> None:
        """Give QEMU a descriptor, which commands then call `name`."""
        self._client.send_fd_scm(descriptor)
        self.execute("getfd", {"fdname": name})

    def add_file(self, descriptor: int) -> str:
        """Give QEMU an open file; the name by which it opens that as often as it likes."""
        self._client.send_fd_scm(descriptor)
        answer = self.execute("add-fd")
        number = answer.get("fdset-id") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise QmpError(f"{self._name} does not tell where it has put a file")
        return f"/dev/fdset/{number}"

    def close(self) -> None:
        """Give the connection up; QEMU goes on."""
        try:
            self._run(self._client.disconnect(), "the end of the connection")
        except (Unavailable, QmpError):
            pass  # it has ended
        finally:
            self._runner.close()

    def _run(self, work: Awaitable[T], what: str) -> T:
        async def limited() -> T:
            return await asyncio.wait_for(work, self._timeout)

        try:
            return self._runner.run(limited())
        except ExecuteError as error:
            raise QmpError(f"{self._name} refuses {what}: {error.error.error.desc[:300]!r}") from error
        except TimeoutError as error:
            raise Unavailable(f"{self._name} did not answer ({what}) within {self._timeout:g} s") from error
        except (QMPError, OSError, EOFError) as error:
            raise Unavailable(f"{self._name} has gone ({what}): {error}") from error
