"""A tar of unknown origin, entry by entry: v7, ustar, pax and GNU, sparse files included.

A parser of our own, since entries must come off a stream fast, by the thousand, with every field bounded, and
since what tarfile guesses or passes over in a damaged archive has to be an error here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from bulkhead.errors import ImageError
from bulkhead.images import pax
from bulkhead.images.bounds import Bounds
from bulkhead.images.node import show
from bulkhead.images.reader import Reader

BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_ZEROS = bytes(BLOCK)
_NO_DATA = b"123456"  # whatever size these claim, nothing follows: as in Go's archive/tar
_MAX_ID = 0xFFFFFFFE
_MAX_SIZE = 1 << 62
_MAX_SECONDS = 1 << 40


@dataclass(slots=True)
class Entry:
    """One file of a tar. Its data, `stored` bytes, are next in the reader when it is handed out."""

    path: bytes
    kind: bytes
    """The tar type: 0 file, 1 hard link, 2 symlink, 3 and 4 devices, 5 directory, 6 fifo."""
    mode: int
    """Permissions alone."""
    uid: int
    gid: int
    mtime: int
    """Nanoseconds since the epoch."""
    stored: int
    size: int
    """The file's size: more than `stored` where it is sparse."""
    link: bytes
    major: int
    minor: int
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    segments: pax.Segments | None = None


