"""What a COPY takes: files of a view that patterns choose, and a digest of all that they are."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bulkhead.containerfile.patterns import Pattern
from bulkhead.errors import Refused
from bulkhead.images.below import Found
from bulkhead.images.view import Parts, View, components, shown

MOST_MATCHES = 100_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """One source of a COPY."""

    view: View
    parts: Parts
    """Where it is, links followed."""
    found: Found
    name: bytes
    """What it is called where it goes into a directory; b"" for a view's own root."""
    exclude: tuple[Pattern, ...] = ()

    @property
    def is_directory(self) -> bool:
        """Whether what is in it is copied, not itself."""
        return stat.S_ISDIR(self.found.mode)

    def files(self) -> Iterator[tuple[Parts, Parts, Found]]:
        """What is copied: path below this source (empty: itself), path in the view, inode."""
        if not self.is_directory:
            yield (), self.parts, self.found
            return
        for path, found in self.view.walk(self.parts):
            below = path[len(self.parts) :]
            names = [os.fsdecode(part) for part in below]
            if any(pattern.matches(names[:count]) for pattern in self.exclude for count in range(1, len(names) + 1)):
                continue
            yield below, path, found


@dataclass(slots=True)
class Text:
    """A here-document as a source."""

    name: bytes
    data: bytes
    mode: int = 0o644
    parts: Parts = field(default=())


def choose(view: View, source: str, *, what: str, exclude: Sequence[str] = ()) -> list[Chosen]:
    """The files that a source names; `what` says where they are looked for. Raises Refused where there is none."""
    rules = tuple(Pattern(pattern) for pattern in exclude)
    pattern = Pattern("/".join(os.fsdecode(part) for part in components(source)))
    if pattern.plain:
        chosen = [_chosen(view, tuple(os.fsencode(part) for part in pattern.parts), rules)]
    else:
        chosen = [_chosen(view, path, rules) for path in _matching(view, pattern)]
    there = [each for each in chosen if each]
    if not there:
        hint = "files that an ignore file names are not in it" if what == "the context" else ""
        raise Refused(f"{source!r} is not in {what}", hint=hint)
    return there


def _chosen(view: View, path: Parts, exclude: tuple[Pattern, ...]) -> Chosen | None:
    parts, found = view.resolve(path)
    if found is None:
        return None
    return Chosen(view, parts, found, path[-1] if path else b"", exclude)


def _matching(view: View, pattern: Pattern) -> list[Parts]:
    reached: list[Parts] = [()]
    for place in range(len(pattern.parts)):
        step: list[Parts] = []
        for path in reached:
            found = view.find(path)
            if found is None or not stat.S_ISDIR(found.mode):
                continue
            step += [(*path, name) for name in sorted(view.names(path)) if pattern.fits(place, os.fsdecode(name))]
            if len(step) > MOST_MATCHES:
                raise Refused(f"more than {MOST_MATCHES} files match")
        reached = step
    return reached


def digest(sources: Sequence[Chosen | Text], *, owners: bool) -> str:
    """What the sources are, content and all but times, as hex digits. `owners`: theirs count too."""
    total = hashlib.sha256()
    for source in sources:
        if isinstance(source, Text):
            total.update(repr(("text", source.name, hashlib.sha256(source.data).digest())).encode())
            continue
        total.update(repr((source.name, source.is_directory)).encode())
        for below, path, found in source.files():
            owner = (found.uid, found.gid) if owners else ()
            said = (below, found.mode, owner, found.target, found.xattrs, found.size)
            content = _content(source.view, path, found)
            total.update(repr((said, content)).encode())
    return total.hexdigest()


def _content(view: View, path: Parts, found: Found) -> bytes:
    if not stat.S_ISREG(found.mode):
        return b""
    total = hashlib.sha256()
    for piece in view.data(path, found.size):
        total.update(piece)
    return total.digest()


def describe(source: Chosen) -> str:
    """A source for messages."""
    return shown(source.parts)
