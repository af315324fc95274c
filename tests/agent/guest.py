"""Guests for the tests of `agent init`: Debian's cloud kernel, an initramfs with the agent, a QEMU without a jail."""

from __future__ import annotations

import fcntl
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
from bulkhead.boot import cpio, modules, vmlinux
from bulkhead.errors import Unavailable
from tests.agent.wire import Connection
from tests.harness.images import CACHE

MEMORY = "128M"
TIMEOUT = 60.0
CPU = "max"
COMMAND_LINE = "console=ttyS0 quiet panic=-1"
_RECIPE = "1"


@dataclass(frozen=True)
class Kernel:
    """What a guest boots, without the agent."""

    elf: Path
    modules: tuple[Path, ...]
    """In the order in which they are loaded."""


def debian_kernel() -> Kernel:
    """The distribution's cloud kernel, unpacked once and kept in the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        name = _depends_of("linux-image-cloud-amd64")
        directory = CACHE / f"{name}-{_RECIPE}"
        if not directory.exists():
            draft = Path(f"{directory}.new")
            subprocess.run(["rm", "-rf", draft], check=True)
            draft.mkdir()
            _unpack(name, draft)
            draft.rename(directory)
    listed = (directory / "order").read_text().split()
    return Kernel(directory / "vmlinux", tuple(directory / "modules" / name for name in listed))


def _depends_of(package: str) -> str:
    shown = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=True).stdout
    return next(line.split()[-1] for line in shown.splitlines() if "Depends: linux-image" in line)


def _unpack(package: str, to: Path) -> None:
    subprocess.run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=to, check=True)
    (archive,) = to.glob("*.deb")
    tree = to / "tree"
    subprocess.run(["dpkg", "-x", archive, tree], check=True)
    (found,) = (tree / "lib/modules").iterdir()
    subprocess.run(["depmod", "-b", tree, found.name], check=True)
    catalogue = modules.read_catalogue((found / "modules.dep").read_text(), (found / "modules.builtin").read_text())
    (to / "modules").mkdir()
    paths = [found / path for path in modules.order(catalogue)]
    for path in paths:
        (to / "modules" / path.name).write_bytes(modules.without_signature(path.read_bytes()))
    (to / "order").write_text("\n".join(path.name for path in paths))
    (to / "vmlinux").write_bytes(vmlinux.extract(next((tree / "boot").glob("vmlinuz-*")).read_bytes()))
    subprocess.run(["rm", "-rf", tree, archive], check=True)


def initramfs(kernel: Kernel, agent: Path) -> bytes:
    """The agent as /init, the modules, and the list of them."""
    files = [cpio.file("init", agent.read_bytes(), 0o755), cpio.directory("lib")]
    files += [cpio.file(f"lib/{module.name}", module.read_bytes()) for module in kernel.modules]
    listed = "".join(f"/lib/{module.name}\n" for module in kernel.modules)
    return cpio.archive([*files, cpio.file("modules", listed.encode())])


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

    def __init__(self, directory: Path, kernel: Path, initrd: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._kernel, self._initrd = kernel, initrd
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
