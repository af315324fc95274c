"""Copies of disks: whole or not there, with the mark of what a guest has written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkhead.errors import HostError, Refused
from bulkhead.storage import copies, foreign

SIZE = 32 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A file with some data, that is no file system."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(4 << 20)
        file.write(os.urandom(1 << 20))
    return path


def silent(done: int, total: int) -> None:
    """Nobody is told."""


def test_a_copy_appears_beside_its_name(disk: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "copy.img"
    copies.copy(disk, target, SIZE, told=lambda done, total: told.append((done, total)))
    assert not target.exists()
    assert copies.unfinished(target).read_bytes() == disk.read_bytes()
    assert told[0][0] == 0 and told[-1][0] <= told[-1][1] < SIZE
    assert not foreign.is_marked(target)


def test_the_mark_comes_along(disk: Path, tmp_path: Path) -> None:
    foreign.mark(disk)
    copies.copy(disk, tmp_path / "copy.img", SIZE, told=silent)
    assert foreign.is_marked(tmp_path / "copy.img")


def test_sizes(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot shrink"):
        copies.copy(disk, tmp_path / "copy.img", SIZE - 4096, told=silent)
    foreign.mark(disk)
    with pytest.raises(Refused, match="own kernel"):
        copies.copy(disk, tmp_path / "copy.img", SIZE * 2, told=silent)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == []


def test_nothing_is_left_of_a_copy_that_nobody_waits_for(disk: Path, tmp_path: Path) -> None:
    def gone(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        copies.copy(disk, tmp_path / "copy.img", SIZE, told=gone)
    assert [path.name for path in tmp_path.iterdir()] == ["disk.img"]


def test_what_cannot_be_read_leaves_nothing(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError):
        copies.copy(disk, tmp_path / "none" / "copy.img", SIZE, told=silent)


def test_room(disk: Path, tmp_path: Path) -> None:
    copies.check_room(disk, tmp_path)
    with pytest.raises(Refused, match="left"):
        copies.check_room(disk, tmp_path, more=1 << 60)
