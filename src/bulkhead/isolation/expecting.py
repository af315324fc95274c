"""A machine waits for another host's, which is to go on in it: QEMU's end of the disk and of the memory.

Nothing of the guest runs before `go_on`. Its disk comes by QEMU's own NBD server, whose socket is made before the
door to the directory of the sockets is closed; its memory by a pair of sockets. QEMU 7.2.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import AgentError
from bulkhead.host.qmp import Qmp, QmpError, connect_below
from bulkhead.isolation import guest, vmm
from bulkhead.isolation.departing import DISK_SOCKET, EXPORT
from bulkhead.isolation.migration import To

LOAD_SECONDS = 60.0
"""In which all that has come has been taken in."""
BOOT_SECONDS = 60.0
"""In which a guest that runs again answers, also under TCG on a busy host."""
_FD = "memory"
_PAUSE = 0.002
_SETTINGS = {"x-ignore-shared": False, "late-block-activate": True}


def open_door(monitor: Qmp, node: str) -> None:
    """Let a disk be written from outside. `node`: its block node."""
    server = {"type": "unix", "data": {"path": f"{vmm.SOCKETS}/{DISK_SOCKET}"}}
    monitor.execute("nbd-server-start", {"addr": server, "max-connections": 1})
    export = {"type": "nbd", "id": EXPORT, "name": EXPORT, "node-name": node, "writable": True}
    monitor.execute("block-export-add", export)


def opened(bundle: Path, to: To) -> socket.socket:
    """The end of one of the streams. Raises Unavailable, QmpError where it was opened before."""
    if to == "disk":
        return connect_below(bundle / vmm.DIRECTORY, DISK_SOCKET)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with theirs, Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            wanted = [{"capability": name, "state": state} for name, state in _SETTINGS.items()]
            monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
            monitor.hand_over(theirs.fileno(), _FD)
            monitor.execute("migrate-incoming", {"uri": f"fd:{_FD}"})
    except BaseException:
        ours.close()
        raise
    return ours


def complete(bundle: Path) -> None:
    """Wait until all of it is there, and close the door. Raises AgentError, Unavailable where it is not."""
    deadline = time.monotonic() + LOAD_SECONDS
    with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
        while (status := _status(monitor)) != "paused":
            if status != "inmigrate" or time.monotonic() > deadline:
                raise AgentError(f"the machine has not come whole: QEMU says {status[:100]!r}")
            time.sleep(_PAUSE)
        with suppress(QmpError):  # it was closed before
            monitor.execute("nbd-server-stop")


def go_on(bundle: Path, *, agent: bool) -> None:
    """Let the guest run, with the time that it is now, and randomness that the copy elsewhere has not. Idempotent."""
    with Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
        if _status(monitor) not in ("paused", "running"):
            raise AgentError(f"the machine cannot go on: QEMU says {_status(monitor)[:100]!r}")
        monitor.execute("cont")
    if not agent:
        return
    with Session.connect(bundle / SOCKET) as session:
        if session.info().get("state") == "running":
            return
        session.guest(f"{vmm.DIRECTORY}/{vmm.AGENT}", timeout=BOOT_SECONDS)
        session.resume(guest.renewal(guest.Moment.present()))


def _status(monitor: Qmp) -> str:
    answer = monitor.execute("query-status")
    return str(answer.get("status", "")) if isinstance(answer, dict) else ""
