"""Files that hold images: OCI archives and directories, docker archives. Their parts are read in place."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bulkhead.errors import ImageError, Refused
from bulkhead.images import tar
from bulkhead.images.bounds import Bounds
from bulkhead.images.node import show
from bulkhead.images.reader import Reader, file_chunks

_MAX_LINKS = 8
_SMALL = 64 << 10
_MARKS = (b"oci-layout", b"manifest.json")
_CERTAIN = re.compile(rb"(blobs/sha256/|sha256:)?[0-9a-f]{64}(\.json|\.tar(\.gz)?|/.*)?", re.DOTALL)
"""What docker, skopeo, podman, umoci and kaniko call the parts of their archives."""
_ROOT = set(b"bin boot dev etc home lib lib32 lib64 media mnt opt proc root run sbin srv sys tmp usr var".split())
"""What is at the top of a root file system."""


class Piece(Protocol):
    """One part of what an image is read from."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def file(self) -> Path | None:
        """A file of the store's own disk that consists of these bytes when all of them have been read; or None."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes."""

    def read(self, bounds: Bounds, what: str) -> bytes:
        """All of it. Raises ImageError when it is larger than a document may be."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of bytes in an open file."""

    fd: int
    offset: int
    size: int
    file: Path | None = None

    def chunks(self) -> Iterator[bytes]:
        """The bytes."""
        return file_chunks(self.fd, offset=self.offset, size=self.size)

    def read(self, bounds: Bounds, what: str) -> bytes:
        """All of it. Raises ImageError when it is larger than a document may be."""
        if self.size > bounds.document:
            raise ImageError(f"{what} has {self.size} bytes, at most {bounds.document} are allowed")
        return b"".join(self.chunks())


class Archive(Protocol):
    """Parts by their names."""

    def part(self, name: str) -> Piece | None:
        """One part, None where there is none of that name."""


class Directory:
    """An OCI layout in a directory. Links in it are not followed: they could lead anywhere on the host."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack

    def part(self, name: str) -> Part | None:
        """One part; its file stays open as long as the stack that was given."""
        if any(piece in ("", ".", "..") for piece in name.split("/")):
            return None
        where = self._path
        for piece in name.split("/"):
            where /= piece
            if where.is_symlink():
                raise ImageError(f"{where} is a symlink; an image's directory has none")
        try:
            fd = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._stack.callback(os.close, fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{where} is not a regular file")
        return Part(fd, 0, found.st_size)


class TarArchive:
    """A plain tar whose members are looked up by name."""

    def __init__(self, fd: int, bounds: Bounds) -> None:
        self._fd = fd
        self._members: dict[bytes, tuple[int, int] | bytes] = {}
        reader = _SkippingReader(fd)
        for entry in tar.entries(reader, bounds, must_end=False, notes=set()):
            name = _plain(entry.path)
            if entry.kind == b"0" and entry.segments is None:
                self._members[name] = (reader.position, entry.stored)
            elif entry.kind == b"2":
                # docker and skopeo write <id>/layer.tar as a link to another member.
                self._members[name] = _plain(os.path.normpath(os.path.join(os.path.dirname(name), entry.link)))  # noqa: PTH118, PTH120
            elif entry.kind == b"1":
                self._members[name] = _plain(entry.link)
            elif entry.kind != b"5":
                raise ImageError(f"the archive holds {show(name)}, which is neither a file nor a link")
            if len(self._members) > bounds.members:
                raise ImageError(f"the archive has more than {bounds.members} members")

    def part(self, name: str) -> Part | None:
        """One part; links are followed inside the archive."""
        found: tuple[int, int] | bytes | None = _plain(name.encode())
        for _ in range(_MAX_LINKS):
            found = self._members.get(found) if isinstance(found, bytes) else found
        if isinstance(found, bytes):
            raise ImageError(f"the archive's member {name[:200]!r} is a link to a link without end")
        return Part(self._fd, *found) if found else None


def holds_images(reader: Reader, bounds: Bounds) -> bool:
    """Whether a tar is an archive of images rather than a root file system. Mostly its first entry tells."""
    marked = False
    for count, entry in enumerate(tar.entries(reader, bounds, must_end=False, notes=set())):
        name = _plain(entry.path)
        if _CERTAIN.fullmatch(name):
            return True
        if name.partition(b"/")[0] in _ROOT or count > bounds.members:
            return False
        marked = marked or (name in _MARKS and entry.kind == b"0")
    return marked


class _SkippingReader(Reader):
    """Reads a file and passes over data without reading it."""

    def __init__(self, fd: int) -> None:
        super().__init__(())
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._next = 0

    def skip(self, size: int) -> None:
        target = self.position + size
        if target > self._size:
            raise ImageError(f"the archive ends {target - self._size} bytes too early: it is truncated")
        if target <= self._next:
            super().skip(size)
            return
        self._passed, self._at, self._view = target, 0, memoryview(b"")
        self._next = target

    def _more(self) -> bool:
        self._passed += self._at
        self._at = 0
        self._view = memoryview(os.pread(self._fd, _SMALL, self._next))
        self._next += len(self._view)
        return bool(self._view)


def plain_reader(fd: int) -> Reader:
    """A reader of an uncompressed tar that only reads headers."""
    return _SkippingReader(fd)


def _plain(name: bytes) -> bytes:
    return name.removeprefix(b"./").strip(b"/")


def open_file(path: Path, stack: ExitStack) -> int:
    """Open a regular file to be imported, until `stack` closes. Raises Refused with the reason when it is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"cannot read {path}: {error.strerror}", hint="give an archive or a root file system tar"
        ) from error
    stack.callback(os.close, fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Refused(f"{path} is not a regular file", hint="a pipe's content goes to the import's stdin")
    return fd
