"""Starting an agent on this host: from a sealed copy of its binary, with the file descriptors it is meant to have."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

from bulkhead.agent.session import SOCKET, short_path
from bulkhead.errors import AgentError, HostError, Unavailable
from bulkhead.host import processes, syscalls

BUNDLE_FD, LISTEN_FD, NETNS_FD = 3, 4, 5
NETNS_PATH = f"/proc/self/fd/{NETNS_FD}"
"""What `Start.netns` is when the agent was launched with a network namespace."""
INSTALLED = Path("/usr/lib/bulkhead/agent")
BACKLOG = 64


def find_agent() -> Path:
    """The agent's binary: `$BULKHEAD_AGENT`, the checkout's build, or the installed one. Raises Unavailable."""
    named = os.environ.get("BULKHEAD_AGENT")
    built = Path(__file__).resolve().parents[3] / "agent" / "build" / "agent"
    candidates = [Path(named)] if named else [built, INSTALLED]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " and ".join(map(str, candidates))
    raise Unavailable(f"the agent's binary is missing: looked for {looked}", hint="build it with make -C agent")


def launch(binary: Path, bundle: Path, *, netns_fd: int | None = None) -> int:
    """Start a supervisor that listens on `agent.sock` in the bundle; its pid.

    The caller waits for nothing and reaps nothing: the supervisor is no child of this process. Raises AgentError.
    """
    with ExitStack() as stack:
        directory = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        listener = stack.enter_context(listen(bundle / SOCKET))
        fds = {BUNDLE_FD: directory, LISTEN_FD: listener.fileno()}
        if netns_fd is not None:
            fds[NETNS_FD] = netns_fd
        try:
            said = processes.spawn(
                f"/proc/self/fd/{_sealed(binary, binary.stat().st_mtime_ns)}",
                ["agent", "supervise", str(BUNDLE_FD), str(LISTEN_FD)],
                fds=fds,
            )
            return int(said)
        except (HostError, ValueError) as error:
            (bundle / SOCKET).unlink(missing_ok=True)
            raise AgentError(f"the agent did not start: {error}", hint="bulkhead doctor checks it") from error


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
def _sealed(binary: Path, _changed: int) -> int:
    """A copy that nobody can write to: a workload that gets at /proc/PID/exe of its supervisor finds only this."""
    return syscalls.sealed_memfd("agent", binary.read_bytes())
