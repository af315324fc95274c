"""A COPY or ADD as a layer: where each file goes in a root that is there already, and the tar of it."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bulkhead import ustar
from bulkhead.boot import solo
from bulkhead.engine.builds.selecting import Chosen, Text
from bulkhead.errors import ImageError, Refused
from bulkhead.images import compression, tar
from bulkhead.images.below import Found
from bulkhead.images.bounds import Bounds
from bulkhead.images.reader import Reader
from bulkhead.images.view import Parts, View, shown
from bulkhead.ustar import Member

_KINDS = {
    stat.S_IFREG: ustar.FILE,
    stat.S_IFLNK: ustar.SYMLINK,
    stat.S_IFDIR: ustar.DIRECTORY,
    stat.S_IFIFO: ustar.FIFO,
    stat.S_IFCHR: ustar.CHARACTER,
    stat.S_IFBLK: ustar.BLOCK_DEVICE,
}
_NANO = 10**9
_MOST_ETC = 1 << 20


@dataclass(frozen=True, slots=True)
class Manner:
    """How files are copied."""

    owner: tuple[int, int] | None
    """Uid and gid; None: as they are, `keep_owners` or root's."""
    keep_owners: bool
    mode: int | None
    """Of files and directories; None: as they are."""
    latest: int
    """What is made has this time; nothing a later one where `clamp`. Seconds since the epoch."""
    clamp: bool
    unpack: bool
    """Archives are unpacked."""


@dataclass(slots=True)
class _Item:
    member: Member
    view: View | None = None
    path: Parts = ()
    data: bytes = b""


@dataclass(slots=True)
class Placement:
    """Where the sources of one instruction go, below a destination in a root."""

    root: View
    manner: Manner
    items: dict[Parts, _Item] = field(default_factory=dict)
    archives: list[tuple[Parts, Chosen]] = field(default_factory=list)
    _real: dict[Parts, Parts] = field(default_factory=dict)

    def place(self, sources: Sequence[Chosen | Text], target: Parts, *, is_directory: bool) -> None:
        """Find a place for every source. Raises Refused where files stand in the way of directories or otherwise."""
        into, found = self.root.resolve(target)
        there = found is not None and stat.S_ISDIR(found.mode)
        if not is_directory and len(sources) > 1:
            raise Refused("several files are copied to one: the destination must be a directory", hint="end it in /")
        if is_directory and found is not None and not there:
            raise Refused(f"the destination {shown(target)} is a file in the image")
        for source in sources:
            self._source(source, into, as_directory=is_directory or there)

    def _source(self, source: Chosen | Text, into: Parts, *, as_directory: bool) -> None:
        if isinstance(source, Text):
            path = (*into, source.name) if as_directory else into
            uid, gid = self.manner.owner or (0, 0)
            mode = source.mode if self.manner.mode is None else self.manner.mode
            member = Member(b"", ustar.FILE, mode, uid, gid, self.manner.latest, len(source.data))
            self._put(path, _Item(member, data=source.data))
            return
        if self.manner.unpack and not source.is_directory and is_archive(source.view, source.parts, source.found):
            self.directory(into)
            self.archives.append((into, source))
            return
        top = (*into, source.name) if as_directory and not source.is_directory else into
        if source.is_directory:
            self.directory(into)
        for below, path, found in source.files():
            self._put((*top, *below), _Item(self._member(found), source.view, path))

    def _member(self, found: Found) -> Member:
        kind = _KINDS.get(stat.S_IFMT(found.mode))
        if kind is None:
            raise Refused("a socket cannot be copied")
        manner = self.manner
        uid, gid = manner.owner or ((found.uid, found.gid) if manner.keep_owners else (0, 0))
        mode = stat.S_IMODE(found.mode)
        if manner.mode is not None and kind in (ustar.FILE, ustar.DIRECTORY):
            mode = manner.mode
        mtime = found.mtime // _NANO
        return Member(
            b"",
            kind,
            mode,
            uid,
            gid,
            min(mtime, manner.latest) if manner.clamp else mtime,
            found.size if kind == ustar.FILE else 0,
            link=found.target,
            xattrs=found.xattrs,
        )

    def _put(self, path: Parts, item: _Item) -> None:
        """Enter one file, with the directories that it is in."""
        if not path:
            raise Refused("the destination is the root directory: it cannot be a file")
        if path[-1].startswith(ustar.WHITEOUT):
            what = f"{shown(path)} cannot be in a layer: names that begin with .wh. stand for what was removed"
            raise Refused(what, hint="give it another name")
        parent = self.directory(path[:-1])
        place = (*parent, path[-1])
        known = self.items.get(place)
        found = self.root.find(place)
        there = known.member.kind == ustar.DIRECTORY if known else found is not None and stat.S_ISDIR(found.mode)
        if item.member.kind == ustar.DIRECTORY:
            real = self._place_of_directory(place)
            self.directory(real[:-1])
            self.items[real] = item
        elif there:
            raise Refused(f"a file cannot take the place of the directory {shown(place)}")
        else:
            self.items[place] = item

    def directory(self, path: Parts) -> Parts:
        """Enter a directory as it is in the root, or a new one; where it really is."""
        if not path:
            return ()
        known = self._real.get(path)
        if known is not None:
            return known
        parent = self.directory(path[:-1])
        real = self._place_of_directory((*parent, path[-1]))
        self._real[path] = real
        if real not in self.items:
            for count in range(1, len(real)):
                if real[:count] not in self.items:  # where a link has led
                    self.items[real[:count]] = self._as_it_is(real[:count])
            self.items[real] = self._as_it_is(real)
        return real

    def _place_of_directory(self, place: Parts) -> Parts:
        known = self.items.get(place)
        if known is not None:
            if known.member.kind != ustar.DIRECTORY:
                raise Refused(f"{shown(place)} is a file and a directory at once")
            return place
        found = self.root.find(place)
        if found is None or stat.S_ISDIR(found.mode):
            return place
        real, found = self.root.resolve(place)
        if found is None or not stat.S_ISDIR(found.mode):
            raise Refused(f"a directory cannot take the place of {shown(place)}, which is a file in the image")
        return real

    def _as_it_is(self, path: Parts) -> _Item:
        found = self.root.find(path)
        if found is not None and stat.S_ISDIR(found.mode):
            return _Item(
                Member(
                    b"",
                    ustar.DIRECTORY,
                    stat.S_IMODE(found.mode),
                    found.uid,
                    found.gid,
                    found.mtime // _NANO,
                    xattrs=found.xattrs,
                )
            )
        uid, gid = self.manner.owner or (0, 0)
        return _Item(Member(b"", ustar.DIRECTORY, 0o755, uid, gid, self.manner.latest))

    def layer(self, bounds: Bounds) -> Iterator[bytes]:
        """The layer. Raises ImageError for an archive that is damaged or hostile."""
        for path in sorted(self.items):
            item = self.items[path]
            yield ustar.head(item.member.but(path=b"/".join(path)))
            if item.member.kind == ustar.FILE:
                if item.view:
                    yield from item.view.data(item.path, item.member.size)
                else:
                    yield item.data
                yield ustar.padding(item.member.size)
        for into, source in self.archives:
            yield from self._unpacked(into, source, bounds)
        yield ustar.END

    def _unpacked(self, into: Parts, source: Chosen, bounds: Bounds) -> Iterator[bytes]:
        kind, chunks = compression.sniff(source.view.data(source.parts, source.found.size))
        reader = Reader(compression.unpack(kind, chunks, bounds))
        prefix = b"".join(part + b"/" for part in into)
        for entry in tar.entries(reader, bounds, must_end=False, notes=set()):
            parts = [part for part in entry.path.split(b"/") if part not in (b"", b".")]
            if b".." in parts:
                raise ImageError(f"archive {shown(source.parts)}: {shown(parts)} leads out of it")
            if any(part.startswith(ustar.WHITEOUT) for part in parts):
                raise ImageError(f"archive {shown(source.parts)}: {shown(parts)} stands for a removed file in a layer")
            if parts:
                yield from self._entry(prefix, b"/".join(parts), entry, reader)

    def _entry(self, prefix: bytes, path: bytes, entry: tar.Entry, reader: Reader) -> Iterator[bytes]:
        manner, mtime = self.manner, entry.mtime // _NANO
        uid, gid = manner.owner or (entry.uid, entry.gid)
        link = entry.link
        if entry.kind == ustar.LINK:
            link = prefix + b"/".join(part for part in link.split(b"/") if part not in (b"", b"."))
        size = entry.size if entry.kind == ustar.FILE else 0
        yield ustar.head(
            Member(
                prefix + path,
                entry.kind,
                entry.mode if manner.mode is None or entry.kind == ustar.SYMLINK else manner.mode,
                uid,
                gid,
                min(mtime, manner.latest) if manner.clamp else mtime,
                size,
                link,
                entry.major,
                entry.minor,
                entry.xattrs,
            )
        )
        if not size:
            return
        if entry.segments is None:
            for piece in reader.pieces(size):
                yield bytes(piece)
        else:
            yield from _filled(reader, entry.segments, size)
        yield ustar.padding(size)


