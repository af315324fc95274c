"""Starting agents on this host: from a sealed copy of their binary, with the descriptors they are meant to have."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

from bulkhead.agent.session import SOCKET, short_path
from bulkhead.errors import AgentError, Unavailable
from bulkhead.host import processes, syscalls

CONTROL_FD = 3
NETNS_FD = 5
NETNS_PATH = f"/proc/self/fd/{NETNS_FD}"
"""What `Start.netns` is when the agent was launched with a network namespace."""
NETNS_NEW = "new"
"""What it is for a namespace of its own that has nothing but lo."""
BUILT = Path(__file__).resolve().parents[3] / "agent" / "build" / "agent"
INSTALLED = Path("/usr/lib/bulkhead/agent")
MAX_INHERITED = 2
BACKLOG = 64
SPAWN_SECONDS = 10.0


def find_agent() -> Path:
    """The agent's binary: `$BULKHEAD_AGENT`, the checkout's build, or the installed one. Raises Unavailable."""
    named = os.environ.get("BULKHEAD_AGENT")
    candidates = [Path(named)] if named else [BUILT, INSTALLED]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " and ".join(map(str, candidates))
    raise Unavailable(f"the agent's binary is missing: looked for {looked}", hint="build it with make -C agent")


def inherited_fd(index: int, *, netns: bool) -> int:
    """The number of `launch`'s descriptor `inherit[index]` in the supervisor: what INHERIT names.

    `netns`: whether a network namespace is handed over as well.
    """
    return NETNS_FD + netns + index


def launch(binary: Path, bundle: Path, *, netns_fd: int | None = None, inherit: Sequence[int] = ()) -> int:
    """Start a supervisor that listens on `agent.sock` in the bundle; its pid.

    `inherit`: at most two descriptors more, which a START may let its workload keep (`inherited_fd`). The caller
    waits for nothing and reaps nothing: the supervisor is no child of this process. Raises AgentError.
    """
    if len(inherit) > MAX_INHERITED:
        raise ValueError(f"{len(inherit)} descriptors to inherit, at most {MAX_INHERITED} fit")
    with ExitStack() as stack:
        directory = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        listener = stack.enter_context(listen(bundle / SOCKET))
        fds = [directory, listener.fileno(), *([] if netns_fd is None else [netns_fd]), *inherit]
        try:
            return _spawner(binary, binary.stat().st_mtime_ns).spawn(fds)
        except AgentError:
            (bundle / SOCKET).unlink(missing_ok=True)
            raise


class Spawner:
    """A child that forks supervisors on request: that costs a tenth of starting a program.

    It ends when this process does; supervisors go on. One that has been killed is started again with the next request.
    """

    def __init__(self, binary: Path) -> None:
        self._executable = syscalls.sealed_memfd("agent", binary.read_bytes())
        """Nobody can write to it: a workload that gets at /proc/PID/exe of its supervisor finds only this."""
        self._guard = threading.Lock()
        self._control: socket.socket | None = None

    def spawn(self, fds: Sequence[int]) -> int:
        """Fork a supervisor that gets these descriptors; its pid. Raises AgentError."""
        with self._guard:
            try:
                return self._ask(fds)
            except OSError:
                self._forget()
            try:
                return self._ask(fds)
            except OSError as error:
                self._forget()
                hint = "bulkhead doctor checks the agent"
                raise AgentError(
                    f"the agent did not start a supervisor: {error.strerror or error}", hint=hint
                ) from error

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _ask(self, fds: Sequence[int]) -> int:
        control = self._control or self._start()
        socket.send_fds(control, [b"+"], list(fds))
        answer = control.recv(4)
        if len(answer) != 4:
            raise ConnectionResetError("the spawner has ended")
        pid = int.from_bytes(answer, "little", signed=True)
        if pid <= 0:
            raise BlockingIOError("this host has no room for another process")
        return pid

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with theirs:
            ours.settimeout(SPAWN_SECONDS)
            executable = f"/proc/self/fd/{self._executable}"
            processes.spawn(executable, ["agent", "spawn", str(CONTROL_FD)], fds={CONTROL_FD: theirs.fileno()})
        self._control = ours
        return ours


def listen(path: Path) -> socket.socket:
    """A listening unix socket at `path`, in place of a stale one, for root alone."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@lru_cache(maxsize=4)
def _spawner(binary: Path, _changed: int) -> Spawner:
    """The spawner of one build of the agent."""
    return Spawner(binary)
