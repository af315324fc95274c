"""Foreign disks: files and devices of the host that a VM gets. The host looks at no more than their first bytes."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from bulkhead.engine import bundles
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.errors import BulkheadError, Conflict, Problem, Refused
from bulkhead.host import loop
from bulkhead.images import Bounds, diskformats
from bulkhead.isolation.base import Attached
from bulkhead.model import CreateRequest, ForeignDisk, Instance, Isolation, Spec

_SLACK = 64 << 20
"""Bytes that a qcow2 has for itself at least; a fiftieth of its disk where that is more."""
ORDER_SECONDS = 30.0
"""How long a room may take to give back disks that it writes to."""
_LUKS = b"LUKS\xba\xbe"
_HINT = "convert it with qemu-img to a raw disk or a qcow2 that holds all of it"


def problems(context: Context, request: CreateRequest, level: Isolation, *, room: bool) -> list[Problem]:
    """What stands in the way of the disks that are asked for."""
    if not request.disks:
        return []
    if level is not Isolation.VM or not room:
        return [
            Problem("disks of the host's are for VMs that rescue or a clean room opens alone", "use bulkhead rescue")
        ]
    found: list[Problem] = []
    if request.inner:
        found.append(Problem("a VM with disks of the host's holds no instances", "leave out --inner"))
    sources = [Path(disk.source).resolve() for disk in request.disks]
    found += [
        Problem(f"{path} is named twice") for path in sorted({path for path in sources if sources.count(path) > 1})
    ]
    for disk in request.disks:
        try:
            with ExitStack() as stack:
                _open(context, disk, "", stack)
        except BulkheadError as error:
            found += error.problems
    return found


def opened(context: Context, spec: Spec, always: ExitStack) -> tuple[Attached, ...]:
    """The disks of a VM that is to be started. Raises Refused, Conflict where one cannot be had."""
    found = tuple(_open(context, disk, spec.id, always) for disk in spec.disks)
    if found:
        checkpoint("rescue.opened")
    return found


def _open(context: Context, disk: ForeignDisk, own: str, stack: ExitStack) -> Attached:
    try:
        path = Path(disk.source).resolve(strict=True)
        kind = path.stat().st_mode
        device = stat.S_ISBLK(kind)
        if not device and not stat.S_ISREG(kind):
            raise Refused(f"{disk.source} is neither a file nor a block device", hint="name a disk")
        _check_owner(context, path)
        _check_use(context, path, disk, own)
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_RDONLY if disk.read_only else os.O_RDWR)
        # Of a device that is mounted, or part of one that is, EXCL is refused.
        fd = os.open(path, flags | (os.O_EXCL if device else 0))
    except OSError as error:
        hint = "unmount it first; what uses it? lsblk says" if error.errno == 16 else "check the path"
        raise Refused(f"{disk.source} cannot be opened: {error.strerror}", hint=hint) from error
    stack.callback(os.close, fd)
    return _attached(disk, fd, device=device)


def _attached(disk: ForeignDisk, fd: int, *, device: bool) -> Attached:
    if device:
        # Whatever is written on it, it is no file with a format.
        return Attached(fd, "raw", device=True, read_only=disk.read_only, largest=0)
    if os.pread(fd, len(_LUKS), 0) == _LUKS:
        # All of the disk is encrypted: who opens it in the helper is asked for the passphrase.
        return Attached(fd, "raw", device=False, read_only=disk.read_only, largest=os.fstat(fd).st_size)
    found = diskformats.examine(fd, replace(Bounds(), total=1 << 50))
    if found.form == "raw":
        if os.fstat(fd).st_size % diskformats.SECTOR:
            raise Refused(f"{disk.source} has no whole sectors: it is no disk, or cut off", hint=_HINT)
        return Attached(fd, "raw", device=False, read_only=disk.read_only, largest=found.size)
    if found.form != "qcow2":
        raise Refused(f"{disk.source} is a {found.form}, in which nothing can be repaired", hint=_HINT)
    largest = max(os.fstat(fd).st_size, found.size) + max(_SLACK, found.size // 50)
    return Attached(fd, "qcow2", device=False, read_only=disk.read_only, largest=largest)


def _check_owner(context: Context, path: Path) -> None:
    """Raise Refused for Bulkhead's own files, but for the disk of an unmodified system that does not run."""
    config = context.config
    if not any(path.is_relative_to(place.resolve()) for place in (config.state_dir, config.cache_dir, config.run_dir)):
        return
    for instance in context.state.instances():
        if instance.spec.system and path == disk_of(context, instance).resolve():
            if instance.pid:
                raise Conflict(
                    f"{path} is the disk of {instance.spec.name}, which runs",
                    hint=f"bulkhead stop {instance.spec.name}",
                )
            return
    raise Refused(f"{path} is one of Bulkhead's own files", hint="name the disk of an unmodified system by --instance")


def _check_use(context: Context, path: Path, disk: ForeignDisk, own: str) -> None:
    """Raise Conflict where somebody else has it, and one of them writes."""
    for other in context.state.instances():
        if other.spec.id != own and any(
            Path(held.source).resolve() == path and not (held.read_only and disk.read_only) for held in other.spec.disks
        ):
            raise Conflict(
                f"{disk.source} is open in {other.spec.name} already", hint=f"bulkhead rm -f {other.spec.name}"
            )
    if path.is_file() and (device := loop.find(path)):
        raise Conflict(f"{disk.source} is in use as {device.path}", hint=f"losetup -d {device.path}")


def writes(spec: Spec) -> bool:
    """Whether foreign disks are written to."""
    return any(not disk.read_only for disk in spec.disks)


def give_back(context: Context, instance: Instance) -> None:
    """After a crash: let what runs in a room unmount the disks that it writes to. It is ended next, in any case."""
    directory = context.bundle_dir(instance)
    handle = bundles.read_handle(directory)
    if handle and writes(instance.spec):
        with suppress(BulkheadError):
            context.driver(instance).stop(directory, handle, signal=instance.spec.stop_signal, timeout=ORDER_SECONDS)


def disk_of(context: Context, instance: Instance) -> Path:
    """The file of an instance's own disk."""
    return context.bundle_dir(instance) / "disk.img"


def check_free(context: Context, instance: Instance) -> None:
    """Raise Conflict where an instance's own disk is open in a rescue."""
    path = disk_of(context, instance).resolve()
    for other in context.state.instances():
        if any(Path(held.source).resolve() == path for held in other.spec.disks):
            name = other.spec.name
            raise Conflict(
                f"the disk of {instance.spec.name} is open in {name}", hint=f"leave it, or bulkhead rm -f {name}"
            )