@dataclass(slots=True)
class _Pending:
    """What the extension headers before an entry have said."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    name: bytes | None = None
    link: bytes | None = None
    seen: bool = False


def entries(reader: Reader, bounds: Bounds, *, must_end: bool, notes: set[str]) -> Iterator[Entry]:
    """The entries in order. The caller may read an entry's data from `reader`; what it leaves is skipped.

    `must_end`: an archive without its end mark is an error (where no digest tells whether it is whole).
    `notes` receives in words what of the archive is passed over.
    """
    common: list[tuple[bytes, bytes]] = []
    pending = _Pending()
    while (header := _next_header(reader, must_end=must_end)) is not None:
        fields = _HEADER.unpack(header)
        if fields[7] in b"xXgLKV":
            _read_extension(reader, fields, pending, common, bounds)
            continue
        entry = _entry(fields, common, pending, bounds, notes)
        if fields[7] == b"S":
            _read_old_sparse(reader, header, entry, bounds)
        end = reader.position + _padded(entry.stored)
        if entry.segments is not None and fields[7] != b"S":
            _read_sparse(reader, entry, pending.records, bounds)
        yield entry
        reader.skip(end - reader.position)
        if pending.seen:
            pending = _Pending()
    if pending.seen:
        raise ImageError("the tar ends after an extension header: it is truncated")


def _padded(size: int) -> int:
    return (size + BLOCK - 1) & -BLOCK


def _next_header(reader: Reader, *, must_end: bool) -> bytes | None:
    """The next header with a good checksum; None at the end mark, or at the end where that may be missing."""
    if reader.at_end():
        if must_end:
            raise ImageError("the tar has no end mark: it is truncated")
        return None
    header = reader.exactly(BLOCK)
    if header == _ZEROS:
        # One block of zeros ends the archive for most; the second, and what follows, says nothing.
        return None
    said = header[148:156].strip(b" \0")
    if not said.isdigit() or int(said) != _octal(sum(header) - sum(header[148:156]) + 256):
        # Some old archivers added up signed bytes.
        signed = sum(byte - 256 if byte > 127 else byte for byte in header[:148] + header[156:]) + 256
        if not said.isdigit() or int(said) != _octal(signed):
            raise ImageError("this is not a tar, or it is damaged: a header's checksum is wrong")
    return header


def _octal(number: int) -> int:
    """The decimal number whose digits are `number` in octal: compares with what int() made of octal digits."""
    return int(f"{number:o}")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _entry(
    fields: tuple[bytes, ...],
    common: list[tuple[bytes, bytes]],
    pending: _Pending,
    bounds: Bounds,
    notes: set[str],
) -> Entry:
    name, mode, uid, gid, size, mtime, _, kind, link, magic, _, _, major, minor, prefix, end = fields
    path = _text(name)
    if magic == b"ustar\x0000" and prefix[0]:
        path = _text(prefix[:131] if end.endswith(b"tar\0") else prefix) + b"/" + path
    entry = Entry(
        path=path if pending.name is None else pending.name,
        kind=kind,
        mode=pax.number(mode) & 0o7777,
        uid=pax.number(uid),
        gid=pax.number(gid),
        mtime=pax.number(mtime) * 10**9,
        stored=pax.number(size),
        size=0,
        link=_text(link) if pending.link is None else pending.link,
        major=pax.number(major) if kind in b"34" else 0,
        minor=pax.number(minor) if kind in b"34" else 0,
    )
    if pending.records or common:
        _apply(entry, pax.read_extension(common + pending.records, bounds, notes))
    _settle(entry)
    return entry


def _apply(entry: Entry, said: pax.Extension) -> None:
    entry.path = entry.path if said.path is None else said.path
    entry.link = entry.link if said.linkpath is None else said.linkpath
    entry.stored = entry.stored if said.size is None else said.size
    entry.uid = entry.uid if said.uid is None else said.uid
    entry.gid = entry.gid if said.gid is None else said.gid
    entry.mtime = entry.mtime if said.mtime is None else said.mtime
    entry.xattrs = said.xattrs
    entry.segments = said.segments


def _settle(entry: Entry) -> None:
    """Make one of the equivalent forms of an entry, and refuse what none of them is."""
    if entry.kind in b"\x007":
        entry.kind = b"0"
    if entry.kind == b"0" and entry.path.endswith(b"/"):
        entry.kind = b"5"  # how a directory was written before there was a type for it
        if entry.stored:
            raise ImageError(f"{show(entry.path)} in the tar is named as a directory and has data")
    if entry.kind not in b"0123456S":
        raise ImageError(f"{show(entry.path)} in the tar is of a type that is not known: {show(entry.kind)}")
    if entry.kind in _NO_DATA:
        entry.stored = 0
    entry.size = entry.stored
    entry.path = entry.path.rstrip(b"/") or entry.path
    if not 0 <= entry.stored <= _MAX_SIZE:
        raise ImageError(f"{show(entry.path)} in the tar has a size of {entry.stored}")
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise ImageError(f"{show(entry.path)} in the tar belongs to {entry.uid}:{entry.gid}: no such ids")
    if abs(entry.mtime) > _MAX_SECONDS * 10**9:
        raise ImageError(f"{show(entry.path)} in the tar has a time out of range")
    if entry.major not in range(1 << 12) or entry.minor not in range(1 << 20):
        raise ImageError(f"{show(entry.path)} in the tar is device {entry.major}:{entry.minor}: no such numbers")
    if entry.segments is not None and entry.kind != b"0":
        raise ImageError(f"{show(entry.path)} in the tar is sparse and not a file")


def _read_extension(
    reader: Reader, fields: tuple[bytes, ...], pending: _Pending, common: list[tuple[bytes, bytes]], bounds: Bounds
) -> None:
    size, kind = pax.number(fields[4]), fields[7]
    if not 0 <= size <= bounds.header:
        raise ImageError(f"the tar has an extension header of {size} bytes, at most {bounds.header} are allowed")
    data = reader.exactly(size)
    reader.skip(_padded(size) - size)
    if kind == b"V":
        return  # the label of a volume
    if kind == b"g":
        common += pax.check_global(pax.parse_records(data))
        if len(common) > bounds.members:
            raise ImageError("the tar has too many global headers")
        return
    pending.seen = True
    if kind == b"L":
        pending.name = _text(data)
    elif kind == b"K":
        pending.link = _text(data)
    else:
        pending.records = pax.parse_records(data)


def _read_old_sparse(reader: Reader, header: bytes, entry: Entry, bounds: Bounds) -> None:
    segments, more, size = pax.old_sparse(header)
    while more:
        block = reader.exactly(BLOCK)
        found, more = pax.more_sparse(block)
        segments += found
        if len(segments) > bounds.header // 24:
            raise ImageError(f"{show(entry.path)} in the tar is a sparse file of more than {len(segments)} parts")
    _set_sparse(entry, segments, size)


def _read_sparse(reader: Reader, entry: Entry, records: list[tuple[bytes, bytes]], bounds: Bounds) -> None:
    """The pax formats: 0.0 and 0.1 have told their map already, that of 1.0 stands before the data."""
    said = {key: value for key, value in records if key.startswith(b"GNU.sparse.")}
    size = said.get(b"GNU.sparse.realsize", said.get(b"GNU.sparse.size", b""))
    segments = entry.segments or []
    if said.get(b"GNU.sparse.major") == b"1":
        start = reader.position
        count = _line(reader)
        if count > bounds.header // 4:
            raise ImageError(f"{show(entry.path)} in the tar is a sparse file of {count} parts")
        segments = [(_line(reader), _line(reader)) for _ in range(count)]
        reader.skip(-(reader.position - start) % BLOCK)
        entry.stored -= reader.position - start
    _set_sparse(entry, segments, pax.decimal(b"GNU.sparse.realsize", size))


def _line(reader: Reader) -> int:
    digits = b""
    while (byte := reader.exactly(1)) != b"\n":
        digits += byte
        if len(digits) > 20:
            break
    return pax.decimal(b"the map of a sparse file", digits)


def _set_sparse(entry: Entry, segments: pax.Segments, size: int) -> None:
    if not 0 <= size <= _MAX_SIZE:
        raise ImageError(f"{show(entry.path)} in the tar has a size of {size}")
    entry.kind = b"0"
    entry.size = size
    entry.segments = pax.check_segments(segments, size=size, stored=entry.stored)
