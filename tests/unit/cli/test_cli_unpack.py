"""Files between this host and an instance: what comes out of one is hostile."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.cli.pack import pack
from bulkhead.cli.unpack import unpack
from bulkhead.errors import Refused


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644, data: bytes = b"") -> bytes:
    """One entry as bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def archive(*members: bytes) -> Iterator[bytes]:
    """A stream in odd portions."""
    whole = b"".join(members) + bytes(1024)
    return (whole[start : start + 777] for start in range(0, len(whole), 777))


def test_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_bytes(os.urandom(600_000))
    (source / "deep/er/file").chmod(0o600)
    (source / "hard").hardlink_to(source / "deep/er/file")
    (source / "soft").symlink_to("../outside")
    (source / "empty").mkdir(mode=0o711)
    (source / "ünï").write_text("x")
    os.utime(source / "deep", (1, 1_600_000_000.25))
    seen: list[Path] = []
    target = tmp_path / "target"
    count = unpack(
        pack(source, "top", keep_owners=False, seen=seen.append), str(target), contents=False, keep_owners=False
    )
    assert count == len(seen) == 8
    assert (target / "deep/er/file").read_bytes() == (source / "deep/er/file").read_bytes()
    assert (target / "deep/er/file").stat().st_mode & 0o7777 == 0o600
    assert (target / "hard").samefile(target / "deep/er/file")
    assert (target / "soft").readlink() == Path("../outside")
    assert (target / "empty").stat().st_mode & 0o7777 == 0o711
    assert (target / "deep").stat().st_mtime == 1_600_000_000.25
    assert (target / "ünï").read_text() == "x"


def test_contents_alone(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a").write_text("1")
    (tmp_path / "here").mkdir(mode=0o700)
    stream = pack(tmp_path / "site", "top", keep_owners=False, seen=lambda path: None)
    assert unpack(stream, str(tmp_path / "here"), contents=True, keep_owners=False) == 1
    assert (tmp_path / "here/a").read_text() == "1"
    assert (tmp_path / "here").stat().st_mode & 0o7777 == 0o700
    bare = b"".join(pack(tmp_path / "site", "", keep_owners=False, seen=lambda path: None))
    with tarfile.open(fileobj=io.BytesIO(bare)) as names:
        assert names.getnames() == ["a"]


HOSTILE = {
    "dots": [member("../escaped", data=b"x")],
    "dots inside": [member("top", tarfile.DIRTYPE), member("top/../../escaped", data=b"x")],
    "absolute": [member("/escaped", data=b"x")],
    "through a link": [member("top", tarfile.SYMTYPE, link=".."), member("top/escaped", data=b"x")],
    "through a deep link": [
        member("top", tarfile.DIRTYPE),
        member("top/l", tarfile.SYMTYPE, link="../.."),
        member("top/l/escaped", data=b"x"),
    ],
    "link then directory": [
        member("top", tarfile.DIRTYPE),
        member("top/l", tarfile.SYMTYPE, link=".."),
        member("top/l", tarfile.DIRTYPE, mode=0o777),
    ],
    "hard link to the outside": [member("top", tarfile.DIRTYPE), member("top/h", tarfile.LNKTYPE, link="../secret")],
    "hard link to what is not in it": [member("top", tarfile.DIRTYPE), member("top/h", tarfile.LNKTYPE, link="top/x")],
    "damaged": [member("top", tarfile.DIRTYPE), b"\xff" * 512],
    "nothing of a name": [member("./", data=b"x")],
    "a file in place of a directory": [
        member("top", tarfile.DIRTYPE),
        member("top/d", tarfile.DIRTYPE),
        member("top/d", data=b"x"),
    ],
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_attacks(attack: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "base").mkdir()
    mode = tmp_path.stat().st_mode
    with pytest.raises(Refused):
        unpack(archive(*HOSTILE[attack]), str(tmp_path / "base"), contents=False, keep_owners=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "secret"]
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_nlink == 1
    assert tmp_path.stat().st_mode == mode


def test_a_file_replaces_a_link_instead_of_following_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    members = [
        member("top", tarfile.DIRTYPE),
        member("top/l", tarfile.SYMTYPE, link="../secret"),
        member("top/l", data=b"x"),
    ]
    unpack(archive(*members), str(tmp_path / "out"), contents=False, keep_owners=False)
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "out/l").read_text() == "x"


def test_set_id_bits_are_dropped(tmp_path: Path) -> None:
    members = [member("top", tarfile.DIRTYPE, mode=0o7755), member("top/sh", mode=0o6755, data=b"x")]
    unpack(archive(*members), str(tmp_path / "out"), contents=False, keep_owners=True)
    assert (tmp_path / "out/sh").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out").stat().st_mode & 0o7777 == 0o755


def test_devices_are_left_out_and_told(tmp_path: Path) -> None:
    members = [
        member("top", tarfile.DIRTYPE),
        member("top/null", tarfile.CHRTYPE),
        member("top/pipe", tarfile.FIFOTYPE),
        member("top/file", data=b"x"),
    ]
    with pytest.raises(Refused) as caught:
        unpack(archive(*members), str(tmp_path / "out"), contents=False, keep_owners=False)
    assert len(caught.value.problems) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["file"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """Root copies to /dev/null: the host would have lost it."""
    os.mkfifo(tmp_path / "null")
    for members, local in (
        ((member("file", data=b"x"),), tmp_path / "null"),
        ((member("top", tarfile.DIRTYPE), member("top/null", data=b"x")), tmp_path),
        ((member("top", tarfile.DIRTYPE), member("top/null", tarfile.SYMTYPE, link="x")), tmp_path),
    ):
        with pytest.raises(Refused, match="null is there as a device, a pipe or a socket"):
            unpack(archive(*members), str(local), contents=True, keep_owners=False)
        assert (tmp_path / "null").is_fifo()


def test_places(tmp_path: Path) -> None:
    def one() -> Iterator[bytes]:
        return archive(member("file", data=b"x"))

    assert unpack(one(), str(tmp_path / "renamed"), contents=False, keep_owners=False) == 1
    assert (tmp_path / "renamed").read_text() == "x"
    assert unpack(one(), str(tmp_path / "renamed"), contents=False, keep_owners=False) == 1
    for wrong in ("missing/", "missing/file"):
        with pytest.raises(Refused):
            unpack(one(), f"{tmp_path}/{wrong}", contents=False, keep_owners=False)
    with pytest.raises(Refused):
        unpack(archive(member("top", tarfile.DIRTYPE)), str(tmp_path / "renamed"), contents=False, keep_owners=False)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1_000_000)
    stream = pack(file, "file", keep_owners=True, seen=lambda path: None)
    next(stream)
    next(stream)
    file.write_bytes(b"")
    with pytest.raises(Refused, match="shorter"):
        list(stream)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot read"):
        list(pack(tmp_path / "none", "x", keep_owners=False, seen=lambda path: None))
