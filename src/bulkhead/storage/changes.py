"""How much an instance has changed: its overlay's upper directory counted.

A workload made what is in it: no link is followed, no directory is opened twice, and names have a bound.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from bulkhead import ustar
from bulkhead.errors import HostError, Refused
from bulkhead.model import Model
from bulkhead.storage.difference import MOST_NAMES, MOST_PATH, is_own

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Changes(Model):
    """What a run has changed of its image's files."""

    files: int | None
    """Files, links and others that are new or other than the image's; None where a guest alone can tell."""
    removed: int | None
    """Names of the image's that are gone."""
    size: int
    """Bytes of those files; of a guest's disk what it takes on the host."""


def measure(upper: Path, own: Mapping[str, str]) -> Changes:
    """Count; directories do not. A file with several names counts once for each, its bytes once.

    `own`: absolute paths and texts of files that Bulkhead itself has put there: as long as they hold that, they are no
    change. Raises HostError where the directory cannot be read, Refused where there is too much in it.
    """
    files = removed = size = 0
    linked: set[tuple[int, int]] = set()
    for top, path, status in _walk(upper):
        if stat.S_ISDIR(status.st_mode):
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            removed += 1
        elif not is_own(top, path, status, own):
            files += 1
            if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in linked:
                size += status.st_size
                linked.add((status.st_dev, status.st_ino))
    return Changes(files=files, removed=removed, size=size)


def check_names(upper: Path) -> None:
    """Raise Refused where a layer would take a file for the mark of one that was removed."""
    for _, path, status in _walk(upper):
        whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        if path.rpartition(b"/")[2].startswith(ustar.WHITEOUT) and not whiteout:
            what = f"/{path.decode('utf-8', 'backslashreplace')} cannot be in a layer"
            raise Refused(what, hint="names that begin with .wh. stand for what was removed: give it another one")


def _walk(upper: Path) -> Iterator[tuple[int, bytes, os.stat_result]]:
    """Everything below: a descriptor of the top, the path from there, its status."""
    count = 0
    try:
        top = os.open(upper, _DIRECTORY)
        try:
            pending = [b""]
            while pending:
                directory = pending.pop()
                for name in _names(top, directory):
                    count += 1
                    if count > MOST_NAMES:
                        raise Refused(f"there are more than {MOST_NAMES} changed files")
                    path = directory + name
                    status = os.lstat(path, dir_fd=top)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(path + b"/")
                    yield top, path, status
        finally:
            os.close(top)
    except OSError as error:
        raise HostError(f"the changes in {upper} cannot be read: {error.strerror}") from error


def _names(top: int, path: bytes) -> list[bytes]:
    descriptor = os.open(path or b".", _DIRECTORY, dir_fd=top)
    try:
        names = [os.fsencode(name) for name in os.listdir(descriptor)]  # noqa: PTH208 - a descriptor
    finally:
        os.close(descriptor)
    if names and len(path) + max(map(len, names)) > MOST_PATH:
        raise Refused(f"there are changes in directories that are too deep: more than {MOST_PATH} bytes of a path")
    return names
