"""Heads of tar members: ustar, with a pax header before those that it has no room for. The same in, the same out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)
"""What a tar ends with."""
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
WHITEOUT = b".wh."
"""Before a name: what is below has been removed."""
OPAQUE = b".wh..wh..opq"
"""In a directory: nothing of what is below shows through."""
_NAME = 100
_ID, _SIZE = 0o7777777, 0o77777777777


class Member:
    """One file of a tar. No dataclass: the command line loads this, and dataclasses take it milliseconds."""

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime", "path", "size", "uid", "xattrs")

    def __init__(  # noqa: PLR0917 - in the order of a header's fields
        self,
        path: bytes,
        kind: bytes,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        size: int = 0,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        """`path`: relative, without a slash at its end. `mode`: permissions alone. `mtime`: seconds since the epoch.

        `size`: bytes that follow the head, of a file. `link`: a symlink's target, or the path that a hard link is
        another name of. `xattrs`: sorted by name.
        """
        self.path = path
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = size
        self.link = link
        self.major = major
        self.minor = minor
        self.xattrs = xattrs

    def but(self, **changes: Any) -> Member:
        """The same with some fields changed."""
        return Member(**{**{name: getattr(self, name) for name in self.__slots__}, **changes})


def head(member: Member) -> bytes:
    """What stands before the member's bytes."""
    path = member.path + b"/" if member.kind == DIRECTORY else member.path
    records = b"".join(_records(member, path))
    block = _block(member, path)
    if not records:
        return block
    before = Member(b"PaxHeaders/" + member.path.rpartition(b"/")[2], b"x", size=len(records))
    return _block(before, before.path) + records + padding(len(records)) + block


def padding(size: int) -> bytes:
    """What follows the bytes of a member, up to the next whole block."""
    return bytes(-size % BLOCK)


def _field(value: int, most: int) -> int:
    """What a header's field says; 0 where a pax record says it."""
    return value if 0 <= value <= most else 0


def _records(member: Member, path: bytes) -> list[bytes]:
    records = []
    if len(path) > _NAME or not path.isascii():
        records.append(_record(b"path", path))
    if len(member.link) > _NAME or not member.link.isascii():
        records.append(_record(b"linkpath", member.link))
    for key, value, most in (
        (b"uid", member.uid, _ID),
        (b"gid", member.gid, _ID),
        (b"size", member.size, _SIZE),
        (b"mtime", member.mtime, _SIZE),
    ):
        if not 0 <= value <= most:
            records.append(_record(key, b"%d" % value))
    records += [_record(b"SCHILY.xattr." + name, value) for name, value in member.xattrs]
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value`: the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(member: Member, path: bytes) -> bytes:
    fields = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%sustar\00000%s%07o\0%07o\0%s" % (
        path[:_NAME].ljust(_NAME, b"\0"),
        member.mode,
        _field(member.uid, _ID),
        _field(member.gid, _ID),
        _field(member.size, _SIZE),
        _field(member.mtime, _SIZE),
        member.kind,
        member.link[:_NAME].ljust(_NAME, b"\0"),
        bytes(64),
        member.major,
        member.minor,
        bytes(167),
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]
