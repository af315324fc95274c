"""The kernel as QEMU starts it without a boot loader: an uncompressed ELF file with the entry of PVH.

What Debian packs is a bzImage: a boot sector, setup code, and a compressed payload that holds the ELF file
(Documentation/x86/boot.rst). Unpacking it here, once, spares every guest that work, which counts under TCG.
"""

from __future__ import annotations

import struct

from bulkhead import elf
from bulkhead.boot.unpacking import unpack
from bulkhead.errors import ImageError

MAX_SIZE = 256 << 20
_SECTOR = 512
_SETUP_SECTORS, _MAGIC, _VERSION, _PAYLOAD = 0x1F1, 0x202, 0x206, 0x248
_HAS_PAYLOAD = 0x208
"""The boot protocol's version since which the header says where the payload is."""
_IDENT = b"\x7fELF\x02\x01\x01"
"""ELF, 64 bits, little-endian, version 1."""


def extract(image: bytes) -> bytes:
    """The ELF file in a bzImage. Raises ImageError when there is none, it is damaged, or PVH cannot start it."""
    if len(image) < _PAYLOAD + 8 or image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise ImageError("the kernel is no bzImage: it lacks the header of the x86 boot protocol")
    version = struct.unpack_from("<H", image, _VERSION)[0]
    if version < _HAS_PAYLOAD:
        raise ImageError(f"the kernel's boot protocol {version >> 8}.{version & 255:02} is too old: 2.08 is needed")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * _SECTOR + offset
    payload = image[start : start + length]
    if len(payload) != length or length < 8:
        raise ImageError(f"the kernel is cut off: its payload has {len(payload)} of {length} bytes")
    # Whatever compresses it: the last four bytes are the unpacked size.
    size = struct.unpack_from("<I", payload, length - 4)[0]
    if size > MAX_SIZE:
        raise ImageError(f"the kernel unpacks to {size} bytes, at most {MAX_SIZE} are allowed")
    kernel = unpack(payload, most=size, what="the kernel's payload")
    if len(kernel) != size:
        raise ImageError(f"the kernel unpacks to {len(kernel)} bytes, its header promises {size}")
    pvh_entry(kernel)
    return kernel


def pvh_entry(kernel: bytes) -> int:
    """The physical address at which PVH enters a kernel. Raises ImageError when it is no ELF file that has one."""
    if not kernel.startswith(_IDENT) or len(kernel) < elf.HEADER:
        raise ImageError("the kernel is no 64-bit ELF file")
    read_at = elf.of_bytes(kernel)
    machine = struct.unpack_from("<H", kernel, 18)[0]
    if machine != elf.AMD64:
        raise ImageError(f"the kernel is built for ELF machine {machine}, not for amd64")
    try:
        found = elf.pvh_entry(elf.read(read_at), read_at)
    except elf.Damaged as error:
        raise ImageError("the kernel's ELF program headers are damaged") from error
    if found is None:
        raise ImageError("the kernel has no PVH entry", hint="a kernel built with CONFIG_PVH=y has one")
    return found
