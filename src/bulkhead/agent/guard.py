"""The guard of a host, as the daemon talks to it: a process of its own that ends instances once a deadline has passed
which nobody has put off, whatever has become of the daemon. See design 0032.

Its directory has a file per instance: in `armed` those that it is to end, in `fenced` those that it has ended since.
Times are nanoseconds of the clock that runs on while the host sleeps (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bulkhead.agent.launch import find_agent
from bulkhead.agent.session import short_path
from bulkhead.errors import AgentError
from bulkhead.host import processes, syscalls

LISTEN_FD = 3
PASSED = 1
"""A deadline that lies behind, whenever it is asked."""
ANSWER_SECONDS = 5.0
_MESSAGE = struct.Struct("=QQ")
_QUIT = 1
_HIGH_FD = 512
_INSTANCE = re.compile(r"^[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class Told:
    """What the guard says."""

    deadline: int
    """The one in force."""
    fenced: int
    """The last one after which it has ended everything; 0: none yet."""

    @property
    def settled(self) -> bool:
        """Whether nothing is still to be ended: the deadline lies ahead, or everything was."""
        return now() < self.deadline or self.fenced >= self.deadline


def now() -> int:
    """Nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Guard:
    """The guard of this host. Thread-safe. `trees`: directories with a cgroup per instance; `silence`: seconds for
    which a daemon may stand still once the deadline has passed, before it is ended.
    """

    def __init__(self, directory: Path, trees: Sequence[Path], *, silence: float) -> None:
        self._directory, self._trees, self._silence = directory, tuple(trees), silence
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()

    # --- whom it is about

    def armed(self) -> set[str]:
        """Ids of the instances that it is to end."""
        return _ids(self._directory / "armed")

    def fenced(self) -> set[str]:
        """Ids of those that it has ended, and that nobody has looked after since."""
        return _ids(self._directory / "fenced")

    def arm(self, instance_id: str, until: int) -> Told:
        """From before it returns the guard ends this instance once `until` has passed. Raises AgentError."""
        with self._lock:
            armed, fenced = self._directory / "armed" / instance_id, self._directory / "fenced" / instance_id
            for path in (armed, fenced):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            armed.touch(mode=0o600)
            fenced.unlink(missing_ok=True)
            return self._tell(until, begin=until)

    def disarm(self, instance_id: str) -> None:
        """It is nothing to the guard any more. Idempotent."""
        for name in ("armed", "fenced"):
            (self._directory / name / instance_id).unlink(missing_ok=True)

    # --- what it is told

    def tell(self, until: int, *, begin: int) -> Told:
        """Put the deadline off until then; 0: let it be. Where there is no guard one begins with the deadline `begin`.

        Raises AgentError.
        """
        with self._lock:
            return self._tell(until, begin=begin)

    def quit(self) -> bool:
        """Let it end, where it is about nothing any more; whether it is. Idempotent."""
        with self._lock:
            if self.armed() or self.fenced():
                return False
            with suppress(OSError):
                self._ask(0, _QUIT)
            self._forget()
            return True

    def close(self) -> None:
        """Let go of it; it goes on."""
        with self._lock:
            self._forget()

    # --- inside

    def _tell(self, until: int, *, begin: int) -> Told:
        try:
            return self._ask(until, 0)
        except OSError:
            self._forget()
        try:
            self._begin(begin)
            return self._ask(until, 0)
        except OSError as error:
            self._forget()
            raise AgentError(f"this host's guard does not answer: {error}", hint="see bulkhead doctor") from error

    def _ask(self, until: int, command: int) -> Told:
        connection = self._connection or self._connect()
        connection.send(_MESSAGE.pack(until, command))
        answer = connection.recv(_MESSAGE.size)
        if len(answer) != _MESSAGE.size:
            raise ConnectionResetError("it has ended")
        return Told(*_MESSAGE.unpack(answer))

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(ANSWER_SECONDS)
            with short_path(self._directory / "socket") as name:
                connection.connect(name)
        except OSError:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begin(self, deadline: int) -> None:
        """Start one. A sealed copy of the agent, as supervisors are; the child that is started ends at once."""
        path = self._directory / "socket"
        path.unlink(missing_ok=True)
        words = [str(deadline), str(int(self._silence * 1e9)), str(self._directory), *map(str, self._trees)]
        sealed = syscalls.sealed_memfd("agent", find_agent().read_bytes())
        try:
            binary = fcntl.fcntl(sealed, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)  # LISTEN_FD would cover a low one
        finally:
            os.close(sealed)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
                with short_path(path) as name:
                    listener.bind(name)
                path.chmod(0o600)
                listener.listen(4)
                argv = ["agent", "guard", str(LISTEN_FD), *words]
                pid = processes.spawn(f"/proc/self/fd/{binary}", argv, fds={LISTEN_FD: listener.fileno()})
                _, status = os.waitpid(pid, 0)
        finally:
            os.close(binary)
        if code := os.waitstatus_to_exitcode(status):
            raise AgentError(f"this host's guard did not start ({code})", hint="bulkhead doctor checks the agent")


def _ids(directory: Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir() if _INSTANCE.match(path.name)}
    except FileNotFoundError:
        return set()
