"""An overlay's upper directory as a layer: made through real overlays, unpacked again, and attacked."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkhead.errors import HostError, Refused
from bulkhead.host import syscalls
from bulkhead.storage import difference
from tests.harness.abilities import require

Overlay = Callable[[], Path]


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """What is below."""
    made = tmp_path / "lower"
    (made / "kept/deep").mkdir(parents=True)
    (made / "kept/deep/file").write_text("below")
    (made / "gone").write_text("below")
    (made / "replaced").mkdir()
    (made / "replaced/old").write_text("below")
    return made


@pytest.fixture
def overlay(tmp_path: Path, lower: Path) -> Iterator[tuple[Path, Path]]:
    """(merged, upper) of an overlay over `lower`."""
    require("root", "mount namespaces", "overlay")
    disk = tmp_path / "disk"
    for name in ("disk", "merged"):
        (tmp_path / name).mkdir()
    with ExitStack() as always:
        syscalls.mount("none", disk, "tmpfs", 0)
        always.callback(syscalls.umount2, disk)
        (disk / "upper").mkdir()
        (disk / "work").mkdir()
        data = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work"
        syscalls.mount("overlay", tmp_path / "merged", "overlay", 0, data)
        always.callback(syscalls.umount2, tmp_path / "merged")
        yield tmp_path / "merged", disk / "upper"


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    """The tar's entries by name, as another reader sees them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = archive.getmembers()
    assert len({member.name for member in found}) == len(found)
    return {member.name: member for member in found}


def made(upper: Path, **options: object) -> bytes:
    """The whole layer."""
    return b"".join(difference.layer(upper, **options))  # type: ignore[arg-type]


