"""Inodes of a layer in memory."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import NamedTuple


class Extent(NamedTuple):
    """Where a file's bytes are: whole blocks from `block` on, then `tail`, which is kept with the inode."""

    block: int
    size: int
    tail: bytes


EMPTY = Extent(0, 0, b"")


@dataclass(slots=True, eq=False)
class Node:
    """An inode. `content` is what its type calls for: entries by name, a link's target, an extent, a device number."""

    mode: int
    """Type and permissions, as in st_mode."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Nanoseconds since the epoch."""
    content: dict[bytes, Node] | bytes | Extent | int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    opaque: bool = False
    implied: bool = False
    """A directory that the layer has no entry for."""
    links: int = 0
    """Names that lead here; counted when the tree is written."""
    nid: int = 0
    """Its number in the EROFS file; given when the tree is written."""

    @property
    def entries(self) -> dict[bytes, Node]:
        """What is in a directory."""
        assert isinstance(self.content, dict)
        return self.content

    @property
    def is_directory(self) -> bool:
        """Whether it can have entries."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes it for "nothing is here"."""
        return stat.S_ISCHR(self.mode) and self.content == 0


def directory(mode: int = 0o755) -> Node:
    """An empty directory of root's."""
    return Node(stat.S_IFDIR | mode, content={})


def show(path: bytes) -> str:
    """A path from a layer, fit for a message: printable and short."""
    text = path.decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return f"'{text}'" if len(text) <= 200 else f"'{text[:120]}...{text[-60:]}'"
