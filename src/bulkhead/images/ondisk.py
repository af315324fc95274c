"""The bytes of EROFS's structures, as in Linux fs/erofs/erofs_fs.h: superblock, inode, directory, attributes."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

BLOCK = 4096
SLOT = 32
"""Inodes begin at multiples of this; an inode's number (nid) counts them."""
SUPERBLOCK_AT = 1024
INODE_SIZE = 64
XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_MAGIC = 0xE0F5E1E2
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI44x")
_CHECKSUM, _MTIME = 1, 2
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_EXTENDED, _PLAIN, _INLINE = 1, 0 << 1, 2 << 1
_DIRENT = struct.Struct("<QHBB")
_XATTR = struct.Struct("<BBH")
_XATTR_HEADER = 12
_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


@dataclass(frozen=True, slots=True)
class Inode:
    """What an inode says."""

    mode: int
    links: int
    uid: int
    gid: int
    mtime: int
    """Nanoseconds since the epoch."""
    size: int
    place: int
    """First block of the data, or the device number."""
    inline: bool
    """Whether the data's last bytes stand behind the inode and its attributes."""
    xattrs: int
    """Bytes of the attributes."""


def inode(number: int, said: Inode) -> bytes:
    """An extended inode. `number` is for 32-bit callers of stat alone."""
    seconds, nanoseconds = divmod(said.mtime, 10**9)
    return _INODE.pack(
        _EXTENDED | (_INLINE if said.inline else _PLAIN),
        (said.xattrs - _XATTR_HEADER) // 4 + 1 if said.xattrs else 0,
        said.mode,
        0,
        said.size,
        said.place,
        number & 0xFFFFFFFF,
        said.uid,
        said.gid,
        seconds & 0xFFFFFFFFFFFFFFFF,
        nanoseconds,
        said.links,
    )


def read_inode(data: bytes) -> Inode:
    """The inverse of `inode`."""
    form, xattrs, mode, _, size, place, _, uid, gid, seconds, nanoseconds, links = _INODE.unpack(data)
    seconds -= (seconds >> 63) << 64
    return Inode(
        mode=mode,
        links=links,
        uid=uid,
        gid=gid,
        mtime=seconds * 10**9 + nanoseconds,
        size=size,
        place=place,
        inline=form & ~_EXTENDED == _INLINE,
        xattrs=_XATTR_HEADER + 4 * (xattrs - 1) if xattrs else 0,
    )


def device(number: int) -> int:
    """st_rdev as the kernel stores it: new_encode_dev() of linux/kdev_t.h."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def directory_size(names: Iterable[bytes]) -> int:
    """Bytes of a directory with these names, in order."""
    size = used = 0
    for name in names:
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            size, used = size + BLOCK, 0
        used += need
    return size + used


def directory(names: list[bytes], entries: Mapping[bytes, tuple[int, int]]) -> bytes:
    """A directory's blocks: entries, then their names; all blocks but the last are filled up with zeros.

    `names` are sorted; `entries` tells the nid and the mode of each.
    """
    blocks = []
    for group in _groups(names):
        offset = len(group) * _DIRENT.size
        dirents = []
        for name in group:
            nid, mode = entries[name]
            dirents.append(_DIRENT.pack(nid, offset, _TYPES[stat.S_IFMT(mode)], 0))
            offset += len(name)
        blocks.append(b"".join(dirents) + b"".join(group))
    return b"".join(block.ljust(BLOCK, b"\0") for block in blocks[:-1]) + blocks[-1]


def read_directory(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Names and nids of a directory, the dots included."""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        count = _DIRENT.unpack_from(block)[1] // _DIRENT.size
        dirents = [_DIRENT.unpack_from(block, index * _DIRENT.size) for index in range(count)]
        ends = [offset for _, offset, _, _ in dirents[1:]] + [len(block)]
        for (nid, offset, _, _), end in zip(dirents, ends, strict=True):
            yield block[offset:end].rstrip(b"\0"), nid


def _groups(names: list[bytes]) -> Iterator[list[bytes]]:
    """Names by the block that they go to."""
    used = first = 0
    for index, name in enumerate(names):
        used += _DIRENT.size + len(name)
        if used > BLOCK:
            yield names[first:index]
            used, first = _DIRENT.size + len(name), index
    yield names[first:]


def xattrs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Attributes as they stand behind an inode; empty where there are none. Names have a prefix of XATTR_PREFIXES."""
    entries = []
    for name, value in pairs:
        prefix, index = next((prefix, index) for prefix, index in XATTR_PREFIXES if name.startswith(prefix))
        suffix = name.removeprefix(prefix)
        entry = _XATTR.pack(len(suffix), index, len(value)) + suffix + value
        entries.append(entry + bytes(-len(entry) % 4))
    return bytes(_XATTR_HEADER) + b"".join(entries) if entries else b""


def read_xattrs(data: bytes) -> list[tuple[bytes, bytes]]:
    """The inverse of `xattrs`."""
    prefixes = {index: prefix for prefix, index in XATTR_PREFIXES}
    pairs = []
    at = _XATTR_HEADER
    while at < len(data):
        length, index, size = _XATTR.unpack_from(data, at)
        name_end = at + _XATTR.size + length
        pairs.append((prefixes[index] + data[at + _XATTR.size : name_end], data[name_end : name_end + size]))
        at = name_end + size + -(length + size) % 4
    return pairs


def superblock(*, root: int, inodes: int, meta: int, blocks: int, uuid: bytes) -> bytes:
    """The superblock with its checksum. The same tree gives the same bytes: there is no time in it."""
    fields = (_CHECKSUM | _MTIME, 12, 0, root, inodes, 0, 0, blocks, meta, 0, uuid, b"", 0)
    whole = _SUPERBLOCK.pack(_MAGIC, 0, *fields).ljust(BLOCK - SUPERBLOCK_AT, b"\0")
    return _SUPERBLOCK.pack(_MAGIC, crc32c(whole), *fields)


def read_superblock(data: bytes) -> tuple[int, int]:
    """The root's nid and the first block of the inodes."""
    fields = _SUPERBLOCK.unpack_from(data)
    return fields[5], fields[10]


def is_whole(fd: int) -> bool:
    """Whether a file is an EROFS image as written here: magic, checksum, and as long as its superblock says."""
    whole = bytearray(os.pread(fd, BLOCK - SUPERBLOCK_AT, SUPERBLOCK_AT))
    if len(whole) < BLOCK - SUPERBLOCK_AT:
        return False
    magic, checksum, *rest = _SUPERBLOCK.unpack_from(whole)
    whole[4:8] = bytes(4)
    blocks: int = rest[7]
    return bool(magic == _MAGIC and checksum == crc32c(whole) and os.fstat(fd).st_size == blocks * BLOCK)


def crc32c(data: bytes | bytearray) -> int:
    """CRC-32C without the final inversion, as the kernel wants it in the superblock."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_TABLE = tuple(map(_crc_row, range(256)))
