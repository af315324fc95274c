"""Copies of disks: an instance's for a snapshot, a snapshot's for an instance.

What a guest's kernel has written stays marked in every copy (see `foreign`). Where the host's file system shares
blocks between files (btrfs, XFS), a copy takes no time and no space.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bulkhead.errors import HostError, Refused
from bulkhead.host import sparse
from bulkhead.quantities import format_size
from bulkhead.storage import ext4, foreign

Told = Callable[[int, int], None]
"""Gets the bytes copied so far and in all; what it raises ends the copy."""


def unfinished(path: Path) -> Path:
    """Where a disk is before it is complete; a recovery pass removes what is left there."""
    return path.with_name(f"{path.name}.new")


def check_room(source: Path, directory: Path, *, more: int = 0) -> None:
    """Raise Refused where a copy of `source` and `more` bytes do not fit into the file system of `directory`."""
    with ExitStack() as always:
        old = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        always.callback(os.close, old)
        needed = more + (0 if _shares(old, directory) else os.fstat(old).st_blocks * 512)
    status = os.statvfs(directory)
    left = status.f_bavail * status.f_frsize
    if needed > left:
        raise Refused(
            f"a copy takes {format_size(needed)}, the file system of {directory} has {format_size(left)} left",
            hint="remove what is not needed: see bulkhead snapshot ls, bulkhead image prune",
        )


def copy(source: Path, target: Path, size: int, *, told: Told, mounted_at: Path | None = None) -> None:
    """Make `unfinished(target)` a copy of `source`, grown to `size` bytes, with its mark.

    `mounted_at`: where the host may have `source` mounted. Refused where it would shrink, or grow though a guest has
    written it. Raises HostError; nothing is left then.
    """
    new = unfinished(target)
    new.unlink(missing_ok=True)
    with ExitStack() as undo:
        with source.open("rb") as old:
            status = os.fstat(old.fileno())
            _check_size(source, status.st_size, size)
            undo.callback(new.unlink, missing_ok=True)
            _fill(old.fileno(), new, told=told, mounted_at=mounted_at)
        if size != status.st_size:
            ext4.grow_file(new, size)
        if foreign.is_marked(source):
            foreign.mark(target)
        undo.pop_all()


def _fill(old: int, new: Path, *, told: Told, mounted_at: Path | None) -> None:
    total = os.fstat(old).st_blocks * 512
    with ExitStack() as always:
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            always.callback(os.close, descriptor)
            if mounted_at:
                always.enter_context(ext4.frozen(mounted_at))
            sparse.copy_data(old, descriptor, told=lambda done: told(done, total))
        except BrokenPipeError:  # not the file's: nobody waits for the copy any more
            raise
        except OSError as error:
            hint = "see bulkhead snapshot ls, bulkhead image prune" if error.errno == errno.ENOSPC else ""
            raise HostError(f"cannot copy a disk to {new}: {error.strerror}", hint=hint) from error


def _check_size(source: Path, present: int, size: int) -> None:
    if size < present:
        what = f"the disk has {format_size(present)}, {format_size(size)} is less: a disk cannot shrink"
        raise Refused(what, hint=f"use --disk {format_size(present)} or more")
    if size > present and foreign.is_marked(source):
        what = f"the disk of {format_size(present)} was written by a virtual machine's own kernel"
        raise Refused(
            f"{what}: this host does not change it to {format_size(size)}", hint=f"use --disk {format_size(present)}"
        )


def _shares(old: int, directory: Path) -> bool:
    """Whether a file in `directory` can share the blocks of `old`: found out by doing it."""
    try:
        new = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        return sparse.clone(old, new)
    except OSError:
        return False
    finally:
        os.close(new)
