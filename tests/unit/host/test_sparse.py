"""Copies of files with holes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkhead.errors import HostError
from bulkhead.host import sparse

SIZE = 64 << 20


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "original"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 20 << 20, SIZE - 4096):
            file.seek(at)
            file.write(os.urandom(4096))
    return path


def test_a_copy_has_the_bytes_the_holes_and_the_size_asked_for(original: Path, tmp_path: Path) -> None:
    sparse.copy_sparse(original, tmp_path / "copy", SIZE + 12345)
    copy = (tmp_path / "copy").read_bytes()
    assert copy[:SIZE] == original.read_bytes()
    assert copy[SIZE:] == bytes(12345)
    assert (tmp_path / "copy").stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


def test_a_copy_to_another_file_system(original: Path) -> None:
    target = Path("/dev/shm") / f"bulkhead-test-{os.getpid()}"
    try:
        sparse.copy_sparse(original, target, SIZE)
        assert target.read_bytes() == original.read_bytes()
        assert target.stat().st_blocks * 512 < 1 << 20
    finally:
        target.unlink(missing_ok=True)


def test_holes_alone(tmp_path: Path) -> None:
    (tmp_path / "original").touch()
    sparse.copy_sparse(tmp_path / "original", tmp_path / "copy", 4096)
    assert (tmp_path / "copy").read_bytes() == bytes(4096)


def test_a_copy_is_neither_shorter_nor_written_over_another(original: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="do not go into"):
        sparse.copy_sparse(original, tmp_path / "copy", SIZE - 1)
    assert not (tmp_path / "copy").exists()
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(HostError, match="File exists"):
        sparse.copy_sparse(original, tmp_path / "copy", SIZE)
    assert (tmp_path / "copy").read_text() == "mine"
