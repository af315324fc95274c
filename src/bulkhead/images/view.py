"""The files of some layers as one root, with links followed inside it. Nothing is mounted and nothing leads outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.images.archive import open_file
from bulkhead.images.below import Below, Found
from bulkhead.images.node import show

Parts = tuple[bytes, ...]
"""Components of a path, from the root."""
MOST_FOLLOWED = 40
MOST_FILES = 4_000_000
PORTION = 1 << 20


_ROOT = Found(stat.S_IFDIR | 0o755, 0, 0, 0, (), b"", opaque=False, whiteout=False, size=0)


class View(Below):
    """A root made of layers, the highest first."""

    def find(self, path: Sequence[bytes]) -> Found | None:
        """What is at `path`, links not followed. The root itself is always there."""
        return super().find(path) if path else _ROOT

    def resolve(self, path: Sequence[bytes], *, follow: bool = True) -> tuple[Parts, Found | None]:
        """Where a path leads, links followed, and what is there. What is missing on the way stays as it was named.

        `follow`: a link at the end is followed as well. Raises ImageError where the links do not end, or lead through
        what is no directory.
        """
        todo = list(reversed(path))
        here: list[bytes] = []
        found: Found | None = None
        followed = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                here = here[:-1]
                continue
            found = self.find((*here, part))
            if found and found.target and (todo or follow):
                followed += 1
                if followed > MOST_FOLLOWED:
                    raise ImageError(f"{shown(path)} leads through more than {MOST_FOLLOWED} links")
                if found.target.startswith(b"/"):
                    here = []
                todo += [step for step in reversed(found.target.split(b"/")) if step not in (b"", b".")]
                continue
            if found and todo and not stat.S_ISDIR(found.mode):
                raise ImageError(f"{shown(path)} leads through {show(part)}, which is not a directory")
            here.append(part)
        return tuple(here), self.find(here)

    def walk(self, top: Parts) -> Iterator[tuple[Parts, Found]]:
        """Everything below a directory, each directory before what is in it, in the order of names."""
        pending = [top]
        count = 0
        while pending:
            path = pending.pop()
            found = self.find(path)
            if found is None:
                continue
            if path != top:
                count += 1
                if count > MOST_FILES:
                    raise ImageError(f"there are more than {MOST_FILES} files below {shown(top)}")
                yield path, found
            if stat.S_ISDIR(found.mode):
                pending += [(*path, name) for name in sorted(self.names(path), reverse=True)]

    def data(self, path: Parts, size: int) -> Iterator[bytes]:
        """The bytes of a regular file."""
        at = 0
        while at < size:
            piece = self.read_at(path, at, min(PORTION, size - at))
            if not piece:
                raise ImageError(f"{shown(path)} is shorter than it says")
            at += len(piece)
            yield piece

    def read(self, path: str, most: int) -> bytes:
        """A small file, b"" where there is none. Raises ImageError where it is larger than `most`."""
        parts, found = self.resolve([part.encode() for part in path.split("/") if part])
        if found is None or not stat.S_ISREG(found.mode):
            return b""
        if found.size > most:
            raise ImageError(f"{path} has {found.size} bytes, at most {most} are read")
        return b"".join(self.data(parts, found.size))


@contextmanager
def opened(layers: Sequence[Path]) -> Iterator[View]:
    """The view of EROFS files that this package has written, the lowest layer first."""
    with ExitStack() as always:
        yield View([open_file(path, always) for path in reversed(layers)])


def shown(path: Sequence[bytes]) -> str:
    """A path for messages."""
    return show(b"/" + b"/".join(path))


def components(path: str) -> Parts:
    """A path's components, `.` left out and `..` taken as text is, never above the root."""
    parts: list[bytes] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(os.fsencode(part))
    return tuple(parts)
