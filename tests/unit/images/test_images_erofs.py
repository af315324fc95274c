"""EROFS files as the kernel sees them."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead.images import ondisk
from bulkhead.images.ondisk import BLOCK
from tests.harness.abilities import require
from tests.unit.images import lab
from tests.unit.images.lab import entry, folder, hardlink, make_tar, symlink


@pytest.fixture(autouse=True)
def _needs() -> None:
    require("root", "mount namespaces", "erofs", "fsck.erofs")


def both(data: bytes, tmp_path: Path) -> tuple[lab.Shown, lab.Shown]:
    """A tar as our EROFS file shows it, and as GNU tar unpacks it."""
    archive, image = tmp_path / "layer.tar", tmp_path / "layer.erofs"
    archive.write_bytes(data)
    lab.pack(data, image)
    lab.fsck(image)
    with lab.mounted(image, tmp_path / "mount") as root:
        seen = lab.show(root)
    return seen, lab.unpacked_by_tar(archive, tmp_path / "tar")


def test_every_kind_of_file(tmp_path: Path) -> None:
    data = make_tar(
        folder("./", 0o1777, uid=5, gid=6, mtime=1000),
        folder("d", 0o2750, uid=70000, gid=4_000_000_000, mtime=1_700_000_000.25),
        entry("d/file", b"hello", mode=0o4755, mtime=1.5, pax={"SCHILY.xattr.user.a": "b"}),
        hardlink("d/again", "d/file"),
        symlink("d/link", "/absolute/target"),
        entry("d/fifo", kind=tarfile.FIFOTYPE),
        entry("d/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("d/disk", kind=tarfile.BLKTYPE, devmajor=259, devminor=0x12345 & 0xFFFFF),
        entry("d/old", b"x", mtime=-86400),
        entry("empty", b""),
    )
    seen, expected = both(data, tmp_path)
    assert seen == expected
    assert seen["d/file"]["nlink"] == 2
    assert seen["d"]["owner"] == (70000, 4_000_000_000)


@pytest.mark.parametrize("base", [0, 1, 2, 5])
def test_sizes_around_blocks_and_tails(tmp_path: Path, base: int) -> None:
    sizes = [base * BLOCK + extra for extra in (-1, 0, 1, 31, 32, 2047, 2048, 2049, 4031, 4032, 4033, 4095)]
    files = [entry(f"f{size}", os.urandom(size)) for size in sizes if size >= 0]
    seen, expected = both(make_tar(folder("."), *files), tmp_path)
    assert seen == expected


def test_directories_of_many_blocks(tmp_path: Path) -> None:
    names = [f"n{number:05}" + "x" * (number % 200) for number in range(3000)] + ["!first", "~last", "\xe9\xff"]
    data = make_tar(folder("."), folder("big"), *(entry(f"big/{name}", name.encode()) for name in names))
    seen, expected = both(data, tmp_path)
    assert seen == expected
    assert len(seen) == 2 + len(names)


def test_directory_that_fills_its_block_exactly(tmp_path: Path) -> None:
    # . and .. take 27 bytes, an entry 12 and its name.
    fits = ["a" * 200] * 0 + [f"{number:03}" + "a" * 197 for number in range(19)]
    rest = BLOCK - 27 - 19 * 212 - 12
    data = make_tar(folder("."), *(entry(name) for name in [*fits, "z" * rest]))
    seen, expected = both(data, tmp_path)
    assert seen == expected


def test_long_names_and_links(tmp_path: Path) -> None:
    deep = "/".join(["d" * 250] * 15)
    parents = [folder("/".join(["d" * 250] * depth)) for depth in range(1, 16)]
    links = [symlink(f"l{length}", "t" * length) for length in (1, 60, 2048, 2049, 4000, 4095)]
    seen, expected = both(make_tar(folder("."), *parents, entry(f"{deep}/{'n' * 255}", b"deep"), *links), tmp_path)
    assert seen == expected


def test_attributes_larger_than_a_block(tmp_path: Path) -> None:
    # From the kernel alone: tmpfs keeps no user attributes of this size.
    attributes = {f"SCHILY.xattr.user.{number}": "v" * 3000 for number in range(20)}
    image = tmp_path / "image"
    for size in (0, 10, 2000, 5000):
        lab.pack(make_tar(folder("."), entry("f", b"x" * size, pax=attributes)), image)
        lab.fsck(image)
        with lab.mounted(image, tmp_path / "mount") as root:
            assert lab.show(root)["f"]["xattrs"] == {f"user.{number}": b"v" * 3000 for number in range(20)}
            assert (root / "f").read_bytes() == b"x" * size


def test_capabilities_and_access_lists(tmp_path: Path) -> None:
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    access = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff"
    access += b"\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff"
    pax = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.system.posix_acl_access": access.decode("latin-1"),
        "SCHILY.xattr.trusted.mine": "t",
        "LIBARCHIVE.xattr.user.coded%20name": "dmFsdWU",
    }
    info, data = entry("ping", b"x")
    raw = make_tar(folder("."), (info, data))
    layer = _with_pax(raw, "ping", {key: value.encode("latin-1") for key, value in pax.items()})
    image = tmp_path / "image"
    lab.pack(layer, image)
    lab.fsck(image)
    with lab.mounted(image, tmp_path / "mount") as root:
        found = lab.show(root)["ping"]["xattrs"]
    assert found["security.capability"] == capability
    assert found["system.posix_acl_access"] == access
    assert found["trusted.mine"] == b"t"
    assert found["user.coded name"] == b"value"


def _with_pax(layer: bytes, name: str, records: dict[str, bytes]) -> bytes:
    """Put a pax header with binary values, which tarfile cannot write, before an entry."""
    body = b""
    for key, value in records.items():
        length = len(key) + len(value) + 3
        while len(str(length)) + len(key) + len(value) + 3 != length:
            length = len(str(length)) + len(key) + len(value) + 3
        body += f"{length} {key}=".encode() + value + b"\n"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    header = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    at = layer.index(name.encode())
    return layer[:at] + header + layer[at:]


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files(tmp_path: Path, version: str) -> None:
    options = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    source = tmp_path / "source"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        for number in range(30):
            file.seek(number * 300_000)
            file.write(bytes([65 + number]) * 5000)
        file.truncate(50_000_000)
    with (source / "nothing").open("wb") as file:
        file.truncate(1_000_000)
    (source / "solid").write_bytes(os.urandom(10_000))
    archive = tmp_path / "sparse.tar"
    subprocess.run(["tar", "-C", str(source), "-S", *options, "-cf", str(archive), "."], check=True)
    assert archive.stat().st_size < 5_000_000
    image = tmp_path / "image"
    lab.pack(archive.read_bytes(), image)
    lab.fsck(image)
    with lab.mounted(image, tmp_path / "mount") as root:
        for name in ("holes", "nothing", "solid"):
            assert (root / name).read_bytes() == (source / name).read_bytes()
    # The holes stay holes on the host's disk.
    assert image.stat().st_blocks * 512 < 5_000_000 < image.stat().st_size


def test_the_same_layer_gives_the_same_file(tmp_path: Path) -> None:
    data = make_tar(folder("."), entry("a", b"1" * 5000), entry("b", b"2"))
    for name, chunk in (("one", 1 << 20), ("two", 700)):
        lab.pack(data, tmp_path / name, chunk=chunk)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_damaged_file_is_told_from_a_whole_one(tmp_path: Path) -> None:
    image = tmp_path / "image"
    lab.pack(make_tar(folder("."), entry("a", b"1" * 5000)), image)
    good = image.read_bytes()
    bad = {
        "cut": good[:-BLOCK],
        "short": good[:100],
        "zeros": bytes(len(good)),
        "flipped": good[:1100] + b"X" + good[1101:],
    }
    for name, data in {"good": good, **bad}.items():
        image.write_bytes(data)
        with image.open("rb") as file:
            assert ondisk.is_whole(file.fileno()) is (name == "good"), name


def test_whole_debian(tmp_path: Path, rootfs_tar: Callable[[str], Path]) -> None:
    archive = rootfs_tar("debian")
    image = tmp_path / "debian.erofs"
    found = lab.pack(archive.read_bytes(), image)
    assert found.architecture == "amd64"
    lab.fsck(image)
    with lab.mounted(image, tmp_path / "mount") as root:
        seen = lab.show(root)
    assert seen == lab.unpacked_by_tar(archive, tmp_path / "tar")


# A layer as hypothesis makes it: every path a file of some kind, parents before children.
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) < 200
)
_PATHS = st.lists(st.lists(_NAMES, min_size=1, max_size=4), min_size=1, max_size=25)


class _Layer(bytes):
    """A tar that shows its names alone when a test fails."""

    def __repr__(self) -> str:
        return f"{subprocess.run(['tar', 'tvf', '-'], input=self, capture_output=True, check=False).stdout[:2000]!r}"


@st.composite
def _layers(draw: st.DrawFn) -> _Layer:
    entries = {".": folder(".")}
    for parts in draw(_PATHS):
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(path in entries and not entries[path][0].isdir() for path in parents):
            continue
        for path in parents:
            if path not in entries:
                entries[path] = folder(path, draw(st.integers(0, 0o7777)), mtime=draw(st.integers(0, 1 << 33)))
        if (path := "/".join(parts)) not in entries:
            entries[path] = _leaf(draw, path)
    return _Layer(make_tar(*entries.values()))


def _leaf(draw: st.DrawFn, path: str) -> tuple[tarfile.TarInfo, bytes]:
    kind = draw(st.sampled_from(["file", "link", "device", "fifo"]))
    ids: dict[str, Any] = {"uid": draw(st.integers(0, 0xFFFFFFFE)), "gid": draw(st.integers(0, 0xFFFFFFFE))}
    if kind == "file":
        data = draw(st.binary(max_size=64)) * draw(st.sampled_from([1, 1, 70, 200]))
        return entry(path, data, mode=draw(st.integers(0, 0o7777)), **ids)
    if kind == "link":
        return symlink(path, draw(_NAMES))
    if kind == "fifo":
        return entry(path, kind=tarfile.FIFOTYPE, **ids)
    ids |= {"devmajor": draw(st.integers(1, 4095)), "devminor": draw(st.integers(0, 255))}
    return entry(path, kind=tarfile.CHRTYPE, **ids)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=_layers())
def test_round_trip(tmp_path: Path, data: bytes) -> None:
    seen, expected = both(data, Path(tempfile.mkdtemp(dir=tmp_path)))
    assert seen == expected


def test_inode_numbers_are_those_of_files(tmp_path: Path) -> None:
    image = tmp_path / "image"
    lab.pack(make_tar(folder("."), folder("d"), entry("a", b"1"), hardlink("d/b", "a")), image)
    with lab.mounted(image, tmp_path / "mount") as root:
        assert root.stat().st_ino > 0
        assert (root / "a").stat().st_ino == (root / "d/b").stat().st_ino
        assert root.stat().st_nlink == 3
        assert stat.S_ISDIR((root / "d").stat().st_mode)
