"""Guests for the tests of `agent init`: Debian's cloud kernel, an initramfs with the agent, a QEMU without a jail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.agent.session import Session
from bulkhead.boot import initrd, kernels
from bulkhead.errors import Unavailable
from bulkhead.images import Bounds, ImageStore
from tests.agent.wire import Connection
from tests.harness.kernels import kernel_layout

MEMORY = "128M"
TIMEOUT = 60.0
CPU = "max"
COMMAND_LINE = "console=ttyS0 quiet panic=-1"


@dataclass(frozen=True)
class Booted:
    """What a guest boots: Debian's cloud kernel, the agent as /init with the modules."""

    elf: Path
    initrd: Path


def make_booted(directory: Path, agent: Path) -> Booted:
    """The kernel of the tests' cache with this agent."""
    store = ImageStore(directory / "images", directory / "cache", bounds=Bounds(keep_free=0))
    image = store.import_file(kernel_layout(), name="kernel/debian")
    modules = image.blob(kernels.INITRD_TYPE)
    made = initrd.prepare(modules.path, digest=modules.digest, agent=agent, cache=directory)
    return Booted(image.blob(kernels.ELF_TYPE).path, made)


class Monitor:
    """QMP, as far as the tests need it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw")
        self._lines.readline()
        self("qmp_capabilities")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __call__(self, command: str, **arguments: object) -> Any:
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def ignore_shared(self) -> None:
        self("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def save(self, state: Path) -> None:
        """Stop, and write the devices' state; RAM is in its file."""
        self.ignore_shared()
        self("stop")
        self("migrate", uri=f"exec:cat > {state}")
        while self("query-migrate").get("status") not in ("completed", "failed"):
            time.sleep(0.005)
        assert self("query-migrate")["status"] == "completed"

    def restore(self, state: Path) -> None:
        self.ignore_shared()
        self("migrate-incoming", uri=f"exec:cat {state}")
        while self("query-status")["status"] == "inmigrate":
            time.sleep(0.001)
        self("cont")


class Machine:
    """A QEMU. `ram` with `share` on: RAM is that file; off: it is mapped privately, and `-incoming` waits."""

    def __init__(self, directory: Path, kernel: Path, archive: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._kernel, self._initrd = kernel, archive
        self._stack = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")

    def start(self, disks: Sequence[str] = (), *, ram: Path | None = None, incoming: bool = False) -> Monitor:
        """`disks`: what -blockdev takes, in their order."""
        share = "off" if incoming else "on"
        memory = f"memory-backend-file,id=ram,size={MEMORY},mem-path={ram},share={share}"
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", CPU, "-m", MEMORY]
        argv += ["-M", "q35,memory-backend=ram", "-object", memory] if ram else ["-M", "q35"]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-kernel", str(self._kernel), "-initrd", str(self._initrd)]
        argv += ["-append", COMMAND_LINE, "-serial", f"file:{self.directory}/console"]
        argv += ["-qmp", f"unix:{self.directory}/qmp.sock,server=on,wait=off"]
        argv += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self.port},server=on,wait=off"]
        argv += ["-device", "virtserialport,chardev=agent,name=bulkhead.agent"]
        argv += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
        argv += ["-device", "virtio-rng-pci"]
        for number, disk in enumerate(disks):
            argv += ["-blockdev", f"{disk},node-name=d{number}", "-device", f"virtio-blk-pci,drive=d{number}"]
        argv += ["-incoming", "defer"] if incoming else []
        self.process = subprocess.Popen(argv, cwd=self.directory)
        self._stack.callback(self.kill)
        self._until(self.directory / "qmp.sock")
        return self._stack.enter_context(_closing(Monitor(self.directory / "qmp.sock")))

    def _until(self, path: Path) -> None:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(path))
                return
            except OSError:
                assert self.process is not None and self.process.poll() is None, "QEMU has ended"
                time.sleep(0.001)
        raise TimeoutError(path)

    def connect(self) -> Connection:
        """The tests' own client."""
        return self._stack.enter_context(Connection(self.port))

    def session(self) -> Session:
        """A session; the guest has answered."""
        session = Session.connect(self.port)
        self._stack.callback(session.close)
        try:
            session.info(timeout=TIMEOUT)
        except (TimeoutError, Unavailable) as error:
            raise AssertionError(f"the guest does not answer; its console: {self.console}") from error
        return session

    def wait(self) -> int:
        """QEMU's exit status."""
        assert self.process is not None
        return self.process.wait(TIMEOUT)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self._stack.close()


class _closing:  # noqa: N801 - as contextlib's, which mypy cannot give the type of what it closes
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def __enter__(self) -> Monitor:
        return self._monitor

    def __exit__(self, *ignored: object) -> None:
        self._monitor.close()


def erofs(root: Path, to: Path) -> Path:
    """A layer made of a directory."""
    subprocess.run(["mkfs.erofs", "-T0", to, root], check=True, capture_output=True)
    return to


def disk(path: Path, size: int = 64 << 20) -> Path:
    """An instance's disk: sparse, ext4, with the directories of an overlay."""
    tree = path.with_suffix(".tree")
    for name in ("upper", "work"):
        (tree / name).mkdir(parents=True)
    path.touch()
    os.truncate(path, size)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, path], check=True)
    return path


def file_disk(path: Path, *, writable: bool = False) -> str:
    """What -blockdev takes for a file."""
    return f"driver=file,filename={path},read-only={'off' if writable else 'on'},auto-read-only=off"


PLACEHOLDER = "driver=null-co,size=1099511627776,read-zeroes=on"
"""A template's disk: as large as a disk may be, since a guest keeps its idea of the size."""
