"""Files that hold a machine's disk: what kind they are, and whether they may be read at all.

Known by their content. A qcow2 or VMDK can name other files that belong to it: with one of those an import would read
any file of this host, so such a file is refused here, before a program reads it; that program is jailed besides.
Formats: qemu docs/interop/qcow2.txt; VMware Virtual Disk Format 1.1.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

from bulkhead.errors import ImageError
from bulkhead.images.bounds import Bounds
from bulkhead.quantities import format_size

SECTOR = 512
HEAD = 64 << 10
"""Bytes of a file's beginning by which it is told."""
_CONVERT = "convert it with qemu-img to one qcow2 or raw file that holds all of the disk"
_OTHERS = {
    b"conectix": "a VHD",
    b"vhdxfile": "a VHDX",
    b"LUKS\xba\xbe": "encrypted (LUKS)",
    b"QED\0": "a QED",
    b"COWD": "a VMDK of ESX",
    b"# Disk DescriptorFile": "a VMDK descriptor, whose disk is in other files",
}
_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_DATA_FILE, _KNOWN_FEATURES = 1 << 2, 0b11111
_EXTERNAL_DATA, _BACKING_FORMAT, _END = 0x44415441, 0xE2792ACA, 0
_VMDK = struct.Struct("<4sIIQQQQIQQ")
_TABLE_AT_END = (1 << 64) - 1
_MAX_DESCRIPTOR = 20 << 10
_WHOLE_VMDKS = ("monolithicsparse", "streamoptimized")
_EXTENT = re.compile(r"(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\S+)(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DiskFile:
    """What a file was recognised as. `size`: bytes of the disk as a guest sees it."""

    form: str
    """"raw", "qcow2" or "vmdk", in qemu-img's words."""
    size: int


def is_disk(head: bytes) -> bool:
    """Whether a file that begins with `head` (HEAD bytes, or all) is a disk of any kind, known or to be refused."""
    return head.startswith((b"QFI\xfb", b"KDMV", *_OTHERS)) or _is_raw(head)


def _is_raw(head: bytes) -> bool:
    # A tar's first block ends in zeros, a boot sector does not.
    return head[510:512] == b"\x55\xaa" or head[SECTOR : SECTOR + 8] == b"EFI PART" or head[4096:4104] == b"EFI PART"


def examine(fd: int, bounds: Bounds) -> DiskFile:
    """What the disk file is. Raises ImageError when it is of no known kind, damaged, refers to others, or too large."""
    head = os.pread(fd, HEAD, 0)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise ImageError(f"the disk is {what}, which cannot be imported", hint=_CONVERT)
    if head.startswith(b"QFI\xfb"):
        found = DiskFile("qcow2", _qcow2(head))
    elif head.startswith(b"KDMV"):
        found = DiskFile("vmdk", _vmdk(fd, head))
    else:
        found = DiskFile("raw", -(-os.fstat(fd).st_size // SECTOR) * SECTOR)
    if found.size % SECTOR or found.size < HEAD:
        raise ImageError(f"the disk has {found.size} bytes, which no disk has")
    if found.size > bounds.total:
        raise ImageError(f"the disk is of {format_size(found.size)}, more than {format_size(bounds.total)}")
    return found


def _qcow2(head: bytes) -> int:
    """The size of a qcow2's disk."""
    if len(head) < _QCOW2.size + _QCOW2_V3.size:
        raise ImageError("the qcow2 ends in its header: it is truncated")
    _, version, backing, _, cluster_bits, size, encryption, *_ = _QCOW2.unpack_from(head)
    if version not in (2, 3):
        raise ImageError(f"the qcow2 is of version {version}, 2 and 3 are known", hint=_CONVERT)
    if backing:
        raise ImageError("the qcow2 has a backing file: it is a part of a disk", hint=_CONVERT)
    if encryption:
        raise ImageError("the qcow2 is encrypted", hint=_CONVERT)
    if not 9 <= cluster_bits <= 21:
        raise ImageError(f"the qcow2 has clusters of 2^{cluster_bits} bytes: it is damaged")
    start = _QCOW2.size
    if version == 3:
        features, _, _, _, start = _QCOW2_V3.unpack_from(head, _QCOW2.size)
        if features & _DATA_FILE:
            raise ImageError("the qcow2 has its data in another file: it is a part of a disk", hint=_CONVERT)
        if features & ~_KNOWN_FEATURES:
            raise ImageError(f"the qcow2 has features that are not known ({features:#x})", hint=_CONVERT)
        if features & 2:
            raise ImageError("the qcow2 is marked as damaged", hint="qemu-img check -r all repairs what it can")
    _check_extensions(head, start)
    return int(size)


def _check_extensions(head: bytes, at: int) -> None:
    while at + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, at)
        if kind == _END:
            return
        if kind in (_EXTERNAL_DATA, _BACKING_FORMAT):
            raise ImageError("the qcow2 names another file's format or place: it is a part of a disk", hint=_CONVERT)
        at += _EXTENSION.size + -(-length // 8) * 8
    raise ImageError("the qcow2's header has no end: it is damaged")


def _vmdk(fd: int, head: bytes) -> int:
    """The size of a VMDK's disk."""
    if len(head) < SECTOR:
        raise ImageError("the VMDK ends in its header: it is truncated")
    _, version, _, capacity, _, place, length, _, *tables = _VMDK.unpack_from(head)
    if version not in (1, 2, 3):
        raise ImageError(f"the VMDK is of version {version}, 1 to 3 are known", hint=_CONVERT)
    # With a capacity of none QEMU takes the descriptor's word for what the disk consists of.
    if not 0 < capacity < 1 << 50 or not place or not 0 < length * SECTOR <= _MAX_DESCRIPTOR:
        raise ImageError("the VMDK has no descriptor or no size of its own: it is a part of a disk", hint=_CONVERT)
    # QEMU takes what is beyond the file's end for zeros.
    if any(table != _TABLE_AT_END and table * SECTOR >= os.fstat(fd).st_size for table in tables):
        raise ImageError("the VMDK's tables are beyond its end: it is truncated")
    text = os.pread(fd, length * SECTOR, place * SECTOR).partition(b"\0")[0].decode(errors="replace")
    _check_descriptor(text)
    return int(capacity * SECTOR)


def _check_descriptor(text: str) -> None:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    fields = [
        (key.strip().lower(), value.strip().strip('"')) for key, _, value in (line.partition("=") for line in lines)
    ]
    kinds = [value for key, value in fields if key == "createtype"]
    if [kind.lower() for kind in kinds] != [kind.lower() for kind in kinds if kind.lower() in _WHOLE_VMDKS][:1]:
        raise ImageError(f"the VMDK is of the kind {', '.join(kinds)[:60]!r}: not one whole file", hint=_CONVERT)
    if any(key == "parentcid" and value.lower() != "ffffffff" for key, value in fields):
        raise ImageError("the VMDK has a parent: it is a part of a disk", hint=_CONVERT)
    if any(key.startswith("parentfilename") for key, _ in fields):
        raise ImageError("the VMDK names a parent's file: it is a part of a disk", hint=_CONVERT)
    extents = [found for line in lines if (found := _EXTENT.fullmatch(line))]
    if len(extents) != 1 or extents[0][1].upper() != "SPARSE" or "/" in extents[0][2] or "\\" in extents[0][2]:
        raise ImageError("the VMDK's disk is in other files", hint=_CONVERT)
