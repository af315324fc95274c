"""Private files: root's alone, whole or not there, and never what somebody has put in their way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkhead.host import private


def test_a_file_is_roots_alone_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("older and longer")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        private.write(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_of_a_crash_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "key.new").write_text("half of i")
    private.write(tmp_path / "key", b"whole")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"key": b"whole"}


@pytest.mark.parametrize("name", ["key", "key.new"])
def test_a_link_is_replaced_and_not_followed(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / name).symlink_to(outside)
    private.write(directory / "key", b"ours")
    assert outside.read_text() == "theirs"
    assert not (directory / "key").is_symlink()
    assert (directory / "key").read_bytes() == b"ours"


@pytest.mark.parametrize("there", ["file", "link", "nowhere"])
def test_only_what_is_not_there_is_made(tmp_path: Path, there: str) -> None:
    (tmp_path / "file").write_text("theirs")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("missing")
    with pytest.raises(FileExistsError):
        private.create(tmp_path / there)
    assert (tmp_path / "file").read_text() == "theirs" and not (tmp_path / "missing").exists()


def test_an_error_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    private.write(path, b"first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        private.write(path, b"second")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"key": b"first"}
