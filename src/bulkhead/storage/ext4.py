"""ext4 in a file: mounting it, letting it go, throwing it away, growing it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
_PATIENCE = 2.0


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
    """What has been read and written since the file system at `target` was mounted; None when it is not, or when all
    I/O of it was stopped: then it does not tell from where it counted.
    """
    device = mounts.device_at(target)
    if device is None:
        return None
    try:
        before = os.getxattr(target, _COUNTERS)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return loop.transferred(device) - loop.Transferred(*json.loads(before))


def release(target: Path, *, layout: cgroups.Layout, shutdown: bool = False) -> loop.LoopDevice | None:
    """Unmount what is at `target` and wait until its loop device is free. Fine when nothing is mounted.

    Limits on the device go first: dirty pages are not written at a tenant's pace, and the next owner has none.
    `shutdown`: nothing of it is needed any more, so nothing is written.
    Copies of the mount in other namespaces (a service that was started meanwhile, with mounts of its own) end with the
    mount point: Linux detaches what is mounted on a directory that is removed (fs/namei.c, vfs_rmdir).
    Returns the loop device when it stays attached all the same, because a process has its working directory or a file
    open in there. All is written then; whoever mounts the file again joins that device.
    """
    device = mounts.device_at(target)
    if device is None:
        remove_mount_point(target)
        return None
    cgroups.clear_throttles(layout, device)
    if shutdown:
        syscalls.ext4_shutdown(target)
    else:
        syscalls.syncfs(target)
    holder = loop.by_device(device)
    mounts.unmount(target, patience=0.2, lazy=True)
    remove_mount_point(target)
    return None if holder is None or loop.wait_gone(holder, timeout=_PATIENCE) else holder


def condemn(file: Path, target: Path) -> int | None:
    """Take a file's name away; `destroy` does the rest, with what this returns. Fine when the file has gone."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with ExitStack() as undo:
        undo.callback(os.close, descriptor)
        if mounts.device_at(target) is None and loop.find(file):  # in use elsewhere: join, so that it can be shut down
            mount_file(file, target)
        file.unlink()
        undo.pop_all()
    return descriptor


def destroy(descriptor: int | None, target: Path, *, layout: cgroups.Layout) -> None:
    """Stop the file system of a condemned file, unmount it, free its loop device and its space.

    HostError when the device stays attached; its space is free all the same.
    """
    try:
        holder = release(target, layout=layout, shutdown=True)
        if holder is None:
            return
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
        hint = "lsof names processes that have files of a deleted file system open"
        raise HostError(f"{holder.path} stays attached: a process is still in {target}", hint=hint)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def free(holder: loop.LoopDevice, *, layout: cgroups.Layout) -> None:
    """Detach a loop device of ours that is mounted nowhere in our sight, as a crash leaves it."""
    cgroups.clear_throttles(layout, holder.device)
    loop.detach(holder)


@contextmanager
def frozen(target: Path) -> Iterator[None]:
    """Nothing changes the file system mounted at `target` meanwhile, and its file is as after an unmount.

    Whoever writes waits. Fine when nothing is mounted there. After a crash it is still frozen: see `thaw`.
    """
    if mounts.device_at(target) is None:
        yield
        return
    syscalls.syncfs(target)  # before it is frozen: nobody has to wait for what can be written now
    syscalls.freeze(target)
    try:
        yield
    finally:
        syscalls.thaw(target)


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
    if mounted and not syscalls.has_capability(syscalls.CAP_SYS_RESOURCE):
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
            grow_file(file, size)
        undo.pop_all()


def _holder(device: tuple[int, int]) -> loop.LoopDevice:
    holder = loop.by_device(device)
    if holder is None:
        raise HostError(f"block device {device[0]}:{device[1]} is no loop device with a file behind it")
    return holder


def grow_file(file: Path, size: int) -> None:
    """Make a file system that is mounted nowhere as large as `size` bytes."""
    holder = loop.find(file)
    if holder:
        raise HostError(f"{file} is still attached to {holder.path}", hint="stop the instance first")
    os.truncate(file, size)
    processes.run(("e2fsck", "-f", "-p", file), package="e2fsprogs")
    processes.run(("resize2fs", file), package="e2fsprogs", timeout=600)
