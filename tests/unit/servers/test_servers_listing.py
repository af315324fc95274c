"""Lists of a server's files: read, compared, and refused where they lie."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bulkhead.errors import Refused
from bulkhead.servers import listing
from tests.unit.servers.lists import entry, tree


def listed(root: Path) -> dict[bytes, listing.Entry]:
    said = subprocess.run(["sh", "-c", listing.script(str(root), (".",))], check=True, capture_output=True).stdout
    return listing.parse([said[at : at + 7] for at in range(0, len(said), 7)])


def test_what_find_says(tmp_path: Path) -> None:
    (tmp_path / "a b\nc").write_bytes(b"123")
    (tmp_path / "dir").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("dir/\\x\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "1").mkdir()
    found = listed(tmp_path)
    assert set(found) == {b"a b\nc", b"dir", b"link", b"pipe", b"proc"}
    assert (found[b"a b\nc"].kind, found[b"a b\nc"].size, found[b"dir"].mode) == ("f", 3, 0o700)
    assert (found[b"link"].kind, found[b"link"].target, found[b"pipe"].kind) == ("l", b"dir/\\x\n", "p")


def test_a_file_that_was_written_again_is_another(tmp_path: Path) -> None:
    for name in ("same", "touched", "removed", "grown"):
        (tmp_path / name).write_text("1")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/deep").write_text("1")
    before = listed(tmp_path)
    was = (tmp_path / "touched").stat()
    (tmp_path / "touched").write_text("2")
    os.utime(tmp_path / "touched", ns=(was.st_atime_ns, was.st_mtime_ns))  # of the same size, and its time set back
    (tmp_path / "removed").unlink()
    (tmp_path / "grown").write_text("12")
    (tmp_path / "new").write_text("1")
    (tmp_path / "sub/deep").unlink()
    (tmp_path / "sub").rmdir()
    found = listing.difference(before, listed(tmp_path))
    assert found.changed == (b"grown", b"new", b"touched")
    assert found.gone == (b"removed", b"sub")


def test_what_is_in_place_of_a_directory_takes_it_away() -> None:
    before, after = tree("a/", "a/b", "c"), tree("a", "c/", "c/d")
    found = listing.difference(before, after)
    assert (found.changed, found.gone) == ((b"a", b"c", b"c/d"), ())


@pytest.mark.parametrize(
    "said",
    [
        b"f 644 0 0 1 1 1 1\0\0/etc/passwd\0",
        b"f 644 0 0 1 1 1 1\0\0./a/../../etc\0",
        b"f 644 0 0 1 1 1 1\0\0./a",
        b"f 644 0 0 1 1 1 1\0\0",
        b"x 644 0 0 1 1 1 1\0\0./a\0",
        b"f 9 0 0 1 1 1 1\0\0./a\0",
        b"f 644 0 0 -1 1 1 1\0\0./a\0",
        b"f 644 0 0 1\0\0./a\0",
        b"\xff 644 0 0 1 1 1 1\0\0./a\0",
        b"f 644 0 0 1 1 1 1\0\0./" + b"a" * 5000 + b"\0",
        b"a" * 9000,
    ],
)
def test_a_list_that_lies_is_refused(said: bytes) -> None:
    with pytest.raises(Refused):
        listing.parse([said])


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_ENTRIES", 2)
    with pytest.raises(Refused, match="more than 2"):
        listing.parse([b"".join(b"f 644 0 0 1 1 1 1\0\0./%d\0" % number for number in range(3))])


def test_entries_compare() -> None:
    assert entry() == entry() and entry(times="1 2 1") != entry()
