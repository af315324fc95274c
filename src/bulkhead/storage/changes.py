"""How much an instance has changed: its overlay's upper directory counted.

A workload made what is in it: no link is followed, no directory is opened twice, and names have a bound.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError, Refused

MOST_NAMES = 4_000_000
MOST_PATH = 4095
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Measured:
    """`files` that are new or changed (directories do not count), names `removed` from the image, `size` in bytes."""

    files: int
    removed: int
    size: int


def measure(upper: Path, own: Mapping[str, str]) -> Measured:
    """Count. A file with several names counts once for each, its bytes once.

    `own`: absolute paths and texts of files that Bulkhead itself has put there: as long as they hold that, they are no
    change.

    Raises HostError where the directory cannot be read, Refused where there is too much in it.
    """
    files = removed = size = names = 0
    linked: set[tuple[int, int]] = set()
    try:
        top = os.open(upper, _DIRECTORY)
    except OSError as error:
        raise HostError(f"the changes in {upper} cannot be read: {error.strerror}") from error
    try:
        pending = [b"."]
        while pending:
            path = pending.pop()
            for name in _names(top, path):
                names += 1
                if names > MOST_NAMES:
                    raise Refused(f"there are more than {MOST_NAMES} changed files")
                inside = path + b"/" + name
                status = os.lstat(inside, dir_fd=top)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(inside)
                elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    removed += 1
                elif not _is_own(top, inside, status, own):
                    files += 1
                    if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in linked:
                        size += status.st_size
                        linked.add((status.st_dev, status.st_ino))
    except OSError as error:
        raise HostError(f"the changes in {upper} cannot be read: {error.strerror}") from error
    finally:
        os.close(top)
    return Measured(files, removed, size)


def _is_own(top: int, path: bytes, status: os.stat_result, own: Mapping[str, str]) -> bool:
    text = own.get(path[1:].decode(errors="replace"))
    if text is None or not stat.S_ISREG(status.st_mode) or status.st_size != len(text.encode()):
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=top)
    try:
        return os.read(descriptor, status.st_size) == text.encode()
    finally:
        os.close(descriptor)


def _names(top: int, path: bytes) -> list[bytes]:
    descriptor = os.open(path, _DIRECTORY, dir_fd=top)
    try:
        names = [os.fsencode(name) for name in os.listdir(descriptor)]  # noqa: PTH208 - a descriptor
    finally:
        os.close(descriptor)
    if names and len(path) + 1 + max(map(len, names)) > MOST_PATH:
        raise Refused(f"there are changes in directories that are too deep: more than {MOST_PATH} bytes of a path")
    return names
