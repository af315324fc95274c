"""An uncompressed EROFS file from a tree. File data goes to disk as it comes, the tree's inodes follow at the end.

Format: Linux fs/erofs/erofs_fs.h, readable since Linux 5.4. docs/design/0001-erofs-writer.md says why it is our
own and draws the layout:

    block 0: superblock | file data | data of large directories and links | inodes with what is small enough
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bulkhead.errors import ImageError
from bulkhead.images import ondisk
from bulkhead.images.node import Extent, Node
from bulkhead.images.ondisk import BLOCK, INODE_SIZE, SLOT
from bulkhead.images.pax import Segments
from bulkhead.images.reader import write_all

_INLINE_MOST = 2048
"""Longest tail kept beside its inode. Half a block packs best: longer ones leave holes as large as they save."""
_INLINE_BUDGET = 64 << 20
"""Bytes of such tails held in memory for one file; what comes after takes a block each."""
_BATCH = 2 << 20
_VECTORS = 512
_OPAQUE = (b"trusted.overlay.opaque", b"y")
_ZEROS = bytes(BLOCK)


class Writer:
    """Writes one EROFS file to an empty, open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._block = 1
        self._batch: list[bytes | memoryview] = []
        self._batched = 0
        self._tails = 0
        os.lseek(fd, BLOCK, os.SEEK_SET)

    @property
    def written(self) -> int:
        """Bytes of blocks taken up so far, holes of sparse files included."""
        return self._block * BLOCK

    def store(self, pieces: Iterable[bytes | memoryview], size: int) -> Extent:
        """Take a file's bytes, `size` in all. Its last bytes may be handed back, to be kept with the inode."""
        tail_size = size % BLOCK
        if tail_size > _INLINE_MOST or self._tails + tail_size > _INLINE_BUDGET:
            tail_size = 0
        whole = size - tail_size
        tail = b""
        left = whole
        for piece in pieces:
            if left >= len(piece):
                self._append(piece)
                left -= len(piece)
            else:
                if left:
                    self._append(piece[:left])
                tail += bytes(piece[left:])
                left = 0
        self._tails += tail_size
        return Extent(self._take(whole), size, tail)

    def store_sparse(self, pieces: Iterable[bytes | memoryview], segments: Segments, size: int) -> Extent:
        """Take a file of `size` bytes of which only the segments' bytes come; the rest stays a hole on disk."""
        self._flush()
        start = self._block * BLOCK
        todo = iter(segments)
        at = left = 0
        for whole in pieces:
            piece = memoryview(whole)
            while piece:
                if not left:
                    at, left = next(todo)
                    continue
                done = os.pwrite(self._fd, piece[:left], start + at)
                at, left, piece = at + done, left - done, piece[done:]
        block = self._take(size, pad=False)
        os.lseek(self._fd, self._block * BLOCK, os.SEEK_SET)
        return Extent(block, size, b"")

    def finish(self, root: Node, *, uuid: bytes = bytes(16)) -> None:
        """Write the tree and the superblock. A node that is there more than once becomes hard links."""
        inodes = _collect(root)
        for inode in inodes:
            self._place(inode)
        size = _assign(inodes)
        for inode in inodes:
            if inode.late:
                data = inode.data()[: inode.size - inode.tail]
                self._append(data.ljust(_up(len(data), BLOCK), b"\0"))
        meta = self._block
        for piece in _encoded(inodes, _up(size, BLOCK)):
            self._append(piece)
        self._take(size, pad=False)
        self._flush()
        block = ondisk.superblock(root=root.nid, inodes=len(inodes), meta=meta, blocks=self._block, uuid=uuid)
        os.pwrite(self._fd, block, ondisk.SUPERBLOCK_AT)

    def _place(self, inode: _Inode) -> None:
        """Decide where a node's data is. That of directories and links is written when all nids are known."""
        content = inode.node.content
        if isinstance(content, Extent):
            inode.block, inode.size, inode.tail = content.block, content.size, len(content.tail)
        elif isinstance(content, (dict, bytes)):
            inode.size = len(content) if isinstance(content, bytes) else ondisk.directory_size(inode.names())
            inode.tail = inode.size % BLOCK
            if inode.tail > _INLINE_MOST:
                inode.tail = 0
            inode.late = inode.size > inode.tail
            inode.block = self._take(inode.size - inode.tail, pad=False) if inode.late else 0

    def _append(self, piece: bytes | memoryview) -> None:
        self._batch.append(piece)
        self._batched += len(piece)
        if self._batched >= _BATCH or len(self._batch) >= _VECTORS:
            self._flush()

    def _take(self, size: int, *, pad: bool = True) -> int:
        """Account for `size` bytes just written, up to the next whole block. Returns where they began."""
        block = self._block
        self._block += -(-size // BLOCK)
        if self._block > 0xFFFFFFFF:
            raise ImageError("the layer is larger than an EROFS file can be (16T)")
        if pad and size % BLOCK:
            self._append(_ZEROS[size % BLOCK :])
        return block

    def _flush(self) -> None:
        """Write what has been appended, in as few calls as there can be."""
        done = os.writev(self._fd, self._batch) if self._batch else 0
        for piece in self._batch if done < self._batched else ():
            if done < len(piece):
                write_all(self._fd, memoryview(piece)[done:])
            done = max(0, done - len(piece))
        self._batch.clear()
        self._batched = 0


@dataclass(slots=True, eq=False)
class _Inode:
    """A node on its way to disk."""

    node: Node
    parent: Node
    xattrs: bytes
    size: int = 0
    block: int = 0
    tail: int = 0
    """Last bytes kept beside the inode."""
    late: bool = False
    """Whether its data is written after all files' data: a directory's or a long link's."""

    def names(self) -> list[bytes]:
        """A directory's names as they stand on disk; the kernel wants the dots among the others."""
        return sorted([*self.node.entries, b".", b".."])

    def data(self) -> bytes:
        """All data of a directory or link."""
        content = self.node.content
        if isinstance(content, dict):
            nodes = {**content, b".": self.node, b"..": self.parent}
            return ondisk.directory(self.names(), {name: (node.nid, node.mode) for name, node in nodes.items()})
        return content if isinstance(content, bytes) else b""

    def tail_data(self) -> bytes:
        """The bytes beside the inode."""
        content = self.node.content
        if isinstance(content, Extent):
            return content.tail
        return self.data()[self.size - self.tail :] if self.tail else b""


def _collect(root: Node) -> list[_Inode]:
    """Every node once, directory by directory, its names counted."""
    inodes = [_Inode(root, root, _attributes(root))]
    root.links = 2
    for inode in inodes:  # grows as it goes
        node = inode.node
        if not node.is_directory:
            continue
        for child in node.entries.values():
            if child.is_directory:
                node.links += 1
                child.links = 1
            elif child.links:
                child.links += 1
                continue
            child.links += 1
            inodes.append(_Inode(child, node, _attributes(child)))
    return inodes


def _assign(inodes: list[_Inode]) -> int:
    """Give every node its place among the inodes. Returns the size of them all."""
    at = SLOT  # not 0: a file numbered 0 is taken for none by readdir's users
    for inode in inodes:
        head = INODE_SIZE + len(inode.xattrs)
        at = _fit(at, head, inode.tail)
        inode.node.nid = at // SLOT
        at = _up(at + head + inode.tail, SLOT)
    return at


def _fit(at: int, head: int, tail: int) -> int:
    """The first place from `at` on where an inode crosses no block; its tail must not, its attributes may."""
    if at % BLOCK + head + tail <= BLOCK:
        return at
    at = _up(at, BLOCK)
    if head + tail > BLOCK and head % BLOCK + tail > BLOCK:
        at += _up(BLOCK - head % BLOCK, SLOT)
    return at


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _encoded(inodes: list[_Inode], size: int) -> Iterator[bytes]:
    """The inodes with their attributes and tails, gaps filled with zeros up to `size`."""
    at = 0
    for number, inode in enumerate(inodes, 1):
        node = inode.node
        place = node.nid * SLOT
        if place > at:
            yield bytes(place - at)
        head = ondisk.Inode(
            mode=node.mode,
            links=node.links,
            uid=node.uid,
            gid=node.gid,
            mtime=node.mtime,
            size=inode.size,
            place=ondisk.device(node.content) if isinstance(node.content, int) else inode.block,
            inline=inode.tail > 0,
            xattrs=len(inode.xattrs),
        )
        piece = ondisk.inode(number, head) + inode.xattrs + inode.tail_data()
        at = place + len(piece)
        yield piece
    yield bytes(size - at)


def _attributes(node: Node) -> bytes:
    return ondisk.xattrs((*node.xattrs, _OPAQUE) if node.opaque else node.xattrs)
