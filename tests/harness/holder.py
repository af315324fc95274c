"""The first process of a sandbox: namespaces of its own, and the parent of whatever is left without one.

Requests and answers are lines of JSON on stdin and stdout; the end of stdin ends everything in the sandbox.
{"spawn": {"argv", "env", "output"}}, {"daemon": the same} -> {"pid"}; {"status": pid} -> {"status": None or code}.
A daemon is this process again, which has loaded its code already: see loaded.py.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from select import select
from typing import Any

from bulkhead.engine import faults
from bulkhead.host import syscalls

_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def _enter(private_network: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    syscalls.unshare(syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWNET if private_network else 0))
    syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    if not private_network:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    # /sys/class/net shows the links of the namespace in which sysfs was mounted.
    groups = syscalls.open_tree("/sys/fs/cgroup", clone=True, recursive=True)
    syscalls.mount("sysfs", "/sys", "sysfs")
    syscalls.move_mount(groups, "/sys/fs/cgroup")
    os.close(groups)


def _spawn(request: Mapping[str, Any]) -> int:
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return os.posix_spawn(
            request["argv"][0],
            request["argv"],
            request["env"],
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP],
        )
    finally:
        os.close(output)


def _fork(request: Mapping[str, Any]) -> int:
    """As _spawn, of a daemon: argv's first word is its program, which is not looked at."""
    pid = os.fork()
    if pid == 0:
        try:
            _be_daemon(request)
        finally:
            os._exit(127)
    return pid


def _be_daemon(request: Mapping[str, Any]) -> None:
    from bulkhead.__main__ import main as command

    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((os.open("/dev/null", os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.closerange(3, 1 << 16)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"bulkhead", 0, 0, 0)
    os.environ.clear()
    os.environ.update(request["env"])
    faults.ask(os.environ.get("BULKHEAD_CRASH_AT", ""))
    sys.argv[:] = request["argv"]
    command()


def _reap(ended: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended[pid] = os.waitstatus_to_exitcode(status)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _end_all() -> None:
    """Kill and reap until nobody is left: orphans of the killed become children of this process."""
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(-1, 0)


def hold(network: str) -> None:
    """Be one, until the end of stdin. `network`: private, host."""
    _enter(network == "private")
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_writer)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in ENDS:  # what ends the run ends this as well: then stdin does, and everything here is ended in order
        signal.signal(number, signal.SIG_IGN)
    ended: dict[int, int] = {}
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    while True:
        ready, _, _ = select([0, wake_reader], [], [])
        if wake_reader in ready:
            os.read(wake_reader, 4096)
        _reap(ended)
        if 0 not in ready:
            continue
        line = sys.stdin.readline()
        if not line:
            break
        request = json.loads(line)
        sys.stdout.write(json.dumps(_answer(request, ended)) + "\n")
        sys.stdout.flush()
    _end_all()


def _answer(request: Mapping[str, Any], ended: Mapping[int, int]) -> dict[str, int | None]:
    if "daemon" in request:
        return {"pid": _fork(request["daemon"])}
    if "spawn" in request:
        return {"pid": _spawn(request["spawn"])}
    return {"status": ended.get(request["status"])}
