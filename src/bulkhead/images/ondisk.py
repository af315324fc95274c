"""The bytes of EROFS's structures, as in Linux fs/erofs/erofs_fs.h: superblock, inode, directory, attributes."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping

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


def inode(
    *,
    number: int,
    mode: int,
    links: int,
    uid: int,
    gid: int,
    mtime: int,
    size: int,
    place: int,
    inline: bool,
    xattrs: int,
) -> bytes:
    """An extended inode. `place` is the first block of its data, or its device number; `xattrs` their bytes."""
    seconds, nanoseconds = divmod(mtime, 10**9)
    return _INODE.pack(
        _EXTENDED | (_INLINE if inline else _PLAIN),
        (xattrs - _XATTR_HEADER) // 4 + 1 if xattrs else 0,
        mode,
        0,
        size,
        place,
        number & 0xFFFFFFFF,
        uid,
        gid,
        seconds & 0xFFFFFFFFFFFFFFFF,
        nanoseconds,
        links,
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


def superblock(*, root: int, inodes: int, meta: int, blocks: int, uuid: bytes) -> bytes:
    """The superblock with its checksum. The same tree gives the same bytes: there is no time in it."""
    fields = (_CHECKSUM | _MTIME, 12, 0, root, inodes, 0, 0, blocks, meta, 0, uuid, b"", 0)
    whole = _SUPERBLOCK.pack(_MAGIC, 0, *fields).ljust(BLOCK - SUPERBLOCK_AT, b"\0")
    return _SUPERBLOCK.pack(_MAGIC, crc32c(whole), *fields)


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
