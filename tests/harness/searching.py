"""Looks for bytes in every file below some directories; holes of sparse files are passed over.

As a program, for the namespaces of a daemon: directories as words, the bytes on stdin, which nobody else sees.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

PORTION = 1 << 20


def files_with(wanted: bytes, places: Iterable[str]) -> Iterator[str]:
    """Paths of the files that hold `wanted`, or are called so."""
    for place in places:
        if os.path.isfile(place):  # noqa: PTH113
            if _holds(place, wanted):
                yield place
            continue
        for directory, _, names in os.walk(place):
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118
                if wanted in os.fsencode(name):
                    yield path
                    continue
                with suppress(OSError):  # it has gone, or is one of lxcfs, which has no contents of its own
                    if _holds(path, wanted):
                        yield path


def _holds(path: str, wanted: bytes) -> bool:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return os.path.islink(path) and wanted in os.fsencode(os.readlink(path))  # noqa: PTH114, PTH115
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(wanted in portion for portion in _portions(descriptor, len(wanted)))
    finally:
        os.close(descriptor)


def _portions(descriptor: int, overlap: int) -> Iterator[bytes]:
    """What is in a file, each portion with the end of the one before."""
    at, before = 0, b""
    while True:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only holes are left
                return
            data = at
        before = before if data == at else b""
        portion = os.pread(descriptor, PORTION, data)
        if not portion:
            return
        yield before + portion
        at, before = data + len(portion), portion[-overlap:]


if __name__ == "__main__":
    for found in files_with(sys.stdin.buffer.read(), sys.argv[1:]):
        sys.stdout.write(f"{found}\n")