def _filled(reader: Reader, segments: Sequence[tuple[int, int]], size: int) -> Iterator[bytes]:
    """A sparse file with its holes as zeros."""
    at = 0
    for offset, length in (*segments, (size, 0)):
        while at < offset:
            portion = min(1 << 20, offset - at)
            yield bytes(portion)
            at += portion
        for piece in reader.pieces(length):
            yield bytes(piece)
        at += length


def is_archive(view: View, path: Parts, found: Found) -> bool:
    """Whether a file is a tar, compressed or not: told by its first bytes, as docker does."""
    if not stat.S_ISREG(found.mode) or found.size < ustar.BLOCK // 8:
        return False
    bounds = Bounds()
    try:
        kind, chunks = compression.sniff(view.data(path, found.size))
        head = b""
        for piece in compression.unpack(kind, chunks, bounds):
            head += bytes(piece)
            if len(head) >= ustar.BLOCK:
                break
    except ImageError:
        return False
    return _is_head(head[: ustar.BLOCK])


def _is_head(block: bytes) -> bool:
    """Whether this is the head of a tar's first member: its checksum is right."""
    digits = block[148:156].strip(b" \0")
    if len(block) < ustar.BLOCK or not digits.isdigit() or any(digit not in b"01234567" for digit in digits):
        return False
    return sum(block[:148]) + 8 * ord(" ") + sum(block[156:]) == int(digits, 8)


def owner_of(text: str, root: View) -> tuple[int, int]:
    """The ids of `user[:group]`, by the image's files; a user without a group has the group of the same number."""
    uid, gid = solo.find_user(text, root.read("/etc/passwd", _MOST_ETC), root.read("/etc/group", _MOST_ETC))
    return uid, gid if ":" in text else uid
