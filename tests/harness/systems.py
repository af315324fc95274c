"""A bootable Debian disk for the tests: made once by the product's own code, kept in the cache; and its machine."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from bulkhead.boot import disks, grub
from bulkhead.config import Config
from bulkhead.engine import systems
from bulkhead.host import sparse
from bulkhead.images import ImageStore
from tests.harness.abilities import require
from tests.harness.images import CACHE, SUITE

RELEASE = f"debian:{SUITE}"
UEFI_CODE, UEFI_VARIABLES = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
PORT = 2222
"""On the machine's own loopback: where its ssh answers."""
PATIENCE = 240.0


def debian_disk() -> Path:
    """The raw disk, 2 GiB and sparse, not to be written to. Its making takes a minute and a half."""
    require("root", "mmdebstrap", "sfdisk", "mkfs.vfat", "mcopy")
    recipe = repr(systems.plan(RELEASE, (), size=None, firmware=None, epoch=0))
    sources = "".join(map(inspect.getsource, (disks, grub)))
    made = CACHE / f"disk-{hashlib.sha256((recipe + sources).encode()).hexdigest()[:12]}.raw"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "disk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _make(made)
    return made


def _make(target: Path) -> None:
    work = CACHE / "disk.new"
    shutil.rmtree(work, ignore_errors=True)
    config = Config(state_dir=work, cache_dir=CACHE / "disk")
    store = ImageStore(config.images_dir, config.cache_dir)
    image = systems.make(store, config, RELEASE, progress=lambda step: None)
    assert image.disk is not None
    for old in CACHE.glob("disk-*.raw"):
        old.unlink()
    image.disk.path.rename(target)
    shutil.rmtree(work)


class System:
    """A machine that boots a disk of its own: QEMU without a jail, in a network namespace of its own."""

    def __init__(self, directory: Path, disk: Path, *, size: int, seed: Path | None = None, uefi: bool = False) -> None:
        require("qemu-system-x86_64", "ip", "nsenter", "ssh", "unshare")
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._serial = directory / "serial"
        sparse.copy_sparse(disk, directory / "disk", size)
        drives = [f"file={directory}/disk,if=virtio,format=raw,cache=unsafe"]
        if seed:
            drives.append(f"file={seed},if=virtio,format=raw,readonly=on")
        if uefi:
            shutil.copyfile(UEFI_VARIABLES, directory / "variables")
            drives += [f"file={UEFI_CODE},if=pflash,format=raw,readonly=on"]
            drives += [f"file={directory}/variables,if=pflash,format=raw"]
        argv = [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
            *("-m", "512M", "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self._serial}"),
            *(word for drive in drives for word in ("-drive", drive)),
            *("-qmp", f"unix:{directory}/monitor,server=on,wait=off"),
            *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{PORT}-:22"),
            *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
        ]
        self._log = (directory / "qemu").open("wb")
        self._process = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def console(self) -> str:
        """What it has said on its serial port."""
        return self._serial.read_text(errors="replace") if self._serial.exists() else ""

    def wait_for(self, *texts: str) -> None:
        """Wait until one of the texts is on the console; AssertionError when it ends first or takes too long."""
        for _ in self._tries():
            if any(text in self.console() for text in texts):
                return
            assert self._process.poll() is None, self._told()
        raise AssertionError(f"{texts} is not on the console:\n{self._told()}")

    def ssh(self, key: Path, command: str, *, user: str = "debian") -> str:
        """What a command says, as soon as the machine lets somebody with this key in."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=10")
        argv = ["nsenter", "-t", str(self._process.pid), "-n", "ssh", "-i", str(key), "-p", str(PORT)]
        argv += [word for option in options for word in ("-o", option)]
        said = ""
        for _ in self._tries():
            done = subprocess.run(
                [*argv, f"{user}@127.0.0.1", command], capture_output=True, text=True, check=False, timeout=PATIENCE
            )
            if done.returncode == 0:
                return done.stdout
            said = done.stderr
            assert done.returncode == 255, said
            assert self._process.poll() is None, self._told()
        raise AssertionError(f"ssh: {said}\n{self._told()}")

    def press_power(self) -> None:
        """Press the machine's power button (ACPI)."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(PATIENCE)
            monitor.connect(str(self._directory / "monitor"))
            said = b""
            for command in (b"qmp_capabilities", b"system_powerdown"):
                monitor.sendall(b'{"execute": "%s"}' % command)
            # Only its answer says that a command has been carried out: a connection that closes takes it along.
            while said.count(b'"return"') < 2:
                piece = monitor.recv(4096)
                assert piece, said
                said += piece

    def wait_off(self) -> int:
        """Wait until the machine has switched itself off; QEMU's exit code."""
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> System:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tries(self) -> Iterator[None]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            yield
            time.sleep(0.5)

    def _told(self) -> str:
        return self.console()[-4000:] + (self._directory / "qemu").read_text(errors="replace")[-1000:]
