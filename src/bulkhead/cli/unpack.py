"""Unpacking an instance's files on this host. They are hostile: names, links and modes are the workload's choice.

Every directory on the way is opened without following links, so that no link in the archive leads a later entry
elsewhere. Set-id bits are dropped: a file of the instance's root must not become one of this host's.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO, cast

from bulkhead.errors import Problem, Refused

CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class StrictInfo(tarfile.TarInfo):
    """A header that is none is an error. tarfile takes one in the middle for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> StrictInfo:
        """The header in a block."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise Refused(f"the archive is damaged: {error}") from error
            raise  # zeros, or nothing: the end


class Portions(io.RawIOBase):
    """Portions of bytes as a file."""

    def __init__(self, portions: Iterator[bytes]) -> None:
        self._portions = portions
        self._rest = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next bytes; 0 at the end."""
        while not self._rest:
            portion = next(self._portions, None)
            if portion is None:
                return 0
            self._rest = portion
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def unpack(portions: Iterator[bytes], local: str, *, contents: bool, keep_owners: bool) -> int:
    """Unpack a tar stream as `cp -r` would copy its top to `local`; how many entries. Raises Refused."""
    base, top = _place(local, contents=contents)
    with ExitStack() as stack:
        try:
            directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(
                f"cannot copy to {local}: {base}: {error.strerror}", hint="make the directory first"
            ) from error
        stack.callback(os.close, directory)
        stream = cast(BinaryIO, io.BufferedReader(Portions(portions), CHUNK))
        unpacker = Unpacker(directory, top, keep_owners=keep_owners)
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=StrictInfo) as archive:
                for info in archive:
                    unpacker.add(archive, info)
            return unpacker.finish()
        except OSError as error:
            raise Refused(
                f"cannot copy to {local}: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
            ) from error
        except tarfile.TarError as error:
            raise Refused(f"the archive is damaged: {error}") from error


def _place(local: str, *, contents: bool) -> tuple[str, str | None]:
    """The directory to unpack in, and what the archive's top is called: None as it is, "" it has no name of its own."""
    if os.path.isdir(local):  # noqa: PTH112
        return local, "" if contents else None
    if local.endswith("/"):
        raise Refused(f"{local} is not a directory", hint="make it first, or leave out the last slash")
    return os.path.split(os.path.abspath(local))  # noqa: PTH100


class Unpacker:
    """Makes the entries of one archive below a directory."""

    def __init__(self, directory: int, top: str | None, *, keep_owners: bool) -> None:
        self._directory, self._top, self._keep_owners = directory, top, keep_owners
        self._made: set[tuple[str, ...]] = set()
        self._directories: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
        self._left_out: list[Problem] = []

    def add(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        """Make one entry."""
        path = self._path(info.name)
        if not path:
            if not info.isdir():
                raise Refused(f"{info.name} is not a directory", hint="leave out the dot at the end")
            return  # the directory that was there before keeps its mode
        if info.isdir():
            with self._opened(path):
                self._directories.append((path, info))
        elif info.isreg():
            self._file(archive, info, path)
        elif info.issym() or info.islnk():
            self._link(info, path)
        else:
            hint = "read it in the instance"
            self._left_out.append(Problem(f"{info.name} is a device or a pipe and was not copied", hint))
            return
        self._made.add(path)

    def finish(self) -> int:
        """Set what would have been in the way before; how many entries. Raises Refused for what was left out."""
        for path, info in reversed(self._directories):
            with self._opened(path) as directory:
                self._dress(directory, info)
        if self._left_out:
            raise Refused(self._left_out)
        return len(self._made)

    def _path(self, name: str) -> tuple[str, ...]:
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts or name.startswith("/") or not parts:
            raise Refused(f"the archive holds the path {name!r}", hint="nothing was written there")
        if self._top is None:
            return parts
        return (self._top, *parts[1:]) if self._top else parts[1:]

    @contextmanager
    def _opened(self, path: tuple[str, ...]) -> Iterator[int]:
        """A directory below the base, made where it is missing: closed to others until it gets its mode."""
        with ExitStack() as stack:
            directory = self._directory
            for name in path:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=directory)
                directory = os.open(name, _DIRECTORY, dir_fd=directory)
                stack.callback(os.close, directory)
            yield directory

    def _file(self, archive: tarfile.TarFile, info: tarfile.TarInfo, path: tuple[str, ...]) -> None:
        with self._opened(path[:-1]) as directory:
            _clear(path[-1], directory)
            with os.fdopen(os.open(path[-1], _NEW_FILE, 0o600, dir_fd=directory), "wb") as file:
                source = cast("tarfile.ExFileObject", archive.extractfile(info))
                while data := source.read(CHUNK):
                    file.write(data)
                file.flush()
                self._dress(file.fileno(), info)

    def _link(self, info: tarfile.TarInfo, path: tuple[str, ...]) -> None:
        with self._opened(path[:-1]) as directory:
            if info.issym():
                _clear(path[-1], directory)
                os.symlink(info.linkname, path[-1], dir_fd=directory)
                if self._keep_owners:
                    os.chown(path[-1], info.uid, info.gid, dir_fd=directory, follow_symlinks=False)
                return
            first = self._path(info.linkname)
            if first not in self._made:
                raise Refused(f"{info.name} in the archive is a link to {info.linkname}, which is not in it")
            with self._opened(first[:-1]) as source:
                _clear(path[-1], directory)
                os.link(first[-1], path[-1], src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _dress(self, descriptor: int, info: tarfile.TarInfo) -> None:
        if self._keep_owners:
            os.fchown(descriptor, info.uid, info.gid)
        os.fchmod(descriptor, info.mode & 0o777)
        os.utime(descriptor, (max(0, info.mtime), max(0, info.mtime)))


def _clear(name: str, directory: int) -> None:
    """Make room for a new entry; a directory is in the way (IsADirectoryError).

    So is what is no file: whoever copies to /dev/null as root would have no /dev/null any more.
    """
    with suppress(FileNotFoundError):
        mode = os.lstat(name, dir_fd=directory).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise Refused(
                f"{name} is there as a device, a pipe or a socket, which no copy replaces",
                hint="name another file; bulkhead exec NAME cat FILE writes to anything",
            )
        os.unlink(name, dir_fd=directory)
