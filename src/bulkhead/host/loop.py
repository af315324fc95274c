"""Loop devices: files as block devices."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import syscalls
from bulkhead.host.syscalls import CallError

BLOCK_SIZE = 4096
"""Logical block size of the devices: ext4's own, so that direct I/O on the file is always aligned."""
_SECTOR = 512

_LOOP_CONFIGURE, _LOOP_CLR_FD, _LOOP_SET_CAPACITY = 0x4C0A, 0x4C01, 0x4C07
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 0x1, 0x4, 0x10
_CONFIG = struct.Struct("<II QQQQQIIII64s64s32s2Q 8Q")
_SYSFS = Path("/sys/block")
_RACES = 64


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """An attached loop device: its number N of /dev/loopN, (major, minor), and the file behind it."""

    number: int
    device: tuple[int, int]
    backing: Path
    deleted: bool = False
    """The file has no name any more."""

    @property
    def path(self) -> Path:
        """The device node."""
        return Path(f"/dev/loop{self.number}")


@dataclass(frozen=True, slots=True)
class Attached:
    """A loop device just attached. With autoclear it goes away when `descriptor` and every mount are closed."""

    loop: LoopDevice
    descriptor: int
    direct_io: bool
    """Whether the kernel does direct I/O on the file: it drops the wish silently where the file cannot."""

    def close(self) -> None:
        """Let go of the device: what is mounted keeps it."""
        os.close(self.descriptor)


