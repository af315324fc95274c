"""Archives in cpio's newc format, the one in which Linux takes its first root file system.

The same entries always give the same bytes. Format: Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_END = "TRAILER!!!"
_MAX_PATH = 4095
_MAX_SIZE = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory of root's. `path` is relative, its parents come before it."""

    path: str
    mode: int
    """Type and permissions, as in st_mode."""
    data: bytes = b""


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def directory(path: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | mode)


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive's bytes, a multiple of 4, so that another may follow. Raises ValueError for what it cannot hold."""
    out = bytearray()
    for number, entry in enumerate(entries, 1):
        parts = entry.path.split("/")
        if {"", ".", ".."} & set(parts) or "\0" in entry.path or entry.path == _END:
            raise ValueError(f"{entry.path!r} is no path of an archive")
        if len(entry.path.encode()) > _MAX_PATH or len(entry.data) > _MAX_SIZE:
            raise ValueError(f"{entry.path[:80]!r} is too long or too large for cpio")
        _append(out, entry, number)
    _append(out, Entry(_END, 0), 0)
    return bytes(out)


def _append(out: bytearray, entry: Entry, number: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device and its number (major, minor each), length of name, checksum
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)
