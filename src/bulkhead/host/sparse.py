"""Files with holes: copying them, dropping pages of zeros, turning one into memory that nobody can change."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import syscalls

PAGE = 4096
_PORTION = 1 << 20
_TOLD = 16 << 20
"""Bytes after which a copy tells how far it is."""
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 0x1, 0x2
_FICLONE = 0x40049409
_CANNOT_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch(path: Path) -> None:
    """Turn pages of zeros into holes."""
    with path.open("r+b") as file:
        descriptor = file.fileno()
        for start, data in _portions(descriptor):
            for begin, end in _runs(data, zero=True):
                _punch(descriptor, start + begin, end - begin, path)


def copy_sparse(source: Path, target: Path, size: int) -> None:
    """Make the file `target` with what is in `source`, `size` bytes long; what is beyond its end is a hole.

    The two share their blocks where the file system can do that (btrfs, XFS); else the data is copied, holes stay
    holes. Raises HostError when `target` is there already, or `size` is less than the source has; nothing stays then.
    """
    with ExitStack() as stack:
        try:
            old = stack.enter_context(source.open("rb")).fileno()
            present = os.fstat(old).st_size
            if size < present:
                raise HostError(f"{source.name} has {present} bytes, which do not go into {size}")
            new = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, new)
            undo = stack.enter_context(ExitStack())
            undo.callback(target.unlink)
            copy_data(old, new)
            os.truncate(new, size)
            undo.pop_all()
        except OSError as error:
            raise HostError(f"{source} cannot be copied to {target}: {error.strerror}") from error


def copy_data(old: int, new: int, *, told: Callable[[int], None] = lambda _: None) -> None:
    """Fill an empty file with another's bytes, by descriptors; holes stay holes. Raises OSError.

    `told` is called with the bytes copied so far, with 0 first; what it raises ends the copy.
    """
    told(0)
    if clone(old, new):
        return
    copied = 0
    for start, end in extents(old):
        at = os.lseek(new, start, os.SEEK_SET)
        # Not copy_file_range(2): it does not go from one kind of file system to another.
        while at < end and (done := os.sendfile(new, old, at, min(end - at, _TOLD))):
            at += done
            copied += done
            told(copied)
    os.truncate(new, os.fstat(old).st_size)


def clone(old: int, new: int) -> bool:
    """Let a file share all blocks of another, in place of what it had; False where the file system cannot do that."""
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
        return False
    return True


def extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Begin and end of what is not a hole. Raises OSError."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def sealed(path: Path, *, size: int) -> int:
    """A sealed memory file with what is in `path`, which must have `size` bytes; holes stay holes.

    It can be mapped privately, writable too, also where it was opened for writing; nothing changes the file itself.
    The caller closes the descriptor. Raises HostError.
    """
    try:
        with path.open("rb") as file:
            present = os.fstat(file.fileno()).st_size
            if present != size:
                raise HostError(f"{path} has {present} bytes, not {size}")
            return syscalls.sealed_sparse_memfd(path.name, size, _pages(file.fileno()))
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error


def _pages(descriptor: int) -> Iterator[tuple[int, memoryview]]:
    """Runs of pages that are not zero, with their offsets."""
    for start, data in _portions(descriptor):
        view = memoryview(data)
        for begin, end in _runs(data, zero=False):
            yield start + begin, view[begin:end]


def _portions(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """What is not a hole, in portions of at most 1 MiB."""
    for start, end in extents(descriptor):
        at = start
        while at < end:
            data = os.pread(descriptor, min(_PORTION, end - at), at)
            if not data:
                return
            yield at, data
            at += len(data)


def _runs(data: bytes, *, zero: bool) -> Iterator[tuple[int, int]]:
    """Begin and end of runs of whole pages that are zero, or are not."""
    if data.count(0) == len(data):
        if zero:
            yield 0, len(data)
        return
    nothing = bytes(PAGE)
    begin: int | None = None
    for at in range(0, len(data), PAGE):
        page = data[at : at + PAGE]
        if (page == nothing[: len(page)]) is zero:
            begin = at if begin is None else begin
        elif begin is not None:
            yield begin, at
            begin = None
    if begin is not None:
        yield begin, len(data)


def _punch(descriptor: int, start: int, length: int, path: Path) -> None:
    if _libc.fallocate(descriptor, _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE, start, length) < 0:
        number = ctypes.get_errno()
        if number != errno.EOPNOTSUPP:  # a file system without holes only costs space
            raise syscalls.CallError("fallocate", path, number)
