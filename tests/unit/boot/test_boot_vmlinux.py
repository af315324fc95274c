"""The ELF file in a bzImage, and what is no such thing."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.boot import vmlinux
from bulkhead.boot.unpacking import unpack
from bulkhead.errors import ImageError
from tests.unit.boot.kernel_parts import PVH_NOTE, bzimage, elf, note

BIG = elf() + b"kernel text " * 20_000


def size_of(data: bytes) -> bytes:
    return struct.pack("<I", len(data))


def literal_lz4(data: bytes) -> bytes:
    """lz4's legacy format without any compression: one sequence of literals a block."""
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        piece = data[at : at + (8 << 20)]
        rest = len(piece) - 15
        block = b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + piece
        out += struct.pack("<I", len(block)) + block
    return out


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data) + size_of(data),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data) + size_of(data),
    "zstd without its size": lambda data: (
        zstandard.ZstdCompressor(write_content_size=False).compress(data) + size_of(data)
    ),
    "lz4": lambda data: literal_lz4(data) + size_of(data),
}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_compression(kind: str) -> None:
    assert vmlinux.extract(bzimage(PACKERS[kind](BIG))) == BIG
    assert vmlinux.extract(bzimage(PACKERS[kind](BIG), setup=27)) == BIG


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_and_truncation_are_told(kind: str) -> None:
    packed = PACKERS[kind](BIG)
    middle = len(packed) // 2
    for wrong in (packed[:middle] + packed[-4:], b"", packed[:8], packed[:20] + bytes(40) + packed[-4:]):
        with pytest.raises(ImageError):
            vmlinux.extract(bzimage(wrong))


@pytest.mark.parametrize("kind", [kind for kind in PACKERS if kind != "gzip"])
def test_a_payload_larger_than_promised_is_refused(kind: str) -> None:
    packed = PACKERS[kind](BIG)[:-4] + struct.pack("<I", 1000)
    with pytest.raises(ImageError, match="unpacks to more than 1000 bytes"):
        vmlinux.extract(bzimage(packed))


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(ImageError, match="at most"):
        vmlinux.extract(bzimage(gzip.compress(BIG)[:-4] + struct.pack("<I", 1 << 30)))
    for pack in (gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress):
        with pytest.raises(ImageError, match="more than 65536"):
            unpack(pack(bytes(64 << 20)), most=65536, what="it")


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (b"", "no bzImage"),
        (bytes(4096), "no bzImage"),
        (elf(), "no bzImage"),
        (bzimage(gzip.compress(BIG), version=0x207), r"2\.07 is too old"),
        (bzimage(gzip.compress(BIG), length=1 << 31), "cut off"),
        (bzimage(b"", length=0), "cut off"),
        (bzimage(b"not compressed" + size_of(b"not compressed")), "promises"),
        (bzimage(gzip.compress(elf(b""))), "no PVH entry"),
        (bzimage(gzip.compress(b"MZ" + bytes(100))), "no 64-bit ELF"),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, what: str) -> None:
    with pytest.raises(ImageError, match=what):
        vmlinux.extract(image)


SMALL = {kind: bzimage(pack(elf() + b"kernel text " * 100)) for kind, pack in PACKERS.items()}


@given(
    kind=st.sampled_from(sorted(SMALL)),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=20),
    length=st.integers(0, 4000),
)
def test_whatever_is_changed_is_a_kernel_or_a_refusal(kind: str, changes: list[tuple[int, int]], length: int) -> None:
    image = bytearray(SMALL[kind])
    for at, value in changes:
        image[at % len(image)] = value
    for wrong in (bytes(image), bytes(image[:length])):
        try:
            found = vmlinux.extract(wrong)
        except ImageError:
            continue
        assert found.startswith(b"\x7fELF")


@given(changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=10))
def test_whatever_is_changed_of_an_elf_file_is_one_or_a_refusal(changes: list[tuple[int, int]]) -> None:
    changed = bytearray(elf())
    for at, value in changes:
        changed[at % len(changed)] = value
    with suppress(ImageError):
        assert vmlinux.pvh_entry(bytes(changed)) >= 0


def test_the_entry_of_pvh() -> None:
    assert vmlinux.pvh_entry(elf()) == 0x1000850
    assert vmlinux.pvh_entry(elf(note(b"Xen\0", 18, struct.pack("<I", 0x100)))) == 0x100


@pytest.mark.parametrize(
    "wrong",
    [
        elf(machine=3),
        elf(count=60_000),
        elf(note(b"Xen\0", 18, b"xx")),
        elf(note(b"Not\0", 18, bytes(8))),
        elf(PVH_NOTE[:-8]),
        elf(struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 18)),
        elf(b"\0" * 11),
        elf()[:60],
    ],
)
def test_wrong_elf_files_are_refused(wrong: bytes) -> None:
    with pytest.raises(ImageError):
        vmlinux.pvh_entry(wrong)
