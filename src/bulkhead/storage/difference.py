"""What an instance has changed, as an OCI layer: a tar made from the upper directory of its overlay.

Only for disks that the host's kernel alone has written and that no program uses at the moment. What is in them is a
workload's all the same: no link is followed, sizes and counts have bounds, and what would mean something else in a
layer is refused. The same directory always gives the same bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead import ustar
from bulkhead.errors import HostError, Refused
from bulkhead.quantities import format_size
from bulkhead.ustar import Member

MOST_BYTES = 64 << 30
MOST_NAMES = 4_000_000
MOST_PATH = 4095
PORTION = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPAQUE = "trusted.overlay.opaque"
_ELSEWHERE = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
"""Marks of files that are partly in another layer; the overlays of instances make none."""
_KEPT = ("user.", "security.capability", "system.posix_acl_")
"""Beginnings of names of attributes. Others are an overlay's or a host's."""
_KINDS = {
    stat.S_IFREG: ustar.FILE,
    stat.S_IFLNK: ustar.SYMLINK,
    stat.S_IFCHR: ustar.CHARACTER,
    stat.S_IFBLK: ustar.BLOCK_DEVICE,
    stat.S_IFDIR: ustar.DIRECTORY,
    stat.S_IFIFO: ustar.FIFO,
}


def layer(
    upper: Path,
    *,
    latest: int | None = None,
    stubs: Collection[bytes] = (),
    own: Mapping[str, str] | None = None,
    without: Collection[bytes] = (),
    most: int = MOST_BYTES,
) -> Iterator[bytes]:
    """The layer's tar, in pieces.

    `latest`: no time in it is later, in seconds since the epoch. `stubs`: relative paths at which something was
    mounted; the empty files and directories that were made there are left out. `own`: absolute paths and texts of files
    that Bulkhead has put there; as long as they hold that they are left out. `without`: relative paths that are left
    out whatever is there. `most`: bytes of the tar. Sockets are left out. Raises Refused for what a layer cannot hold,
    HostError when the directory cannot be read.
    """
    with ExitStack() as always:
        try:
            top = os.open(upper, _OPEN | os.O_DIRECTORY)
            always.callback(os.close, top)
            yield from _Walk(top, latest, frozenset(stubs), frozenset(without), most, own or {}).run()
        except OSError as error:
            raise HostError(f"the changes in {upper} cannot be read: {error.strerror}") from error


@dataclass(slots=True)
class _Walk:
    top: int
    latest: int | None
    stubs: frozenset[bytes]
    without: frozenset[bytes]
    most: int
    own: Mapping[str, str]
    written: int = 0
    names: int = 0
    linked: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """The first path of each file that has several."""

    def run(self) -> Iterator[bytes]:
        """Everything, each directory before what is in it, names in the order of their bytes."""
        yield from self._root()
        pending = self._sorted(b".", b"")
        while pending:
            path = pending.pop()
            status = os.lstat(path, dir_fd=self.top)
            if (
                stat.S_ISSOCK(status.st_mode)
                or path in self.without
                or (path in self.stubs and self._is_stub(path, status))
            ):
                continue
            if is_own(self.top, path, status, self.own):
                continue
            if stat.S_ISDIR(status.st_mode):
                yield from self._directory(path, status)
                pending += self._sorted(path, path + b"/")
            else:
                yield from self._entry(path, status)
        yield self._counted(b"the end", ustar.END)

    def _root(self) -> Iterator[bytes]:
        """The top, where somebody has changed it."""
        status = os.fstat(self.top)
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != (0o755, 0, 0):
            yield self._head(self._member(b".", status))

    def _sorted(self, path: bytes, prefix: bytes) -> list[bytes]:
        """Paths in a directory, the last first."""
        descriptor = os.open(path, _OPEN | os.O_DIRECTORY, dir_fd=self.top)
        try:
            names = [os.fsencode(name) for name in os.listdir(descriptor)]  # noqa: PTH208 - by descriptor
        finally:
            os.close(descriptor)
        self.names += len(names)
        if self.names > MOST_NAMES:
            raise Refused(f"there are more than {MOST_NAMES} changed files")
        if names and len(prefix) + max(map(len, names)) > MOST_PATH:
            raise Refused(f"{_show(prefix)} is in too deep a directory: no path of a layer is longer than {MOST_PATH}")
        return [prefix + name for name in sorted(names, reverse=True)]

    def _is_stub(self, path: bytes, status: os.stat_result) -> bool:
        """Whether nothing is there but what it took to mount something."""
        if stat.S_ISREG(status.st_mode):
            return status.st_size == 0
        if not stat.S_ISDIR(status.st_mode):
            return False
        inside = self._sorted(path, path + b"/")
        return all(
            each in self.without or (each in self.stubs and self._is_stub(each, os.lstat(each, dir_fd=self.top)))
            for each in inside
        )

    def _directory(self, path: bytes, status: os.stat_result) -> Iterator[bytes]:
        self._check_name(path)
        descriptor = os.open(path, _OPEN | os.O_DIRECTORY, dir_fd=self.top)
        try:
            found = self._attributes(path, descriptor)
        finally:
            os.close(descriptor)
        opaque = found.pop(_OPAQUE, b"") == b"y"
        yield self._head(self._member(path, status, found))
        if opaque:
            yield self._head(Member(path + b"/" + ustar.OPAQUE, ustar.FILE, mode=0))

    def _entry(self, path: bytes, status: os.stat_result) -> Iterator[bytes]:
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            directory, slash, name = path.rpartition(b"/")
            yield self._head(Member(directory + slash + ustar.WHITEOUT + name, ustar.FILE, mode=0))
            return
        self._check_name(path)
        if status.st_nlink > 1:
            first = self.linked.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                yield self._head(self._member(path, status).but(kind=ustar.LINK, size=0, link=first))
                return
        if stat.S_ISREG(status.st_mode):
            yield from self._file(path, status)
        elif stat.S_ISLNK(status.st_mode):
            target = os.fsencode(os.readlink(path, dir_fd=self.top))
            yield self._head(self._member(path, status).but(link=target))
        else:
            yield self._head(self._member(path, status))

    def _file(self, path: bytes, status: os.stat_result) -> Iterator[bytes]:
        if self.written + status.st_size > self.most:
            self._too_much(path)
        descriptor = os.open(path, _OPEN, dir_fd=self.top)
        try:
            yield self._head(self._member(path, status, self._attributes(path, descriptor)))
            left = status.st_size
            while left:
                data = os.read(descriptor, min(PORTION, left))
                if not data:
                    raise HostError(f"{_show(path)} became shorter while it was read")
                left -= len(data)
                yield self._counted(path, data)
            if rest := ustar.padding(status.st_size):
                yield self._counted(path, rest)
        finally:
            os.close(descriptor)

    def _member(self, path: bytes, status: os.stat_result, attributes: dict[str, bytes] | None = None) -> Member:
        mtime = int(status.st_mtime)
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        device = status.st_rdev if kind in (ustar.CHARACTER, ustar.BLOCK_DEVICE) else 0
        return Member(
            path,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=mtime if self.latest is None else min(mtime, self.latest),
            size=status.st_size if kind == ustar.FILE else 0,
            major=os.major(device),
            minor=os.minor(device),
            xattrs=tuple(sorted((os.fsencode(name), value) for name, value in (attributes or {}).items())),
        )

    def _attributes(self, path: bytes, descriptor: int) -> dict[str, bytes]:
        """Those that belong into a layer, and the mark of an opaque directory."""
        found = {}
        for name in os.listxattr(descriptor):
            if name in _ELSEWHERE:
                raise HostError(f"{_show(path)} is not whole: an overlay has marked it with {name}")
            if name == _OPAQUE or name.startswith(_KEPT):
                try:
                    found[name] = os.getxattr(descriptor, name)
                except OSError as error:
                    if error.errno != errno.ENODATA:
                        raise
        return found

    def _check_name(self, path: bytes) -> None:
        if path.rpartition(b"/")[2].startswith(ustar.WHITEOUT):
            what = f"{_show(path)} cannot be in a layer: names that begin with .wh. stand for what was removed"
            raise Refused(what, hint="give it another name, or remove it")

    def _head(self, member: Member) -> bytes:
        return self._counted(member.path, ustar.head(member))

    def _counted(self, path: bytes, data: bytes) -> bytes:
        self.written += len(data)
        if self.written > self.most:
            self._too_much(path)
        return data

    def _too_much(self, path: bytes) -> None:
        raise Refused(f"the changes take more than {format_size(self.most)}, last {_show(path)}")


def is_own(top: int, path: bytes, status: os.stat_result, own: Mapping[str, str]) -> bool:
    """Whether a file below the directory `top` is one that Bulkhead has put there, and holds what it held then."""
    text = own.get("/" + path.decode("utf-8", "replace"))
    if text is None or not stat.S_ISREG(status.st_mode) or status.st_size != len(text.encode()):
        return False
    descriptor = os.open(path, _OPEN, dir_fd=top)
    try:
        return os.read(descriptor, status.st_size) == text.encode()
    finally:
        os.close(descriptor)


def _show(path: bytes) -> str:
    """A path for a message: printable and short."""
    text = "/" + path.decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"