def content(data: bytes, name: str) -> bytes:
    """The bytes of one file."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def test_what_an_overlay_records_becomes_a_layer(overlay: tuple[Path, Path]) -> None:
    merged, upper = overlay
    (merged / "gone").unlink()
    (merged / "replaced/old").unlink()
    (merged / "replaced").rmdir()
    (merged / "replaced").mkdir()
    (merged / "replaced/new").write_text("above")
    with (merged / "kept/deep/file").open("a") as file:
        file.write(" and above")
    data = made(upper)
    found = members(data)
    assert sorted(found) == [
        ".wh.gone",
        "kept",
        "kept/deep",
        "kept/deep/file",
        "replaced",
        "replaced/.wh..wh..opq",
        "replaced/new",
    ]
    assert content(data, "kept/deep/file") == b"below and above"
    assert found[".wh.gone"].isfile() and found[".wh.gone"].size == 0


def test_owners_modes_times_links_and_kinds(tmp_path: Path) -> None:
    require("root")
    top = tmp_path / "upper"
    top.mkdir(mode=0o755)
    (top / "file").write_bytes(b"x" * 1000)
    os.chown(top / "file", 1000, 3_000_000)
    (top / "file").chmod(0o4711)
    os.utime(top / "file", (1_700_000_000, 1_700_000_000))
    os.link(top / "file", top / "another")
    (top / "link").symlink_to("/etc/" + "long/" * 40)
    os.mkfifo(top / "pipe", 0o600)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    found = members(made(top))
    first, second = found["another"], found["file"]
    assert (first.mode, first.uid, first.gid, first.mtime, first.size) == (0o4711, 1000, 3_000_000, 1_700_000_000, 1000)
    assert second.islnk() and second.linkname == "another"
    assert found["link"].linkname == "/etc/" + "long/" * 40
    assert found["pipe"].isfifo()
    assert found["null"].ischr() and (found["null"].devmajor, found["null"].devminor) == (1, 3)


def test_long_and_strange_names(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    names = ["a" * 255, "b" * 95 + "ü", "new\nline", "x" * 99, "y" * 100, "z" * 101]
    for name in names:
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(name)
    os.close(os.open(os.fsencode(top) + b"/raw\xff", os.O_CREAT | os.O_WRONLY, 0o600))
    data = made(top)
    assert set(members(data)) - {"."} == {*names, "raw\udcff"}
    assert all(content(data, name) == name.encode() for name in names)


def test_a_size_that_octal_digits_cannot_tell(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    top.mkdir()
    with (top / "large").open("wb") as file:
        file.truncate(9 << 30)
    pieces = difference.layer(top)
    head = b"".join(next(pieces) for _ in range(1 if stat.S_IMODE(top.stat().st_mode) == 0o755 else 2))
    assert b"size=%d\n" % (9 << 30) in head
    pieces.close()  # type: ignore[attr-defined]


def test_attributes(overlay: tuple[Path, Path]) -> None:
    merged, upper = overlay
    (merged / "ping").write_text("program")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(merged / "ping", "security.capability", capability)
    try:
        os.setxattr(merged / "ping", "user.note", b"hello")
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP  # tmpfs before Linux 6.6
    found = members(made(upper))["ping"].pax_headers
    assert found["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == capability
    assert not [name for name in found if "overlay" in name]


def test_holes_are_zeros_and_sockets_are_left_out(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    top.mkdir()
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))
        data = made(top)
    assert "socket" not in members(data)
    assert content(data, "sparse") == bytes(1 << 20) + b"end"


def test_the_same_directory_is_the_same_layer(tmp_path: Path) -> None:
    for name in ("one", "two"):
        top = tmp_path / name
        top.mkdir()
        for file in ("b", "a", "c") if name == "one" else ("c", "b", "a"):
            (top / file).write_text(file)
    assert made(tmp_path / "one", latest=0) == made(tmp_path / "two", latest=0)
    assert members(made(tmp_path / "one", latest=1000))["a"].mtime == 1000


def test_mount_points_are_left_out_where_nothing_is_in_them(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    (top / "run/secrets").mkdir(parents=True)
    (top / "run/secrets/key").touch()
    (top / "etc").mkdir()
    (top / "etc/hosts").write_text("somebody's")
    (top / "cache").mkdir()
    (top / "cache/kept").touch()
    stubs = {b"run", b"run/secrets", b"run/secrets/key", b"etc/hosts", b"cache"}
    assert set(members(made(top, stubs=stubs))) - {"."} == {"etc", "etc/hosts", "cache", "cache/kept"}


def test_a_root_that_was_changed_is_in_it(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    top.mkdir()
    top.chmod(0o755)
    if os.geteuid() == 0:
        assert not members(made(top))
    top.chmod(0o700)
    assert members(made(top))["."].mode == 0o700


# --- attacks


def test_a_name_that_would_remove_something_is_refused(tmp_path: Path) -> None:
    for name in (".wh.passwd", ".wh..wh..opq"):
        top = tmp_path / name.strip(".")
        (top / "etc").mkdir(parents=True)
        (top / "etc" / name).touch()
        with pytest.raises(Refused, match=r"cannot be in a layer"):
            made(top)


def test_a_directory_with_such_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "upper/.wh.etc/x").mkdir(parents=True)
    with pytest.raises(Refused, match=r"cannot be in a layer"):
        made(tmp_path / "upper")


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's")
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/inside").write_text("the host's")
    top = tmp_path / "upper"
    top.mkdir()
    (top / "file").symlink_to(tmp_path / "secret")
    (top / "directory").symlink_to(tmp_path / "hosts")
    data = made(top)
    assert b"the host's" not in data
    assert all(member.issym() for name, member in members(data).items() if name != ".")


def test_more_than_was_allowed_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    top.mkdir()
    with (top / "hole").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refused, match=r"more than 1.0 MiB|more than 1 MiB|more than"):
        made(top, most=1 << 20)
    (top / "hole").unlink()
    for number in range(50):
        (top / str(number)).touch()
    with pytest.raises(Refused, match="more than"):
        made(top, most=10_000)


def test_too_many_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "MOST_NAMES", 3)
    (tmp_path / "upper").mkdir()
    for number in range(4):
        (tmp_path / "upper" / str(number)).touch()
    with pytest.raises(Refused, match="more than 3 changed files"):
        made(tmp_path / "upper")


def test_a_directory_deeper_than_any_path_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "upper"
    top.mkdir()
    descriptors = [os.open(top, os.O_RDONLY)]
    name = "d" * 200
    for _ in range(21):
        os.mkdir(name, dir_fd=descriptors[-1])
        descriptors.append(os.open(name, os.O_RDONLY, dir_fd=descriptors[-1]))
    try:
        with pytest.raises(Refused, match="too deep"):
            made(top)
    finally:
        for parent in reversed(descriptors[:-1]):
            os.rmdir(name, dir_fd=parent)
        for descriptor in descriptors:
            os.close(descriptor)


def test_files_that_an_overlay_left_elsewhere_are_refused(tmp_path: Path) -> None:
    require("root")
    top = tmp_path / "upper"
    (top / "moved").mkdir(parents=True)
    os.setxattr(top / "moved", "trusted.overlay.redirect", b"/etc")
    with pytest.raises(HostError, match="not whole"):
        made(top)


def test_many_levels_need_no_descriptors(tmp_path: Path) -> None:
    opened = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(300):
        os.mkdir("d", dir_fd=opened[-1])
        opened.append(os.open("d", os.O_RDONLY, dir_fd=opened[-1]))
    for descriptor in opened:
        os.close(descriptor)
    assert len(members(made(tmp_path / "d"))) >= 299
