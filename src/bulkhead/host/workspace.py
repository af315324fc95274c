"""Directories of work under way, each held by a lock that ends with its owner, so that a crash's are known."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bulkhead.host import mounts

_LOCK = "lock"


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock file `path`; yields its descriptor. Without `wait`: BlockingIOError when somebody else does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield fd
    finally:
        os.close(fd)


@contextmanager
def workspace(parent: Path, *, mode: int = 0o700) -> Iterator[tuple[Path, int]]:
    """A fresh directory below `parent`, removed at the end; yields it with the descriptor of its lock.

    A program that is handed the descriptor keeps the directory from `abandoned` for as long as it runs.
    """
    parent.mkdir(mode=mode, parents=True, exist_ok=True)
    with ExitStack() as stack:
        with locked(parent / _LOCK):
            directory = parent / secrets.token_hex(8)
            directory.mkdir(mode=mode)
            stack.callback(_remove, directory)
            fd = stack.enter_context(locked(directory / _LOCK, wait=False))
        yield directory, fd


def _remove(directory: Path) -> None:
    # Under the parent's lock, or `abandoned` could begin to remove the same directory.
    with locked(directory.parent / _LOCK):
        if directory.exists():
            _wait_until_left(directory)
            _delete(directory)


def _wait_until_left(directory: Path) -> None:
    """Wait, some seconds at most, until no program holds the directory's lock: a killed one may still be dying."""
    for _ in range(100):
        try:
            with locked(directory / _LOCK, wait=False):
                return
        except BlockingIOError:
            time.sleep(0.05)


def _delete(directory: Path) -> None:
    # What is mounted there must not be deleted with it: it could be the host's /dev.
    for mount in mounts.below(directory):
        mounts.unmount(mount.target, lazy=True)
    shutil.rmtree(directory)


def abandoned(parent: Path) -> list[Path]:
    """Remove the directories below `parent` whose owners have gone; which they were."""
    removed: list[Path] = []
    if not parent.is_dir():
        return removed
    with locked(parent / _LOCK):
        for directory in sorted(entry for entry in parent.iterdir() if entry.is_dir()):
            try:
                with locked(directory / _LOCK, wait=False):
                    _delete(directory)
            except BlockingIOError:
                continue  # at work
            removed.append(directory)
    return removed
