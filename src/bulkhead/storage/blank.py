"""Blank ext4 file systems: formatted once per size by mkfs, then written from memory.

A blank one of 5 GiB has 130 kB of metadata in a dozen places; writing those takes 0.3 ms, mkfs 10 ms. Each copy gets
a UUID and a directory hash seed of its own. The feature metadata_csum_seed makes every checksum but the
superblocks' independent of the UUID. Layout: Linux, fs/ext4/ext4.h, struct ext4_super_block.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.host import processes

BLOCK = 4096
_GROUP = 8 * BLOCK * BLOCK
"""Bytes of a block group: its bitmap has one block."""
_UUID, _HASH_SEED, _CHECKSUM = 0x68, 0xEC, 0x3FC
_MAGIC, _MAGIC_OFFSET = b"\x53\xef", 0x38
_KEPT = 8
_LARGEST = 64 << 20

# Named one by one, so that the host's mke2fs.conf has no say.
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum,metadata_csum_seed"
)
_OPTIONS = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,assume_storage_prezeroed=1,root_owner=0:0"


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_TABLE = _crc32c_table()


def crc32c(data: bytes, start: int = 0xFFFFFFFF) -> int:
    """The Castagnoli CRC as ext4 uses it: not inverted at the end."""
    crc = start
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


@dataclass(frozen=True, slots=True)
class Blank:
    """A formatted file system of `size` bytes as (offset, bytes) pieces, and the offsets of its superblocks."""

    size: int
    pieces: tuple[tuple[int, bytes], ...]
    superblocks: tuple[int, ...]

    def write(self, path: Path) -> None:
        """Write a new sparse file with a fresh UUID. HostError where there is one already, or no space."""
        fresh, seed = os.urandom(16), os.urandom(16)
        fresh = fresh[:6] + bytes([fresh[6] & 0x0F | 0x40, fresh[7], fresh[8] & 0x3F | 0x80]) + fresh[9:]  # version 4
        with ExitStack() as undo:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                undo.callback(path.unlink)
                undo.callback(os.close, descriptor)
                os.ftruncate(descriptor, self.size)
                for offset, data in self.pieces:
                    os.pwrite(descriptor, data, offset)
                self._personalise(descriptor, fresh, seed)
            except OSError as error:
                raise HostError(f"cannot write a disk of {self.size} bytes to {path}: {error.strerror}") from error
            undo.pop_all()
            os.close(descriptor)

    def _personalise(self, descriptor: int, uuid: bytes, seed: bytes) -> None:
        """Patch every superblock. They differ in their group's number alone, so that the change of the CRC is one."""
        change: int | None = None
        for offset in self.superblocks:
            old = os.pread(descriptor, 1024, offset)
            new = bytearray(old)
            new[_UUID : _UUID + 16], new[_HASH_SEED : _HASH_SEED + 16] = uuid, seed
            if change is None:  # a CRC is linear: crc(a ^ b) == crc(a) ^ crc(b) when the start is 0
                change = crc32c(bytes(a ^ b for a, b in zip(old[:_CHECKSUM], new[:_CHECKSUM], strict=True)), 0)
            checksum = struct.unpack_from("<I", old, _CHECKSUM)[0] ^ change
            struct.pack_into("<I", new, _CHECKSUM, checksum)
            os.pwrite(descriptor, new, offset)


def journal_size(size: int) -> int:
    """MiB of journal for a file system of `size` bytes: ext4 wants at least 4."""
    for limit, journal in ((128 << 20, 4), (1 << 30, 8), (32 << 30, 16)):
        if size < limit:
            return journal
    return 64


def format_blank(size: int, directories: tuple[str, ...], scratch: Path) -> Blank:
    """Let mkfs make a file system of `size` bytes with `directories` in it, and remember it."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="format-") as temporary:
        image, tree = Path(temporary, "image"), Path(temporary, "tree")
        for directory in (tree, *(tree / name for name in directories)):
            directory.mkdir()
            directory.chmod(0o755)
        try:
            with image.open("xb") as file:
                file.truncate(size)
        except OSError as error:
            hint = f"the file system of {scratch} must hold a sparse file of that size"
            raise HostError(f"cannot make a disk of {size} bytes: {error.strerror}", hint=hint) from error
        features = ("-O", _FEATURES, "-E", _OPTIONS, "-J", f"size={journal_size(size)}", "-d", str(tree))
        sizes = ("-b", str(BLOCK), "-I", "256", "-i", "16384" if size >= 512 << 20 else "8192")
        processes.run(("mkfs.ext4", "-q", "-F", "-m0", *sizes, *features, image), package="e2fsprogs")
        return _remember(image, size)


def _remember(image: Path, size: int) -> Blank:
    pieces: list[tuple[int, bytes]] = []
    with image.open("rb", buffering=0) as file:
        position = 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole is left
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            pieces.extend(_without_zeros(os.pread(file.fileno(), position - start, start), start))
            if sum(len(data) for _, data in pieces) > _LARGEST:
                raise HostError(f"a blank disk of {size} bytes has more than {_LARGEST} bytes of metadata")
        superblocks = [1024]
        for group in range(1, -(-size // _GROUP)):
            head = os.pread(file.fileno(), 1024, group * _GROUP)
            if _is_backup(group) and head[_MAGIC_OFFSET : _MAGIC_OFFSET + 2] == _MAGIC:
                superblocks.append(group * _GROUP)
    return Blank(size, tuple(pieces), tuple(superblocks))


def _without_zeros(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    """The parts of `data` that are not whole blocks of zeros: also what a file system without holes gives back."""
    pieces: list[tuple[int, bytes]] = []
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if not block.strip(b"\0"):
            continue
        if pieces and pieces[-1][0] + len(pieces[-1][1]) == offset + start:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + block)
        else:
            pieces.append((offset + start, block))
    return pieces


def _is_backup(group: int) -> bool:
    """Whether sparse_super keeps a copy of the superblock in a group: 1 and the powers of 3, 5 and 7."""
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return group == 1


class Blanks:
    """The blank file systems of the sizes used last. Thread-safe."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, tuple[str, ...]], Blank] = OrderedDict()

    def write(self, path: Path, size: int, directories: tuple[str, ...]) -> None:
        """Make `path` a sparse file of `size` bytes that holds ext4 with `directories`. All or nothing.

        It appears under its name when it is complete, so that an existing file is always a whole one.
        """
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.unlink(missing_ok=True)
        self._get(size, directories).write(unfinished)
        unfinished.rename(path)

    def _get(self, size: int, directories: tuple[str, ...]) -> Blank:
        key = (size, directories)
        with self._lock:
            blank = self._kept.pop(key, None)
            if blank is None:
                self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
                blank = format_blank(size, directories, self._scratch)
            self._kept[key] = blank
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return blank
