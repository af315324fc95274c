"""The files that one program needs of a root file system: itself, its libraries, and what it is said to read.

Everything is looked for inside that root, which is hostile: links are followed there and nowhere else, and every
count and size is bounded.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import Protocol

from bulkhead import elf
from bulkhead.boot import cpio
from bulkhead.boot.cpio import Entry
from bulkhead.errors import Refused

TOP = "app"
"""The directory of the initramfs that becomes the application's root."""
MAX_BYTES, MAX_FILES = 256 << 20, 20_000
MAX_LINKS, MAX_LIBRARIES = 40, 512
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBRARY_PATH = (
    *("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"),
    *("/lib/i386-linux-gnu", "/usr/lib/i386-linux-gnu", "/lib32", "/usr/local/lib"),
)
"""Where loaders look when nothing tells them where: glibc's of Debian and of others, musl's."""


class Found(Protocol):
    """A file of a root file system."""

    @property
    def mode(self) -> int:
        """Type and permissions."""

    @property
    def target(self) -> bytes:
        """Of a symlink."""

    @property
    def size(self) -> int:
        """Bytes."""


class Root(Protocol):
    """A root file system that can be read; paths are components. Links are not followed."""

    def find(self, path: Sequence[bytes]) -> Found | None:
        """What is there."""

    def read_at(self, path: Sequence[bytes], at: int, size: int) -> bytes:
        """Bytes of a regular file."""

    def names(self, path: Sequence[bytes]) -> set[bytes]:
        """Names in a directory."""


Path = tuple[bytes, ...]


class Closure:
    """Collects files of a root, with the links on the way to them."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._entries: dict[Path, Entry] = {}
        self._bytes = 0

    def entries(self) -> list[Entry]:
        """For an archive: parents come first."""
        return [self._entries[path] for path in sorted(self._entries, key=lambda path: (len(path), path))]

    def program(self, name: str, search: str) -> str:
        """Add a program, by its path or by a name in `search`, with all that it is linked with. Its path."""
        path = self._which(name, search)
        self._linked(path)
        return path

    def keep(self, name: str) -> None:
        """Add a file, or a directory with all below it. Raises Refused."""
        real = self.resolve(name)
        if real is None:
            raise Refused(f"--keep {name}: the image has no such file", hint="a path in the image, from its root")
        todo = [real]
        while todo:
            path = todo.pop()
            found = self._add(path)
            if stat.S_ISDIR(found.mode):
                todo += [(*path, child) for child in self._root.names(path)]

    def optional(self, name: str) -> None:
        """Add a file where there is one."""
        if (real := self.resolve(name)) is not None:
            self._add(real)

    def directory(self, name: str) -> None:
        """Have a directory there, the image's own or an empty one. Raises Refused where something else is."""
        path = _parts(name)
        for length in range(1, len(path) + 1):
            part, found = path[:length], self._root.find(path[:length])
            if found and stat.S_ISLNK(found.mode) and (real := self.resolve(_text(part))) is not None:
                self.directory(_text((*real, *path[length:])))
                return
            if found and not stat.S_ISDIR(found.mode):
                raise Refused(f"{_text(part)} is no directory in the image")
            if part not in self._entries:
                self._put(part, found.mode if found else stat.S_IFDIR | 0o755, b"")

    def read(self, name: str, most: int) -> bytes:
        """A file's contents, at most so many bytes; empty where there is none."""
        real = self.resolve(name)
        return self._root.read_at(real, 0, most) if real is not None else b""

    def resolve(self, name: str) -> Path | None:
        """Where a path leads in the root; None where to nothing. The links on the way are added."""
        todo, here, followed = list(reversed(_parts(name))), list[bytes](), 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del here[-1:]
                continue
            there = (*here, part)
            found = self._root.find(there)
            if found is None:
                return None
            if not stat.S_ISLNK(found.mode):
                here.append(part)
                continue
            followed += 1
            if followed > MAX_LINKS:
                raise Refused(f"{name} leads through more than {MAX_LINKS} links in the image")
            # What leads to it are directories: nothing but a link may be in the last of them.
            self.directory(_text(tuple(here)))
            self._put(there, found.mode, found.target)
            if found.target.startswith(b"/"):
                here = []
            todo += reversed(found.target.split(b"/"))
        return tuple(here)

    def _which(self, name: str, search: str) -> str:
        places = [name] if "/" in name else [f"{place}/{name}" for place in search.split(":") if place.startswith("/")]
        for place in places:
            real = self.resolve(place)
            found = self._root.find(real) if real else None
            if found and stat.S_ISREG(found.mode):
                return place
        raise Refused(f"the program {name} is not in the image", hint="name another after the image's name")

    def _linked(self, program: str) -> None:
        todo, seen, origin_paths = [program], set[Path](), list[str]()
        while todo:
            name = todo.pop()
            real = self.resolve(name)
            if real is None:
                raise Refused(f"{program} needs {name}, which the image does not have")
            if real in seen:
                continue
            seen.add(real)
            if len(seen) > MAX_LIBRARIES:
                raise Refused(f"{program} needs more than {MAX_LIBRARIES} libraries")
            needs = self._needs(real, name)
            origin = _text(real[:-1])
            own = [path.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for path in needs.paths]
            origin_paths += own
            self._add(real)
            todo += [needs.interpreter] if needs.interpreter else []
            todo += [self._library(library, (*own, *origin_paths), program) for library in needs.libraries]

    def _needs(self, path: Path, name: str) -> elf.Needs:
        def read_at(at: int, size: int) -> bytes:
            return self._root.read_at(path, at, size)

        head = read_at(0, elf.HEADER)
        if head.startswith(b"#!"):
            hint = "name the program that it starts after the image's name: a unikernel has no shell"
            raise Refused(f"{name} is a script", hint=hint)
        try:
            return elf.needs(elf.read(read_at), read_at)
        except elf.Damaged as error:
            raise Refused(f"{name} cannot be run: {error}") from error

    def _library(self, name: str, own: Sequence[str], program: str) -> str:
        places = [name] if "/" in name else [f"{place}/{name}" for place in (*own, *LIBRARY_PATH)]
        for place in places:
            real = self.resolve(place)
            if real is not None:
                return place
        raise Refused(f"{program} needs the library {name}, which the image does not have")

    def _add(self, path: Path) -> Found:
        """One file, with its parents."""
        found = self._root.find(path)
        if found is None:
            raise Refused(f"{_text(path)} is not in the image")
        self.directory(_text(path[:-1]))
        if path in self._entries:
            return found
        if stat.S_ISREG(found.mode):
            self._bytes += found.size
            if self._bytes > MAX_BYTES:
                raise Refused(f"the application's files come to more than {MAX_BYTES >> 20}M", hint="keep less")
            self._put(path, found.mode, self._root.read_at(path, 0, found.size))
        elif stat.S_ISLNK(found.mode):
            self._put(path, found.mode, found.target)
        elif stat.S_ISDIR(found.mode) and path:
            self._put(path, found.mode, b"")
        return found

    def _put(self, path: Path, mode: int, data: bytes) -> None:
        self._entries[path] = Entry(_text(path).lstrip("/"), mode, data)
        if len(self._entries) > MAX_FILES:
            raise Refused(f"the application has more than {MAX_FILES} files", hint="keep less")


