"""Files with holes: dropping pages of zeros, and turning one into memory that nobody can change."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import syscalls

PAGE = 4096
_PORTION = 1 << 20
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 0x1, 0x2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch(path: Path) -> None:
    """Turn pages of zeros into holes."""
    with path.open("r+b") as file:
        descriptor = file.fileno()
        for start, data in _portions(descriptor):
            for begin, end in _runs(data, zero=True):
                _punch(descriptor, start + begin, end - begin, path)


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
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        while start < end:
            data = os.pread(descriptor, min(_PORTION, end - start), start)
            if not data:
                return
            yield start, data
            start += len(data)


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
