"""ext4 in a file: mounting it, letting it go, throwing it away, growing it."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path

from bulkhead.errors import HostError, Refused
from bulkhead.host import cgroups, loop, mounts, processes, syscalls
from bulkhead.quantities import format_size
from bulkhead.storage.area import remove_mount_point
from bulkhead.storage.blank import BLOCK

OPTIONS = "discard,noinit_itable"
"""discard: what is deleted inside gives its space back to the host. noinit_itable: the tables are zero already."""
_COUNTERS = "trusted.bulkhead.counters"
"""On the root directory: the loop device's counters when it was mounted. An instance sees only directories below."""
_CAP_SYS_RESOURCE = 24
_PATIENCE = 5.0


def mount_file(file: Path, target: Path, *, flags: int = 0, fresh: bool = False) -> tuple[int, int]:
    """Mount the ext4 in `file` at `target`; fine when it is there already. Returns the loop device's (major, minor).

    `fresh`: nobody can have attached the file yet, which saves a look at every loop device.
    """
    present = mounts.device_at(target)
    if present:
        return present
    with ExitStack() as undo, ExitStack() as always:
        target.mkdir(exist_ok=True, mode=0o700)
        undo.callback(remove_mount_point, target)
        attached = loop.attach(file) if fresh else loop.attach_once(file)
        always.callback(attached.close)
        syscalls.mount(attached.loop.path, target, "ext4", flags, OPTIONS)
        undo.callback(mounts.unmount, target)
        os.setxattr(target, _COUNTERS, json.dumps(astuple(loop.transferred(attached.loop.device))).encode())
        undo.pop_all()
    return attached.loop.device


def transferred(target: Path) -> loop.Transferred | None:
    """What has been read and written since the file system at `target` was mounted; None when it is not."""
    device = mounts.device_at(target)
    if device is None:
        return None
    return loop.transferred(device) - loop.Transferred(*json.loads(os.getxattr(target, _COUNTERS)))


def release(target: Path, *, layout: cgroups.Layout, shutdown: bool = False) -> None:
    """Unmount what is at `target` and wait until its loop device is free. Fine when nothing is mounted.

    Limits on the device go first: dirty pages are not written at a tenant's pace, and the next owner has none.
    `shutdown`: nothing of it is needed any more, so nothing is written.
    """
    device = mounts.device_at(target)
    if device is None:
        remove_mount_point(target)
        return
    cgroups.clear_throttles(layout, device)
    if shutdown:
        syscalls.ext4_shutdown(target)
    holder = loop.by_device(device)
    mounts.unmount(target, patience=0.2, lazy=True)
    remove_mount_point(target)
    if holder and not loop.wait_gone(holder, timeout=_PATIENCE):
        hint = f"grep ' {device[0]}:{device[1]} ' /proc/*/mountinfo names the processes that still see it"
        raise HostError(f"{holder.backing} stays attached to {holder.path}: something has it mounted", hint=hint)


def free(holder: loop.LoopDevice, *, layout: cgroups.Layout) -> None:
    """Detach a loop device of ours that is mounted nowhere in our sight, as a crash leaves it."""
    cgroups.clear_throttles(layout, holder.device)
    loop.detach(holder)


def usage(target: Path) -> tuple[int, int]:
    """Bytes used and in all of the file system mounted at `target`, as df tells."""
    status = os.statvfs(target)
    return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_blocks * status.f_frsize


def grow(file: Path, target: Path, size: int) -> None:
    """Make the file system in `file` larger, while it is mounted at `target` or not. Refused when it would shrink."""
    present = file.stat().st_size
    if size == present:
        return
    if size < present:
        what = f"the disk has {format_size(present)}, {format_size(size)} is less: a disk cannot shrink"
        raise Refused(what, hint="create a new instance with the smaller plan and copy the data")
    mounted = mounts.device_at(target)
    if mounted and not syscalls.has_capability(_CAP_SYS_RESOURCE):
        what = "a disk in use cannot grow here: the kernel demands CAP_SYS_RESOURCE, which the daemon has not"
        raise Refused(what, hint="stop the instance first")
    with ExitStack() as undo:
        if mounted:
            holder = _holder(mounted)
            undo.callback(loop.refresh_size, holder)
        os.truncate(file, size)
        undo.callback(os.truncate, file, present)
        if mounted:
            loop.refresh_size(holder)
            syscalls.ext4_resize(target, size // BLOCK)
        else:
            _grow_unmounted(file)
        undo.pop_all()


def _holder(device: tuple[int, int]) -> loop.LoopDevice:
    holder = loop.by_device(device)
    if holder is None:
        raise HostError(f"block device {device[0]}:{device[1]} is no loop device with a file behind it")
    return holder


def _grow_unmounted(file: Path) -> None:
    holder = loop.find(file)
    if holder:
        raise HostError(f"{file} is still attached to {holder.path}", hint="stop the instance first")
    processes.run(("e2fsck", "-f", "-p", file), package="e2fsprogs")
    processes.run(("resize2fs", file), package="e2fsprogs", timeout=600)