def _parts(name: str) -> Path:
    return tuple(part.encode(errors="surrogateescape") for part in name.split("/") if part)


def _text(path: Path) -> str:
    return "/" + b"/".join(path).decode(errors="surrogateescape")


class OneProgram:
    """A root file system of one program, given as a file."""

    def __init__(self, path: str, data: bytes) -> None:
        self._path, self._data = _parts(path), data

    def find(self, path: Sequence[bytes]) -> Found | None:
        """The program, and the directories above it."""
        if tuple(path) == self._path:
            return _File(stat.S_IFREG | 0o755, b"", len(self._data))
        return _File(stat.S_IFDIR | 0o755, b"", 0) if self._path[: len(path)] == tuple(path) else None

    def read_at(self, path: Sequence[bytes], at: int, size: int) -> bytes:
        """Its bytes."""
        return self._data[at : at + size] if tuple(path) == self._path else b""

    def names(self, path: Sequence[bytes]) -> set[bytes]:
        """The next component of its path."""
        return {self._path[len(path)]} if self._path[: len(path)] == tuple(path) != self._path else set()


class _File:
    def __init__(self, mode: int, target: bytes, size: int) -> None:
        self.mode, self.target, self.size = mode, target, size


def archive(entries: Sequence[Entry], settings: bytes) -> bytes:
    """The application's part of an initramfs. `settings`: what the small init reads."""
    placed = [Entry(f"{TOP}/{entry.path}", entry.mode, entry.data) for entry in entries]
    return cpio.archive([cpio.directory(TOP), *placed, cpio.file(".unikernel", settings, 0o600)])
