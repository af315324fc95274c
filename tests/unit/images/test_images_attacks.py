"""Hostile and damaged layers: each is refused in words, or does no more than a file's content could."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import stat
import struct
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead.errors import ImageError
from bulkhead.images import compression, tar
from bulkhead.images.below import Below
from bulkhead.images.layer import unpack
from bulkhead.images.node import EMPTY, Node, directory
from bulkhead.images.reader import Reader
from bulkhead.images.tree import Tree
from tests.unit.images import lab
from tests.unit.images.lab import ROOMY, chunked, entry, folder, hardlink, make_tar, symlink

Entries = tuple[tuple[tarfile.TarInfo, bytes], ...]
_BAD_PATHS: dict[str, Entries] = {
    "leads out of it": (entry("../etc/passwd"),),
    "'a/../../b' in the layer leads out": (entry("a/../../b"),),
    "'/../b' in the layer leads out": (entry("/../b"),),
    "would replace the root": (entry("."),),
    "a name longer than 255": (entry("n" * 256),),
    "at most 4096": (entry("/".join("d" for _ in range(2100))),),
    "which is not a directory": (entry("a"), entry("a/b")),
    "its target 'b' is not in the layer": (hardlink("a", "b"),),
    "its target 'd' is a directory": (folder("d"), hardlink("a", "d")),
    "its target '.' is a directory": (hardlink("a", "."),),
    "'../outside' in the layer leads out": (hardlink("a", "../outside"),),
    "symlink to nowhere": (symlink("l", "/nowhere"), entry("l/x")),
    "more than 40 symlinks": (symlink("l", "m"), symlink("m", "l"), entry("l/x")),
    "not a whiteout that the OCI": (entry("d/.wh."),),
    "'d/.wh...' in the layer is not": (entry("d/.wh..."),),
    "'.wh..wh.plnk' in the layer is not": (entry(".wh..wh.plnk"),),
    "marks a removed name, not a directory": (entry(".wh.d/x"),),
    "a mark of a removed name cannot be": (folder(".wh.d"),),
    "cannot be a hard link": (entry("a"), hardlink(".wh.b", "a")),
    "hides everything below its root": (entry(".wh..wh..opq"),),
    "has the target ''": (symlink("l", ""),),
    "has the target 'tttt": (symlink("l", "t" * 4096),),
}


def refused(data: bytes, tmp_path: Path, **bounds: int) -> str:
    """Why a layer is refused."""
    with pytest.raises(ImageError) as caught:
        lab.pack(data, tmp_path / "image", bounds=replace(ROOMY, **bounds))
    return caught.value.what


@pytest.mark.parametrize("reason", _BAD_PATHS)
def test_bad_paths(tmp_path: Path, reason: str) -> None:
    assert reason in refused(make_tar(*_BAD_PATHS[reason]), tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("trusted.overlay.redirect", "direct the host's overlay"),
        ("trusted.overlay.metacopy", "direct the host's overlay"),
        ("trusted.overlay.opaque", "direct the host's overlay"),
        ("trusted.overlay.overlay.opaque", "direct the host's overlay"),
        ("user." + "n" * 300, "larger than Linux allows"),
    ],
)
def test_bad_attributes(tmp_path: Path, name: str, reason: str) -> None:
    for key in (f"SCHILY.xattr.{name}", f"LIBARCHIVE.xattr.{name.replace('o', '%6F')}"):
        value = "eQ==" if key.startswith("LIB") else "y"
        assert reason in refused(make_tar(folder("d", pax={key: value})), tmp_path)


def test_attributes_of_hosts_and_other_systems_are_told_and_left_out(tmp_path: Path) -> None:
    pax = {
        "SCHILY.xattr.security.selinux": "system_u:object_r:shadow_t:s0",
        "SCHILY.xattr.com.apple.quarantine": "x",
        "SCHILY.xattr.user.": "empty",
        "SCHILY.acl.access": "user::rwx",
    }
    notes = lab.pack(make_tar(entry("f", pax=pax)), tmp_path / "image").notes
    assert len(notes) == 3
    assert any("selinux" in note for note in notes)


def _header(name: str = "f", **fields: object) -> bytes:
    info, _ = entry(name, **fields)  # type: ignore[arg-type]
    return info.tobuf(tarfile.GNU_FORMAT)


def _sum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def _patched(at: int, value: bytes, kind: bytes = b"0") -> bytes:
    header = bytearray(_header())
    header[156:157] = kind
    header[at : at + len(value)] = value
    return _sum(header) + bytes(1024)


_END = bytes(1024)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no end mark"),
        (b"not a tar at all" * 100, "not a tar"),
        (_header(size=5), "truncated"),
        (_header(size=1 << 33) + b"x" * 512, "truncated"),
        (_header() + _header()[:100], "truncated"),
        (_header(), "no end mark"),
        (_header()[:50] + b"X" + _header()[51:] + _END, "checksum"),
        (_patched(124, b"\x80" + b"\xff" * 11), "a size of"),
        (_patched(124, b"\xff" * 12), "a size of -1"),
        (_patched(124, b"12x45678901\0"), "not a number"),
        (_patched(124, b"00000000009\0"), "not a number"),
        (_patched(108, b"\x80\0\0\xff\xff\xff\xff\xff"), "no such ids"),
        (_patched(108, b"\xff" * 8), "no such ids"),
        (_patched(136, b"\x80" + b"\x7f" * 11), "a time out of range"),
        (_patched(329, b"7777777\0", b"3"), "no such numbers"),
        (_patched(0, b"f", b"Z"), "a type that is not known"),
        (_patched(0, b"f", b"M"), "a type that is not known"),
        (_patched(0, b"f", b"S"), "map says"),
        (_header("d/", size=5) + bytes(1024), "named as a directory"),
    ],
)
def test_damaged_headers(tmp_path: Path, data: bytes, reason: str) -> None:
    if reason == "map says":  # a sparse file that claims more stored than its map has
        header = bytearray(_header(size=512))
        header[156:157] = b"S"
        data = _sum(header) + bytes(512) + _END
    assert reason in refused(data, tmp_path)


def _pax(body: bytes, kind: bytes = tarfile.XHDTYPE, then: bytes = b"") -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + (then or _header()) + _END


def _record(key: bytes, value: bytes) -> bytes:
    for length in range(len(key) + len(value) + 3, len(key) + len(value) + 12):
        record = b"%d %s=%s\n" % (length, key, value)
        if len(record) == length:
            return record
    raise AssertionError


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_pax(b"99 path=x\n"), "damaged pax header"),
        (_pax(b"path=x\n"), "damaged pax header"),
        (_pax(b"0 path=x\n"), "damaged pax header"),
        (_pax(b"-9 path=x\n"), "damaged pax header"),
        (_pax(b"9 path=xy"), "damaged pax header"),
        (_pax(_record(b"path", b"x") + b"no-space-here"), "damaged pax header"),
        (_pax(_record(b"path", b"x") + b"1 a=b\n"), "damaged pax header"),
        (_pax(_record(b"path", b"a\0b")), "damaged pax header"),
        (_pax(_record(b"path", b"")), "damaged pax header"),
        (_pax(_record(b"path", b"../x")), "leads out"),
        (_pax(_record(b"size", b"-5")), "damaged pax header"),
        (_pax(_record(b"size", b"9" * 21)), "damaged pax header"),
        (_pax(_record(b"size", b"5000")), "truncated"),
        (_pax(_record(b"uid", b"4294967295")), "no such ids"),
        (_pax(_record(b"mtime", b"yesterday")), "not a time"),
        (_pax(_record(b"mtime", b"9" * 30)), "not a time"),
        (_pax(_record(b"LIBARCHIVE.xattr.user.a", b"!!")), "not base64"),
        (_pax(_record(b"path", b"x"), tarfile.XGLTYPE), "for all of its files"),
        (_pax(_record(b"SCHILY.xattr.user.a", b"x"), tarfile.XGLTYPE), "for all of its files"),
        (_pax(_record(b"GNU.sparse.major", b"1")), "not a number"),
        (_pax(_record(b"GNU.sparse.map", b"0,5,3,5") + _record(b"GNU.sparse.size", b"10")), "overlap"),
        (_pax(_record(b"GNU.sparse.map", b"0,5") + _record(b"GNU.sparse.size", b"10")), "map says"),
        (_pax(_record(b"path", b"x"), then=bytes(512)), "extension header: it is truncated"),
        (_pax(b"x" * ((1 << 20) + 1)), "at most 1048576"),
        (_pax(b"x" * ((1 << 20) + 1), tarfile.GNUTYPE_LONGNAME), "at most 1048576"),
    ],
)
def test_damaged_extensions(tmp_path: Path, data: bytes, reason: str) -> None:
    assert reason in refused(data, tmp_path)


def test_sparse_map_before_the_data_is_checked(tmp_path: Path) -> None:
    records = _record(b"GNU.sparse.major", b"1") + _record(b"GNU.sparse.minor", b"0")
    records += _record(b"GNU.sparse.realsize", b"100") + _record(b"GNU.sparse.name", b"f")
    for body, reason in {
        b"1\n0\n50\n": "map says",
        b"99999999\n": "parts",
        b"x\n": "not a number",
        b"1" * 30: "not a number",
        b"300\n" + b"0\n0\n" * 300: "map says",
    }.items():
        stored = len(body) + -len(body) % 512
        header = _header(size=512) + body + bytes(stored - len(body))
        assert reason in refused(_pax(records, then=header), tmp_path), body


def test_total_size_is_bounded(tmp_path: Path) -> None:
    data = make_tar(entry("a", b"1" * 60_000), entry("b", b"2" * 60_000))
    assert "unpacks to more than 100k" in refused(data, tmp_path, total=100 << 10)


def test_holes_count_as_bytes(tmp_path: Path) -> None:
    header = bytearray(_header(size=0))
    header[156:157] = b"S"
    header[483:495] = b"\x80\0\0\0" + struct.pack(">Q", 1 << 40)
    assert "larger than 64G" in refused(_sum(header) + _END, tmp_path)
    assert (tmp_path / "image").stat().st_size < 1 << 20


def test_names_and_attributes_in_memory_are_bounded(tmp_path: Path) -> None:
    assert "more than 3 files" in refused(make_tar(*(entry(f"f{n}") for n in range(9))), tmp_path, entries=3)
    assert "more than 20 files" in refused(make_tar(entry("a/" * 30 + "x")), tmp_path, entries=20)
    assert "names and attributes" in refused(make_tar(symlink("a", "t" * 3000)), tmp_path, metadata=2000)
    assert "names and attributes" in refused(make_tar(entry("a" * 200), entry("b" * 200)), tmp_path, metadata=300)
    big = {f"SCHILY.xattr.user.{n}": "v" * 60_000 for n in range(3)}
    assert "extended attributes of more" in refused(make_tar(entry("f", pax=big)), tmp_path)


def test_paths_that_cost_time_are_bounded(tmp_path: Path) -> None:
    # Each entry leads through a link of its own, forty directories down.
    deep = "d/" * 40
    links = [symlink(f"l{number}", deep) for number in range(100)]
    files = [entry(f"l{number}/{number}") for number in range(100)]
    data = make_tar(folder("."), folder(deep), *links, *files)
    assert "made to cost time" in refused(data, tmp_path, steps=3000)
    lab.pack(data, tmp_path / "image")


def _mutated(data: bytes, chance: random.Random) -> bytes:
    """A tar with some bytes of its headers changed, checksums made good again, sometimes cut."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        block = chance.randrange(len(changed) // 512) * 512
        at = chance.choice([0, 100, 108, 116, 124, 136, 156, 157, 257, 329, 345, 386, 482, 483, chance.randrange(512)])
        value = chance.choice([b"\0", b"\xff", b"\x80", b"7", b"9", b"/", b"..", b"S", b"x", b"L", b" "])
        changed[block + at : block + at + len(value)] = value
        changed[block : block + 512] = _sum(changed[block : block + 512])
    return bytes(changed[: chance.randrange(len(changed))] if chance.random() < 0.2 else changed)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_mutated_tars_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    data = make_tar(
        folder("d", pax={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        entry("d/file", b"x" * 600, pax={"comment": "none"}),
        symlink("d/link", "file"),
        hardlink("d/hard", "d/file"),
        entry("n" * 150, b"long"),
        form=tarfile.PAX_FORMAT if seed % 2 else tarfile.GNU_FORMAT,
    )
    with suppress(ImageError):
        lab.pack(_mutated(data, random.Random(seed)), tmp_path / "image", bounds=replace(ROOMY, total=64 << 20))


@given(data=st.binary(max_size=2000))
def test_random_bytes_are_no_tar(data: bytes) -> None:
    with suppress(ImageError):
        list(tar.entries(Reader([data]), ROOMY, must_end=True, notes=set()))


_PIECES = st.sampled_from([b"..", b".", b"", b"a", b"b", b"l", b".wh.a", b".wh..wh..opq", b"x" * 255, b"\xff"])


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from("dflhw"), st.lists(_PIECES, max_size=5), st.lists(_PIECES, max_size=4))))
def test_no_sequence_of_entries_leads_out_of_the_tree(steps: list[tuple[str, list[bytes], list[bytes]]]) -> None:
    """Whatever is entered, every node is found under the root alone, and no name is one that means elsewhere."""
    tree = Tree(ROOMY, Below([]))
    for kind, parts, target in steps:
        path = b"/".join(parts)
        with suppress(ImageError):
            if kind == "h":
                tree.link(path, b"/".join(target))
            elif kind == "d":
                tree.put(path, directory())
            elif kind == "l":
                tree.put(path, Node(stat.S_IFLNK, content=b"/".join(target) or b"."))
            else:
                tree.put(path, Node(stat.S_IFREG, content=EMPTY))
    todo, seen = [tree.root], 0
    while todo:
        for name, node in todo.pop().entries.items():
            seen += 1
            assert name not in (b"", b".", b"..")
            assert b"/" not in name
            assert not name.startswith(b".wh.")
            assert len(name) <= 255
            if node.is_directory:
                todo.append(node)
        assert seen <= 50 * (len(steps) + 1)


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_bombs_are_found_by_their_ratio(kind: str) -> None:
    bomb = pressed(kind, bytes(64 << 20))
    bounds = replace(ROOMY, ratio_from=1 << 20, ratio=100)
    passed = 0
    with pytest.raises(ImageError, match="bomb"):
        for piece in compression.unpack(*compression.sniff(chunked(bomb)), bounds):
            assert len(piece) <= 1 << 20
            passed += len(piece)
    assert passed < 32 << 20


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2"])
def test_cut_streams_are_damaged(kind: str) -> None:
    data = pressed(kind, os.urandom(100_000))
    for cut in (data[:-1], data[: len(data) // 2], data[:20]):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            list(compression.unpack(kind, chunked(cut), ROOMY))


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_garbage_in_and_behind_a_stream_is_damage(kind: str) -> None:
    data = pressed(kind, os.urandom(100_000))
    # Of zstd a changed literal is not noticed here, but by the layer's digest.
    changed = [] if kind == "zstd" else [data[:30] + b"\xff" * 40 + data[70:]]
    for bad in (data + b"garbage" * 9, *changed):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            list(compression.unpack(kind, chunked(bad), ROOMY))


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_several_members_are_one_stream(kind: str) -> None:
    first, second = os.urandom(100_000), b"y" * 3_000_000
    data = pressed(kind, first) + pressed(kind, second) + (b"" if kind == "zstd" else bytes(100))
    for size in (1 << 20, 77):
        found, chunks = compression.sniff(chunked(data, size))
        assert found == kind
        assert b"".join(compression.unpack(found, chunks, ROOMY)) == first + second


def test_a_file_system_that_is_nearly_full_is_left_alone(tmp_path: Path) -> None:
    bounds = replace(ROOMY, keep_free=1 << 60)
    big = make_tar(entry("a", bytes(70 << 20)))
    with (tmp_path / "image").open("w+b") as file, pytest.raises(ImageError, match="free"):
        unpack(chunked(big), bounds=bounds, must_end=True, erofs=file.fileno())


def pressed(kind: str, data: bytes) -> bytes:
    """The same, compressed."""
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    return pack[kind](data)
