"""Kernels that somebody wants to have booted, and what images say of them: all of it may be hostile."""

from __future__ import annotations

import random
import struct

import pytest

from bulkhead import elf
from bulkhead.errors import ImageError
from bulkhead.images import bootable, unikernels
from tests.unit.boot.kernel_parts import bzimage
from tests.unit.boot.kernel_parts import elf as elf_file

KRAFT = "org.unikraft.kernel.image"
URUNC = "com.urunc.unikernel.binary"


def examine(data: bytes, size: int | None = None) -> str:
    return bootable.examine(elf.of_bytes(data), len(data) if size is None else size, "it")


def multiboot(flags: int = 0, *, bits: int = 1, at: int = 64) -> bytes:
    """An ELF file of 32 bits with a multiboot header."""
    head = bytearray(b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9))
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 0, 0, 0, 52, 32, 0, 0, 0, 0)
    head += bytes(at - len(head)) + struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    return bytes(head) + bytes(64)


def test_what_qemu_boots() -> None:
    assert examine(elf_file()) == "pvh"
    assert examine(multiboot()) == "multiboot"
    assert examine(bytes(64) + multiboot(1 << 16)[64:]) == "multiboot"
    assert examine(bzimage(bytes(4096))) == "linux"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"#!/bin/sh\n", "no kernel that QEMU boots"),
        (b"", "has 0 bytes"),
        (b"\x7fELF", "no ELF file"),
        (elf_file()[:60], "ends within its ELF header"),
        (elf_file(b""), "without PVH's note"),
        (elf_file(machine=183), "machine 183"),
        (elf_file(count=9), "ends within its program headers"),
        (elf_file(count=60000), "60000 program headers"),
        (multiboot(bits=2), "64-bit ELF"),
        (bytes(64) + multiboot()[64:], "no kernel that QEMU boots"),
        (bzimage(bytes(4096), version=0x203), "too old"),
        (bzimage(b"")[:1000], "ends within"),
    ],
)
def test_what_it_does_not_boot_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        examine(data)


def test_sizes_are_bounded() -> None:
    with pytest.raises(ImageError, match="at most"):
        examine(elf_file(), size=bootable.MAX_SIZE + 1)
    cut = bytearray(bzimage(bytes(4096)))
    struct.pack_into("<I", cut, 0x1F4, 0xFFFFFFF)
    with pytest.raises(ImageError, match="cut off"):
        examine(bytes(cut))


@pytest.mark.parametrize("good", [elf_file(), multiboot(), bzimage(bytes(4096))])
def test_damage_is_an_error_of_ours_or_none(good: bytes) -> None:
    chance = random.Random(7)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(min(len(data), 600))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        part = bytes(data[: chance.randrange(1, len(data) + 1)])
        try:
            examine(part)
        except ImageError:
            pass
        try:
            elf.needs(elf.read(elf.of_bytes(part)), elf.of_bytes(part))
        except elf.Damaged:
            pass


def test_both_vocabularies() -> None:
    kraft = unikernels.said({KRAFT: "/unikraft/bin/kernel", "org.unikraft.kernel.initrd": "/r"}, {})
    assert kraft and (kraft.kernel, kraft.initrd, kraft.type, kraft.own) == (
        "/unikraft/bin/kernel",
        "/r",
        "unikraft",
        "",
    )
    urunc = {URUNC: "/k", "com.urunc.unikernel.cmdline": "a b", "com.urunc.unikernel.unikernelType": "mirage"}
    found = unikernels.said({}, urunc)
    assert found and (found.kernel, found.cmdline, found.type) == ("/k", "a b", "mirage")
    assert unikernels.said({"org.opencontainers.image.title": "x"}, {}) is None
    own = unikernels.said(unikernels.annotated("quiet", type_="linux", initrd=True, own="1"), {})
    assert own and (own.kernel, own.initrd, own.cmdline, own.own) == (
        "/unikernel/kernel",
        "/unikernel/initrd",
        "quiet",
        "1",
    )


@pytest.mark.parametrize(
    "said",
    [
        {KRAFT: "kernel"},
        {KRAFT: "/../etc/shadow"},
        {KRAFT: "/a/./b"},
        {KRAFT: "/" + "a" * 5000},
        {KRAFT: "/a\nb"},
        {KRAFT: "/k", "org.unikraft.kernel.initrd": "../r"},
        {KRAFT: "/k", "org.unikraft.kernel.cmdline": "x" * 3000},
        {KRAFT: "/k", "org.unikraft.kernel.cmdline": "a\nb"},
        {URUNC: "/k", "com.urunc.unikernel.hypervisor": "firecracker"},
    ],
)
def test_annotations_that_lead_elsewhere_are_refused(said: dict[str, str]) -> None:
    with pytest.raises(ImageError, match="annotations are wrong"):
        unikernels.said(said, {})
