"""One layer: a stream of bytes becomes an EROFS file, every digest made in the same pass."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from bulkhead.errors import ImageError
from bulkhead.images import compression, tar
from bulkhead.images.below import Below
from bulkhead.images.bounds import BOMB, Bounds, check_space
from bulkhead.images.erofs import Writer
from bulkhead.images.node import EMPTY, Extent, Node, show
from bulkhead.images.ondisk import BLOCK
from bulkhead.images.reader import Digester, Reader
from bulkhead.images.tree import Tree
from bulkhead.quantities import format_size

_SPACE_EVERY = 64 << 20
MAX_TARGET = 4096
_TYPES = {
    b"0": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_PROGRAMS = (b"bin/sh", b"usr/bin/sh", b"bin/busybox", b"sbin/init", b"usr/bin/env")
_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came of a stream. Digests are `sha256:<hex>`."""

    digest: str
    """Of the bytes as they came."""
    size: int
    """How many came."""
    diff_id: str
    """Of the uncompressed tar."""
    compression: str
    """"gzip", "zstd", "xz", "bzip2" or "" for none."""
    key: str
    """What the layer's EROFS file is known by: the diff id, or where the file depends on the layers below, a digest
    of it and of what it took from them."""
    architecture: str = ""
    """What the layer's shell is built for, in Go's words; "" where there is no such program."""
    notes: tuple[str, ...] = ()
    """What of the tar was passed over, in words."""


def unpack(
    chunks: Iterable[bytes],
    *,
    bounds: Bounds,
    must_end: bool,
    erofs: int | None,
    blob: int | None = None,
    below: Sequence[int] = (),
    grew: Callable[[int], None] = lambda _: None,
) -> Unpacked:
    """Read a layer to its end.

    `erofs`: an empty file for its EROFS image, None where only the digests matter. `blob`: an empty file for a
    copy of the stream. `must_end`: a tar without its end mark is an error. `below`: EROFS files of the layers below,
    the highest first. `grew` is told the size of the EROFS image before it grows, and may raise.
    Raises ImageError for what is damaged, hostile or larger than `bounds`; the files are the caller's to remove.
    """
    image = None if erofs is None else _Image(erofs, bounds, Below(below), grew)
    with closing(Digester(blob)) as outer:
        kind, came = compression.sniff(outer.pass_on(chunks))
        unpacked = compression.unpack(kind, came, bounds)
        if kind:
            with closing(Digester()) as inner:
                _read(inner.pass_on(unpacked), image, bounds, must_end)
                diff_id, digest = inner.finish(), outer.finish()
        else:
            _read(unpacked, image, bounds, must_end)
            digest = diff_id = outer.finish()
    if image is None:
        return Unpacked(digest, outer.size, diff_id, kind, diff_id)
    key = _key(diff_id, image.tree)
    image.writer.finish(image.tree.root, uuid=bytes.fromhex(key.removeprefix("sha256:"))[:16])
    return Unpacked(digest, outer.size, diff_id, kind, key, image.architecture(), tuple(sorted(image.notes)))


def _read(chunks: Iterable[bytes], image: _Image | None, bounds: Bounds, must_end: bool) -> None:
    """Take in all of a tar; where no image is wanted, for the digests' sake alone."""
    reader = Reader(chunks)
    if image:
        for entry in tar.entries(reader, bounds, must_end=must_end, notes=image.notes):
            image.add(entry, reader)
    reader.drain()


def _key(diff_id: str, tree: Tree) -> str:
    taken = tree.leans_on()
    return "sha256:" + hashlib.sha256(repr((diff_id, taken)).encode()).hexdigest() if taken else diff_id


class _Image:
    """A layer's EROFS file while its entries come in."""

    def __init__(self, fd: int, bounds: Bounds, below: Below, grew: Callable[[int], None]) -> None:
        self.tree = Tree(bounds, below)
        self.writer = Writer(fd)
        self.notes: set[str] = set()
        self._fd = fd
        self._bounds = bounds
        self._space_seen = 0
        self._grew = grew

    def add(self, entry: tar.Entry, reader: Reader) -> None:
        """Enter one file of the tar."""
        if entry.kind == b"1":
            self.tree.link(entry.path, entry.link)
            return
        node = Node(_TYPES[entry.kind] | entry.mode, entry.uid, entry.gid, entry.mtime, _content(entry), entry.xattrs)
        self.tree.put(entry.path, node)
        if entry.kind == b"0" and entry.size:
            self._room(entry.size)
            pieces = reader.pieces(entry.stored)
            if entry.segments is None:
                node.content = self.writer.store(pieces, entry.size)
            else:
                node.content = self.writer.store_sparse(pieces, entry.segments, entry.size)

    def architecture(self) -> str:
        """What its programs are built for, told by the ELF header of the first of _PROGRAMS that it has."""
        for path in _PROGRAMS:
            node = self.tree.follow(path)
            if node and isinstance(node.content, Extent):
                # e_machine; what is too short or no ELF file says nothing.
                header = os.pread(self._fd, 20, node.content.block * BLOCK) if node.content.block else b""
                if header.startswith(b"\x7fELF") and len(header) == 20:
                    return _MACHINES.get(int.from_bytes(header[18:20], "little"), "")
        return ""

    def _room(self, size: int) -> None:
        coming = self.writer.written + size
        if coming > self._bounds.total:
            raise ImageError(f"the layer's files are larger than {format_size(self._bounds.total)}", hint=BOMB)
        self._grew(coming)
        if coming - self._space_seen > _SPACE_EVERY:
            check_space(self._fd, self._bounds)
            self._space_seen = coming


def _content(entry: tar.Entry) -> dict[bytes, Node] | bytes | Extent | int:
    if entry.kind == b"0":
        return EMPTY
    if entry.kind == b"5":
        return {}
    if entry.kind == b"2":
        if not 0 < len(entry.link) < MAX_TARGET or b"\0" in entry.link:
            raise ImageError(f"symlink {show(entry.path)} in the layer has the target {show(entry.link)}")
        return entry.link
    return os.makedev(entry.major, entry.minor) if entry.kind in b"34" else 0
