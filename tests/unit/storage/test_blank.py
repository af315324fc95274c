"""Blank file systems: what mkfs made, remembered and written again with another UUID."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.errors import HostError
from bulkhead.host import processes
from bulkhead.storage import blank
from bulkhead.storage.blank import BLOCK, Blanks, crc32c

SIZES = (16 << 20, 100 << 20, (512 << 20) + 12_345, 5 << 30, 40 << 30)


def test_crc32c_of_known_data() -> None:
    """RFC 3720, B.4: those are inverted at the end, ext4's is not."""
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert crc32c(bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=64, max_size=64))
def test_crc32c_is_linear(one: bytes, two: bytes) -> None:
    """What the patching of superblocks rests on."""
    two = two[: len(one)]
    both = bytes(a ^ b for a, b in zip(one, two, strict=True))
    assert crc32c(both) == crc32c(one) ^ crc32c(two, 0)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([b"\0" * BLOCK, b"a" * BLOCK, b"\0" * (BLOCK - 1) + b"z"]), max_size=12))
def test_blocks_of_zeros_are_left_out(blocks: list[bytes]) -> None:
    """And nothing else is."""
    data, image = b"".join(blocks), bytearray(len(blocks) * BLOCK)
    pieces = blank._without_zeros(data, 1 << 20)
    for offset, piece in pieces:
        image[offset - (1 << 20) : offset - (1 << 20) + len(piece)] = piece
    assert bytes(image) == data
    assert all(piece[i : i + BLOCK].strip(b"\0") for _, piece in pieces for i in range(0, len(piece), BLOCK))


def test_groups_with_a_backup() -> None:
    """sparse_super: 1 and the powers of 3, 5 and 7."""
    assert [group for group in range(130) if blank._is_backup(group)] == [1, 3, 5, 7, 9, 25, 27, 49, 81, 125]


@pytest.mark.parametrize("size", SIZES)
def test_written_disks_are_clean_and_distinct(tmp_path: Path, size: int) -> None:
    """e2fsck finds nothing to say, each has a UUID of its own, and only the metadata takes space."""
    blanks = Blanks(tmp_path / "scratch")
    uuids = set()
    for name in ("one", "two"):
        disk = tmp_path / name
        blanks.write(disk, size, ("upper", "work"))
        assert disk.stat().st_size == size
        assert disk.stat().st_mode & 0o777 == 0o600
        assert disk.stat().st_blocks * 512 < 4 << 20
        processes.run(("e2fsck", "-f", "-n", disk))
        shown = processes.run(("dumpe2fs", disk)).decode()
        uuids.add(next(line for line in shown.splitlines() if line.startswith("Filesystem UUID:")))
        assert "Reserved block count:     0\n" in shown
        assert "has_journal" in shown
        assert "INODE_UNINIT" in shown or size < 1 << 30
        assert "ITABLE_ZEROED" in shown
        listed = processes.run(("debugfs", "-R", "ls -p /", disk)).decode().splitlines()
        assert {
            line.split("/")[5]: line.split("/")[2:5] for line in listed if "/upper/" in line or "/work/" in line
        } == {
            "upper": ["040755", "0", "0"],
            "work": ["040755", "0", "0"],
        }
    assert len(uuids) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "scratch", "two"]
    assert not list((tmp_path / "scratch").iterdir())


def test_backup_superblocks_are_good_too(tmp_path: Path) -> None:
    """Every copy has the new UUID and a checksum that is right."""
    disk = tmp_path / "disk"
    Blanks(tmp_path).write(disk, 1 << 30, ())
    with disk.open("rb") as file:
        copies = [os.pread(file.fileno(), 1024, offset) for offset in (1024, 1 << 27, 3 << 27, 5 << 27, 7 << 27)]
    for copy in copies:
        assert crc32c(copy[:0x3FC]) == struct.unpack_from("<I", copy, 0x3FC)[0]
        assert copy[0x68:0x78] == copies[0][0x68:0x78]


def test_an_unfinished_file_is_made_anew(tmp_path: Path) -> None:
    """A crash leaves `.new` files only."""
    disk = tmp_path / "disk.img"
    (tmp_path / "disk.img.new").write_text("half")
    Blanks(tmp_path / "scratch").write(disk, 16 << 20, ())
    assert disk.stat().st_size == 16 << 20
    assert not (tmp_path / "disk.img.new").exists()


def test_a_size_that_no_file_has_is_an_error(tmp_path: Path) -> None:
    """With the value and a reason, and nothing left behind."""
    with pytest.raises(HostError, match=str(1 << 62)):
        Blanks(tmp_path / "scratch").write(tmp_path / "disk", 1 << 62, ())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """Nothing is left behind either."""
    with pytest.raises(HostError, match="cannot write a disk"):
        Blanks(tmp_path / "scratch").write(tmp_path / "missing" / "disk", 16 << 20, ())
