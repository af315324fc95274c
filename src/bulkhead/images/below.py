"""What a layer lies on: the files of the layers below it, read from their EROFS files.

A layer's tar need not hold the directories that its files are in (umoci and others leave them out). Such a
directory is to stay as it is below, so its owner, mode and attributes are looked up here; else an added /tmp/x
would make /tmp a directory of mode 755. Reads only what this package wrote.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.images import ondisk
from bulkhead.images.ondisk import BLOCK, SLOT

_OPAQUE = b"trusted.overlay.opaque"


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a layer below."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    target: bytes
    """Of a symlink, else empty."""
    opaque: bool
    whiteout: bool
    size: int


class Below:
    """The merged view of some layers, the highest first, as overlayfs shows them."""

    def __init__(self, files: Sequence[int]) -> None:
        self._layers = [_Layer(fd) for fd in files]

    def find(self, path: Sequence[bytes]) -> Found | None:
        """What is at `path`, components from the root; links are not followed. None where there is nothing."""
        there = self._locate(path)
        return there and there[2]

    def read_at(self, path: Sequence[bytes], at: int, size: int) -> bytes:
        """Bytes of the regular file that `find` has found there; fewer where it ends."""
        there = self._locate(path)
        return there[0].content(there[1], at, size) if there else b""

    def names(self, path: Sequence[bytes]) -> set[bytes]:
        """The names in the directory that `find` has found there, as overlayfs shows them."""
        found: set[bytes] = set()
        for layer in self._layers:
            nid: int | None = layer.root
            for name in path:
                nid = layer.entries(nid).get(name) if nid is not None and layer.is_directory(nid) else None
            if nid is not None and layer.is_directory(nid):
                found.update(layer.entries(nid))
        return {name for name in found - {b".", b".."} if self.find((*path, name))}

    def _locate(self, path: Sequence[bytes]) -> tuple[_Layer, int, Found] | None:
        for layer in self._layers:
            hidden = False
            nid = layer.root
            for number, name in enumerate(path, 1):
                below = layer.entries(nid).get(name)
                if below is None:
                    break
                nid, found = below, layer.read(below)
                if found.whiteout:
                    return None
                if number == len(path):
                    return layer, nid, found
                if not stat.S_ISDIR(found.mode):
                    return None
                hidden = hidden or found.opaque
            if hidden:
                return None
        return None


class _Layer:
    """One EROFS file, open for reading."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.root, self._meta = ondisk.read_superblock(os.pread(fd, BLOCK, ondisk.SUPERBLOCK_AT))
        self._entries: dict[int, dict[bytes, int]] = {}

    def entries(self, nid: int) -> dict[bytes, int]:
        """A directory's nids by name."""
        known = self._entries.get(nid)
        if known is None:
            inode, _ = self._inode(nid)
            known = self._entries[nid] = dict(ondisk.read_directory(self._data(nid, inode)))
        return known

    def read(self, nid: int) -> Found:
        """An inode with its attributes."""
        inode, pairs = self._inode(nid)
        return Found(
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            mtime=inode.mtime,
            xattrs=tuple(pair for pair in pairs if pair[0] != _OPAQUE),
            target=self._data(nid, inode) if stat.S_ISLNK(inode.mode) else b"",
            opaque=any(name == _OPAQUE for name, _ in pairs),
            whiteout=stat.S_ISCHR(inode.mode) and inode.place == 0,
            size=inode.size,
        )

    def is_directory(self, nid: int) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self._inode(nid)[0].mode)

    def content(self, nid: int, at: int, size: int) -> bytes:
        """Bytes of a regular file."""
        inode, _ = self._inode(nid)
        size = max(0, min(size, inode.size - at))
        tail = inode.size % BLOCK if inode.inline else 0
        whole = inode.size - tail
        data = os.pread(self._fd, max(0, min(size, whole - at)), inode.place * BLOCK + at)
        if at + size > whole:
            beside = self._meta * BLOCK + nid * SLOT + ondisk.INODE_SIZE + inode.xattrs
            begin = max(0, at - whole)
            data += os.pread(self._fd, at + size - whole - begin, beside + begin)
        return data

    def _inode(self, nid: int) -> tuple[ondisk.Inode, list[tuple[bytes, bytes]]]:
        at = self._meta * BLOCK + nid * SLOT
        inode = ondisk.read_inode(os.pread(self._fd, ondisk.INODE_SIZE, at))
        return inode, ondisk.read_xattrs(os.pread(self._fd, inode.xattrs, at + ondisk.INODE_SIZE))

    def _data(self, nid: int, inode: ondisk.Inode) -> bytes:
        tail = inode.size % BLOCK if inode.inline else 0
        at = self._meta * BLOCK + nid * SLOT + ondisk.INODE_SIZE + inode.xattrs
        return os.pread(self._fd, inode.size - tail, inode.place * BLOCK) + os.pread(self._fd, tail, at)
