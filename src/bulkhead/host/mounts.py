"""Mounts of this process's mount namespace."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkhead.host import syscalls
from bulkhead.host.syscalls import CallError

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of /proc/self/mountinfo. `device` is (major, minor); `root` is the path inside the file system."""

    id: int
    parent: int
    device: tuple[int, int]
    root: str
    target: Path
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    kind: str
    source: str
    super_options: tuple[str, ...]


def unescape(text: str) -> str:
    """Undo mountinfo's octal escapes: `\\040` is a space."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def parse(text: str) -> list[MountEntry]:
    """The entries of a mountinfo file, in its order (later ones lie on top)."""
    return [_entry(line) for line in text.splitlines() if line]


def _entry(line: str) -> MountEntry:
    before, _, after = line.partition(" - ")
    number, parent, device, root, target, options, *propagation = before.split(" ")
    kind, source, super_options = [*after.split(" "), "", ""][:3]
    major, _, minor = device.partition(":")
    return MountEntry(
        id=int(number),
        parent=int(parent),
        device=(int(major), int(minor)),
        root=unescape(root),
        target=Path(unescape(target)),
        options=tuple(options.split(",")),
        propagation=tuple(word for word in propagation if word),
        kind=kind,
        source=unescape(source),
        super_options=tuple(super_options.split(",")),
    )


def table() -> list[MountEntry]:
    """All mounts of this namespace."""
    return parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def below(directory: Path) -> list[MountEntry]:
    """Mounts at or below a directory, the innermost and topmost first: the order to unmount them in."""
    resolved = directory.resolve()
    return [entry for entry in reversed(table()) if entry.target == resolved or resolved in entry.target.parents]


def is_mounted(target: Path) -> bool:
    """Whether something is mounted at exactly this path."""
    resolved = target.parent.resolve() / target.name
    return any(entry.target == resolved for entry in table())


def device_at(target: Path) -> tuple[int, int] | None:
    """The device mounted at `target`, None when nothing of another file system is. One stat, no table to read."""
    try:
        here, parent = target.lstat().st_dev, target.parent.stat().st_dev
    except FileNotFoundError:
        return None
    return None if here == parent else (os.major(here), os.minor(here))


def private_bind(directory: Path) -> None:
    """Make `directory` a mount point of itself whose mounts nobody else gets. Does nothing when it is one already."""
    if is_mounted(directory):
        return
    syscalls.mount(directory, directory, flags=syscalls.MS_BIND)
    try:
        syscalls.mount(None, directory, flags=syscalls.MS_PRIVATE)
    except CallError:
        syscalls.umount2(directory, syscalls.MNT_DETACH)
        raise


def unmount(target: Path, *, patience: float = 0.0, lazy: bool = False) -> bool:
    """Unmount what lies on top at `target`; False when nothing was mounted there.

    A busy one is tried again for `patience` seconds; after that it is detached from the tree (`lazy`, it ends when
    its last user has gone), or the error is raised.
    """
    for _ in _tries(patience):
        try:
            syscalls.umount2(target)
        except CallError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return False
            if error.errno != errno.EBUSY:
                raise
            busy = error
        else:
            return True
    if not lazy:
        raise busy
    syscalls.umount2(target, syscalls.MNT_DETACH)
    return True


def _tries(patience: float) -> Iterator[None]:
    end, pause = time.monotonic() + patience, 0.001
    yield
    while time.monotonic() < end:
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
        yield
