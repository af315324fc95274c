"""QEMU alone: the same guest without a jail, a supervisor or an instance, from a template's files or booted."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.timing import Unusable, environment, find
from bulkhead.agent.frames import Frame, Type, encode

PATIENCE = 60.0
HERE = "/run/vm"
"""Where the jail that the command line was made for has its files."""


class Monitor:
    """QEMU's monitor, with nothing between it and the clock."""

    def __init__(self, path: Path) -> None:
        self._socket = connect(path)
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> object:
        """A command's answer. Raises Unusable."""
        return self._ask(command, arguments, [])

    def hand_over(self, descriptor: int, name: str) -> None:
        """Give QEMU a descriptor under a name."""
        self._ask("getfd", {"fdname": name}, [descriptor])

    def _ask(self, command: str, arguments: dict[str, object], descriptors: list[int]) -> object:
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        socket.send_fds(self._socket, [text], descriptors)
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise Unusable(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Bare:
    """A guest as a running instance's hypervisor was told to make it: its files copied, its jail left out.

    `pid` is that hypervisor's, `template` the directory of the template that it came from.
    """

    def __init__(self, pid: int, template: Path, directory: Path) -> None:
        self._directory = directory
        self._program = find("qemu-system-x86_64", "qemu-system-x86")
        for name in ("kernel", "initrd", "disk", "layers/0"):
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"/proc/{pid}/root{HERE}/{name}", target)
        for name in ("ram", "state"):
            shutil.copy(template / name, directory / name)
        (directory / "sockets").mkdir()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[1:-1]
        inside = [word.replace(f"{HERE}/", f"{directory}/") for word in words]
        self._restored = [re.sub(r"mem-path=[^,]*", f"mem-path={directory}/ram", word) for word in inside]

    def restore(self) -> float:
        """Milliseconds from before QEMU is started to the agent's answer, from the template."""
        with ExitStack() as stack:
            start = time.perf_counter()
            monitor = self._start(self._restored, stack)
            monitor("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
            with (self._directory / "state").open("rb") as state:
                monitor.hand_over(state.fileno(), "state")
            monitor("migrate-incoming", uri="fd:state")
            while True:
                status = monitor("query-status")
                if isinstance(status, dict) and status["status"] != "inmigrate":
                    break
            return self._answered(monitor, start)

    def boot(self) -> float:
        """As `restore`, from nothing."""
        with ExitStack() as stack:
            words = list(self._restored)
            for flag in ("-incoming", "-object"):
                at = words.index(flag)
                del words[at : at + 2]
            words = [word.replace(",memory-backend=ram", "") for word in words]
            start = time.perf_counter()
            return self._answered(self._start(words, stack), start)

    def _start(self, words: Sequence[str], stack: ExitStack) -> Monitor:
        for path in (self._directory / "sockets").iterdir():
            path.unlink()
        process = subprocess.Popen(
            [self._program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        return Monitor(self._directory / "sockets/qmp.sock")

    def _answered(self, monitor: Monitor, start: float) -> float:
        monitor("cont")
        with connect(self._directory / "sockets/agent.sock") as agent:
            agent.settimeout(PATIENCE)
            agent.sendall(encode(Frame(Type.INFO, 1)))
            if struct.unpack("<IBB", agent.recv(1 << 16)[:6])[2] != Type.OK:
                raise Unusable("the guest's agent did not answer INFO")
            return (time.perf_counter() - start) * 1000


def connect(path: Path) -> socket.socket:
    """A connection to a socket that is about to be there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise Unusable(f"nobody listens at {path}") from error
            time.sleep(0.0005)
            continue
        return connection