def attach(
    file: Path,
    *,
    direct_io: bool = True,
    autoclear: bool = True,
    read_only: bool = False,
    part: tuple[int, int] | None = None,
) -> Attached:
    """Attach a file to a free loop device. Raises CallError. The caller closes what it gets.

    `part`: a partition alone, with sectors of 512 bytes: offset and size in bytes; a size of 0 is up to the end.
    """
    wanted = (_DIRECT_IO if direct_io else 0) | (_AUTOCLEAR if autoclear else 0) | (_READ_ONLY if read_only else 0)
    mode = os.O_RDONLY if read_only else os.O_RDWR
    try:
        backing = os.open(file, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise CallError("open", file, error.errno or errno.EIO) from error
    try:
        for _ in range(_RACES):
            number = _free_number()
            descriptor = _configure(number, backing, mode, wanted, file, part=part)
            if descriptor is not None:
                break
        else:
            raise HostError(f"no loop device could be had for {file}: others took {_RACES} in a row")
    finally:
        os.close(backing)
    status = os.fstat(descriptor).st_rdev
    loop = LoopDevice(number, (os.major(status), os.minor(status)), file)
    return Attached(loop, descriptor, direct_io=_attribute(number, "dio") == "1")


def attach_once(file: Path) -> Attached:
    """Attach a file, or join the device that it is attached to already: two devices on one file would destroy it."""
    present = find(file)
    if present is not None:
        try:
            descriptor = os.open(present.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CallError("open", present.path, error.errno or errno.EIO) from error
        if read(present.number) == present:  # it cannot go away any more while we hold it
            return Attached(present, descriptor, direct_io=_attribute(present.number, "dio") == "1")
        os.close(descriptor)
    return attach(file)


def _free_number() -> int:
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "modprobe loop, or give the host /dev/loop-control"
        raise CallError("open", "/dev/loop-control", error.errno or errno.EIO, hint=hint) from error
    try:
        return int(syscalls.ioctl(control, _LOOP_CTL_GET_FREE, call="LOOP_CTL_GET_FREE", what="/dev/loop-control"))
    finally:
        os.close(control)


def _configure(
    number: int, backing: int, mode: int, flags: int, file: Path, *, part: tuple[int, int] | None
) -> int | None:
    """Attach `backing` to device `number`: its open descriptor, or None when somebody else was faster."""
    node = f"/dev/loop{number}"
    try:
        descriptor = os.open(node, mode | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT, errno.EBUSY):  # being made or removed at this moment
            time.sleep(0.001)
            return None
        raise CallError("open", node, error.errno or errno.EIO) from error
    offset, size = part or (0, 0)
    block = BLOCK_SIZE if part is None else _SECTOR
    info = (0, 0, 0, offset, size, 0, 0, 0, flags, os.fsencode(file.name)[:63], b"", b"", 0, 0)
    config = _CONFIG.pack(backing, block, *info, *([0] * 8))
    try:
        syscalls.ioctl(descriptor, _LOOP_CONFIGURE, config, call="LOOP_CONFIGURE", what=f"{node} on {file}")
    except CallError as error:
        os.close(descriptor)
        if error.errno == errno.EBUSY:
            return None
        raise
    return descriptor


def detach(device: LoopDevice) -> None:
    """Detach at once, or as soon as nothing uses it any more. Fine when it is detached already."""
    _request(device, _LOOP_CLR_FD, "LOOP_CLR_FD")


def refresh_size(device: LoopDevice) -> None:
    """Take over the size of the file after it has grown."""
    _request(device, _LOOP_SET_CAPACITY, "LOOP_SET_CAPACITY")


def _request(device: LoopDevice, request: int, call: str) -> None:
    try:
        descriptor = os.open(device.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise CallError("open", device.path, error.errno or errno.EIO) from error
    try:
        syscalls.ioctl(descriptor, request, call=call, what=device.path)
    except CallError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(descriptor)


def attached() -> Iterator[LoopDevice]:
    """Every loop device of the host that has a file behind it."""
    for entry in _SYSFS.glob("loop*"):
        found = read(int(entry.name[4:]))
        if found:
            yield found


def read(number: int) -> LoopDevice | None:
    """What is behind /dev/loopN now; None when nothing is."""
    backing, device = _attribute(number, "backing_file"), _read(_SYSFS / f"loop{number}" / "dev")
    if not backing or not device:
        return None
    major, _, minor = device.partition(":")
    name = backing.removesuffix(" (deleted)")
    return LoopDevice(number, (int(major), int(minor)), Path(name), deleted=name != backing)


def wait_gone(device: LoopDevice, *, timeout: float) -> bool:
    """Wait until the file behind a device is let go of; False when it is still held after `timeout` seconds."""
    end, pause = time.monotonic() + timeout, 0.0005
    while _same(read(device.number), device):
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _same(now: LoopDevice | None, before: LoopDevice) -> bool:
    return now is not None and now.backing == before.backing


def by_device(device: tuple[int, int]) -> LoopDevice | None:
    """The loop device with this (major, minor); None when it is none or has nothing behind it."""
    name = Path(f"/sys/dev/block/{device[0]}:{device[1]}").resolve().name
    return read(int(name[4:])) if name.startswith("loop") and name[4:].isdigit() else None


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a block device has read and written since the host's boot, in bytes and in operations."""

    read: int
    written: int
    reads: int
    writes: int

    def __sub__(self, before: Transferred) -> Transferred:
        return Transferred(
            self.read - before.read,
            self.written - before.written,
            self.reads - before.reads,
            self.writes - before.writes,
        )


def transferred(device: tuple[int, int]) -> Transferred:
    """The counters of a block device (Documentation/block/stat.rst); a loop device's outlive what is behind it."""
    fields = Path(f"/sys/dev/block/{device[0]}:{device[1]}/stat").read_text().split()
    reads, _, read, _, writes, _, written = map(int, fields[:7])
    return Transferred(read * 512, written * 512, reads, writes)


def find(file: Path) -> LoopDevice | None:
    """The loop device that a file is attached to; None when there is none."""
    resolved = file.resolve()
    return next((device for device in attached() if device.backing == resolved and not device.deleted), None)


def _attribute(number: int, name: str) -> str:
    return _read(_SYSFS / f"loop{number}" / "loop" / name)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape").rstrip("\n")
    except OSError:  # the attributes exist only while a file is attached, and reading may race with its end
        return ""
