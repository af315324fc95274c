"""Files with a file system that a guest's kernel has written. The host's kernel never mounts one again.

A file system is a program's input to the kernel that mounts it, and this one comes from a kernel that a tenant owns.
What is beside the file (`disk.img`: `disk.guest`) remembers that, from before the guest gets it.
"""

from __future__ import annotations

from pathlib import Path

from bulkhead.errors import Conflict


def mark(file: Path) -> None:
    """Remember that a guest may have written `file`. For good: also if it turns out that it has not."""
    _mark_of(file).touch(mode=0o600)


def is_marked(file: Path) -> bool:
    """Whether a guest may have written `file`."""
    return _mark_of(file).exists()


def check(file: Path, what: str) -> None:
    """Raise Conflict where a guest may have written `file`. `what` names it, such as "the disk of web"."""
    if is_marked(file):
        raise Conflict(
            f"{what} has been written by a virtual machine's own kernel: this host does not mount it",
            hint="use it with --isolation vm, or copy the files out of the machine (bulkhead cp)",
        )


def forget(file: Path) -> None:
    """The file is gone."""
    _mark_of(file).unlink(missing_ok=True)


def _mark_of(file: Path) -> Path:
    return file.with_suffix(".guest")
