"""What a file is that somebody wants QEMU to boot, by its headers, in the order in which QEMU 7.2 looks for them.

QEMU's hw/i386/x86.c: the magic of Linux's boot protocol, then a multiboot header in the first 8 KiB, then an ELF
file whose notes have the entry of PVH. What it would refuse is refused here, with the reason.
"""

from __future__ import annotations

import struct

from bulkhead import elf
from bulkhead.elf import ReadAt
from bulkhead.errors import ImageError

LINUX, MULTIBOOT, PVH = "linux", "multiboot", "pvh"
MAX_SIZE = 256 << 20
"""Bytes of a kernel, and of an initrd."""
_SETUP_MAGIC, _SETUP_VERSION = 0x202, 0x206
_OLDEST = 0x204
"""The boot protocol's version that knows a command line of its own size, and a relocatable payload."""
_MULTIBOOT_MAGIC = 0x1BADB002
_MULTIBOOT_HEAD, _MULTIBOOT_HEADER = 8192, 12
_HAS_ADDRESSES = 1 << 16
_KINDS = "an ELF file with PVH's note, a multiboot ELF of 32 bits, or a Linux bzImage"


def examine(read_at: ReadAt, size: int, what: str) -> str:
    """ "linux", "multiboot" or "pvh". Raises ImageError with the reason why QEMU cannot boot the file."""
    if not 0 < size <= MAX_SIZE:
        raise ImageError(f"{what} has {size} bytes: a kernel has at least one and at most {MAX_SIZE}")
    head = read_at(0, _MULTIBOOT_HEAD)
    if head[_SETUP_MAGIC : _SETUP_MAGIC + 4] == b"HdrS":
        return _linux(head, size, what)
    try:
        found = elf.read(read_at) if elf.is_elf(head) else None
        if _has_multiboot(head):
            if found and found.bits == 64:
                hint = "link it as elf32-i386, or give it PVH's note"
                raise ImageError(
                    f"{what} is a multiboot kernel in a 64-bit ELF file, which QEMU does not load", hint=hint
                )
            return MULTIBOOT
        if found is None:
            raise ImageError(f"{what} is no kernel that QEMU boots", hint=f"it takes {_KINDS}")
        if found.machine not in (elf.I386, elf.AMD64):
            raise ImageError(f"{what} is built for ELF machine {found.machine}, not for amd64 or i386")
        if elf.pvh_entry(found, read_at) is None:
            raise ImageError(
                f"{what} is an ELF file without PVH's note: QEMU cannot enter it", hint=f"it takes {_KINDS}"
            )
    except elf.Damaged as error:
        raise ImageError(f"{what} is damaged: {error}") from error
    return PVH


def _linux(head: bytes, size: int, what: str) -> str:
    version = struct.unpack_from("<H", head, _SETUP_VERSION)[0]
    if version < _OLDEST:
        raise ImageError(f"{what}: Linux boot protocol {version >> 8}.{version & 255:02} is too old, 2.04 is needed")
    sectors = head[0x1F1] or 4
    if (sectors + 1) * 512 >= size:
        raise ImageError(f"{what} is damaged: it ends within its {sectors} sectors of setup code")
    paragraphs = struct.unpack_from("<I", head, 0x1F4)[0]
    if (sectors + 1) * 512 + paragraphs * 16 > size + 15:
        raise ImageError(f"{what} is cut off: it has {size} bytes, its header tells of more")
    return LINUX


def _has_multiboot(head: bytes) -> bool:
    """Whether there is a multiboot 1 header; where it has addresses of its own no ELF is needed."""
    for at in range(0, len(head) - _MULTIBOOT_HEADER + 1, 4):
        magic, flags, checksum = struct.unpack_from("<III", head, at)
        if magic == _MULTIBOOT_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return bool(flags & _HAS_ADDRESSES) or elf.is_elf(head)
    return False
