"""What a disk's partition table says of it: by which firmware it boots, whether all of it is there."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from bulkhead.errors import ImageError

_ESP = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
"""The type of an EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as it stands on disk."""
_CODE, _TABLE, _MBR_ESP = 440, 446, 0xEF
_SECTORS = (512, 4096)
_HEADER_TABLE = struct.Struct("<QII")
_MAX_ENTRIES, _ENTRY_SIZES = 1024, range(128, 1025)


def firmware(fd: int) -> str:
    """ "uefi" of a disk that has an EFI system partition and no code in its boot sector, else "bios"."""
    boot = os.pread(fd, 512, 0).ljust(512, b"\0")
    return "uefi" if not any(boot[:_CODE]) and (_mbr_has_esp(boot) or _gpt_has_esp(fd)) else "bios"


def _mbr_has_esp(boot: bytes) -> bool:
    return boot[510:] == b"\x55\xaa" and any(boot[_TABLE + 16 * entry + 4] == _MBR_ESP for entry in range(4))


def check_whole(fd: int, size: int) -> None:
    """Raise ImageError when the partition table's second copy would be beyond the end of the disk."""
    for sector, header in _headers(fd):
        copy = int.from_bytes(header[32:40], "little")
        if copy >= size // sector:
            raise ImageError(f"the disk has {size // sector} sectors, its partition table {copy + 1}: it is truncated")


def _headers(fd: int) -> Iterator[tuple[int, bytes]]:
    """Sizes of sectors for which there is a GPT, with its header."""
    for sector in _SECTORS:
        header = os.pread(fd, 92, sector)
        if len(header) == 92 and header.startswith(b"EFI PART"):
            yield sector, header


def _gpt_has_esp(fd: int) -> bool:
    for sector, header in _headers(fd):
        place, count, size = _HEADER_TABLE.unpack_from(header, 72)
        if place >= 1 << 40 or count > _MAX_ENTRIES or size not in _ENTRY_SIZES:
            continue
        table = os.pread(fd, count * size, place * sector)
        if any(table[at : at + 16] == _ESP for at in range(0, len(table), size)):
            return True
    return False
