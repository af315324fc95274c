"""What tar's extensions say: pax records, numbers in both encodings, and the maps of sparse files."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from bulkhead.errors import ImageError
from bulkhead.images.bounds import Bounds
from bulkhead.images.node import show
from bulkhead.images.ondisk import XATTR_PREFIXES

Segments = list[tuple[int, int]]
"""Data of a sparse file: (offset, length), ascending; all else is zeros."""

_XATTR = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_GLOBAL = {b"uid", b"gid", b"mtime", b"atime", b"ctime", b"comment", b"uname", b"gname"}
_FORGED = (b"trusted.overlay.",)
_HOST_LABELS = (b"security.selinux", b"security.SMACK64", b"security.apparmor", b"security.ima", b"security.evm")

_LINUX = tuple(prefix for prefix, _ in XATTR_PREFIXES)
_XATTR_NAME, _XATTR_VALUE = 255, 65535


def parse_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The `length key=value` records of a pax header, in order (keys repeat in sparse maps)."""
    records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        end = at + int(data[at:space]) if space > at and data[at:space].isdigit() else 0
        # An end that is not behind the space would make no headway.
        key, equals, value = data[space + 1 : end - 1].partition(b"=") if end > space + 1 else (b"", b"", b"")
        if not key or not equals or end > len(data) or data[end - 1] != ord("\n"):
            raise ImageError(f"the layer has a damaged pax header: {show(data[at : at + 40])}")
        records.append((key, value))
        at = end
    return records


def number(field: bytes) -> int:
    """A number of a header: octal digits, or GNU's base-256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ImageError(f"the layer has a damaged header: {show(field)} is not a number")
    try:
        return int(digits, 8)
    except ValueError as error:
        raise ImageError(f"the layer has a damaged header: {show(field)} is not a number") from error


def decimal(key: bytes, value: bytes) -> int:
    """A whole number of a pax record."""
    if not value.isdigit() or len(value) > 20:
        raise ImageError(f"the layer has a damaged pax header: {show(key)} is {show(value)}, not a number")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """Nanoseconds of a pax time such as 1700000000.5 or -1.25."""
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 18 or (fraction and not fraction.isdigit()):
        raise ImageError(f"the layer has a damaged pax header: {show(value)} is not a time")
    count = int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -count if value.startswith(b"-") else count


@dataclass(slots=True)
class Extension:
    """What the pax records before an entry say about it. None: nothing."""

    path: bytes | None = None
    linkpath: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: dict[bytes, bytes] | None = None
    segments: Segments | None = None
    """The map of formats 0.0 and 0.1; that of 1.0 comes before the data."""


def read_extension(records: list[tuple[bytes, bytes]], bounds: Bounds, notes: set[str]) -> Extension:
    """Everything that pax records say. What is passed over (and could matter) is named in `notes`."""
    found = Extension()
    xattrs: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    for key, value in records:
        if key.startswith((_XATTR, _LIBARCHIVE)):
            _xattr(key, value, xattrs, notes)
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        elif key == b"GNU.sparse.map":
            pairs = value.split(b",") if value else []
        elif key.startswith(b"GNU.sparse."):
            found.sparse = {**(found.sparse or {}), key.removeprefix(b"GNU.sparse."): value}
        elif key.startswith(b"SCHILY.acl."):
            notes.add("access control lists written as text (SCHILY.acl)")
        else:
            _plain(found, key, value)
    if sum(len(key) + len(value) for key, value in xattrs.items()) > bounds.xattrs:
        raise ImageError(f"a file in the layer has extended attributes of more than {bounds.xattrs} bytes")
    found.xattrs = tuple(sorted(xattrs.items()))
    if found.sparse is not None:
        numbers = [decimal(b"GNU.sparse.map", item) for item in pairs]
        found.segments = list(zip(numbers[::2], numbers[1::2], strict=False))
        found.path = found.sparse.get(b"name", found.path)
    return found


def _plain(found: Extension, key: bytes, value: bytes) -> None:
    if key in (b"path", b"linkpath"):
        if b"\0" in value or not value:
            raise ImageError(f"the layer has a damaged pax header: {show(key)} is {show(value)}")
        setattr(found, key.decode(), value)
    elif key in (b"size", b"uid", b"gid"):
        setattr(found, key.decode(), decimal(key, value))
    elif key == b"mtime":
        found.mtime = nanoseconds(value)


def check_global(records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The records of a global header; only those that make sense for every file are allowed."""
    for key, _ in records:
        if key not in _GLOBAL and not key.startswith(b"VENDOR."):
            raise ImageError(f"the layer sets {show(key)} for all of its files at once")
    return [(key, value) for key, value in records if key in (b"uid", b"gid", b"mtime")]


def _xattr(key: bytes, value: bytes, xattrs: dict[bytes, bytes], notes: set[str]) -> None:
    if key.startswith(_XATTR):
        name = key.removeprefix(_XATTR)
    else:
        name = unquote_to_bytes(key.removeprefix(_LIBARCHIVE))
        try:
            value = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error as error:
            raise ImageError(f"the layer has a damaged pax header: {show(key)} is not base64") from error
        if name in xattrs:
            return  # bsdtar writes both forms of the same attribute
    if name.startswith(_FORGED):
        raise ImageError(
            f"the layer sets {show(name)}: with that an image would direct the host's overlay",
            hint="make the image from a stopped container's files, not from an overlay's directories",
        )
    if name.startswith(_HOST_LABELS):
        notes.add(f"labels of a host's security module ({name.decode(errors='replace')})")
        return
    if not any(name == prefix if prefix[-1:] != b"." else name.startswith(prefix) for prefix in _LINUX):
        notes.add("extended attributes of another system")
        return
    if len(name) > _XATTR_NAME or len(value) > _XATTR_VALUE:
        raise ImageError(f"the layer sets {show(name)} of {len(value)} bytes: larger than Linux allows")
    xattrs[name] = value


def old_sparse(header: bytes) -> tuple[Segments, bool, int]:
    """Of an old GNU sparse header: the first segments, whether more headers follow, and the file's real size."""
    return _pairs(header[386:482]), bool(header[482]), number(header[483:495])


def more_sparse(block: bytes) -> tuple[Segments, bool]:
    """Of a block that continues an old GNU sparse header: its segments, and whether more follow."""
    return _pairs(block[:504]), bool(block[504])


def _pairs(fields: bytes) -> Segments:
    pairs = [(number(offset), number(length)) for offset, length in struct.iter_unpack("12s12s", fields)]
    return [pair for pair in pairs if pair != (0, 0)]


def check_segments(segments: Segments, *, size: int, stored: int) -> Segments:
    """The same map. Raises ImageError unless it is ascending, within `size`, and as long as what is stored."""
    end = total = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise ImageError("the layer has a sparse file whose parts overlap")
        end = offset + length
        total += length
    if end > size or total != stored:
        raise ImageError(f"the layer has a sparse file of {size} bytes whose map says {end}, with {total} stored")
    return segments
