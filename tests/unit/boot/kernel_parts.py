"""Kernels and archives made by hand, small and wrong on purpose."""

from __future__ import annotations

import struct


def note(name: bytes, kind: int, data: bytes) -> bytes:
    """An ELF note."""
    padded = name + bytes(-len(name) % 4)
    return struct.pack("<III", len(name), len(data), kind) + padded + data + bytes(-len(data) % 4)


PVH_NOTE = note(b"GNU\0", 3, b"build") + note(b"Xen\0", 18, struct.pack("<Q", 0x1000850))


def elf(notes: bytes = PVH_NOTE, *, machine: int = 62, count: int = 1) -> bytes:
    """A 64-bit ELF file of one segment: its notes."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000000, 64, 0, 0, 64, 56, count, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4) + notes


def bzimage(payload: bytes, *, version: int = 0x20F, setup: int = 4, length: int | None = None) -> bytes:
    """A boot sector with setup code, then the payload. `setup` sectors of 512 bytes."""
    head = bytearray((setup + 1) * 512)
    head[0x1F1] = setup
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 16, len(payload) if length is None else length)
    return bytes(head) + bytes(16) + payload


def read_cpio(data: bytes) -> list[tuple[str, int, bytes]]:
    """(path, mode, data) of every entry of archives that follow one another, as the kernel reads them."""
    found, at = [], 0
    while at < len(data):
        if data[at : at + 4] == bytes(4):
            at += 4
            continue
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11]]
        assert name.endswith(b"\0")
        start = -(-(at + 110 + fields[11]) // 4) * 4
        body = data[start : start + fields[6]]
        assert len(body) == fields[6]
        at = -(-(start + fields[6]) // 4) * 4
        if name != b"TRAILER!!!\0":
            found.append((name[:-1].decode(), fields[1], body))
    return found
