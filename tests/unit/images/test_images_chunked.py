"""Layers in chunks: what they unpack to, what others find in them, what of one is taken from another."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.errors import ImageError
from bulkhead.images import Bounds, chunked, compression, patching, runs
from bulkhead.images.documents import Descriptor
from bulkhead.images.runs import Run
from tests.unit.images.lab import chunked as pieces_of
from tests.unit.images.lab import entry, folder, hardlink, make_tar, symlink
from tests.unit.images.oci import digest

BOUNDS = Bounds(keep_free=0)


def packed(tar: bytes, chunk: int = 1 << 20) -> tuple[bytes, dict[str, str]]:
    out = bytearray()
    made = chunked.write(pieces_of(tar, chunk), out.extend, BOUNDS)
    assert made.size == len(out)
    return bytes(out), made.annotations


def plain(blob: bytes) -> bytes:
    return b"".join(compression.unpack("zstd", [blob], BOUNDS))


def contents(blob: bytes, annotations: dict[str, str]) -> list[dict[str, object]]:
    at, size, whole, kind = map(int, annotations[chunked.POSITION].split(":"))
    data = blob[at : at + size]
    assert (digest(data), kind) == (annotations[chunked.CHECKSUM], 1)
    text = zstandard.ZstdDecompressor().decompress(data)
    assert len(text) == whole
    return list(json.loads(text)["entries"])


EVERYTHING = make_tar(
    folder("etc"),
    entry("etc/empty"),
    entry("etc/small", b"small", mode=0o4755, uid=7, gid=8, mtime=1_700_000_000),
    entry("big", random.Random(1).randbytes(2_500_000)),
    symlink("link", "etc/small"),
    hardlink("etc/same", "etc/small"),
    entry("n" * 200, b"long", pax={"SCHILY.xattr.user.a": "b"}),
    entry("dev", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
)


@pytest.mark.parametrize("chunk", [1 << 20, 777])
def test_the_tar_is_the_same_to_the_byte(chunk: int) -> None:
    blob, _ = packed(EVERYTHING, chunk)
    assert plain(blob) == EVERYTHING
    assert blob == packed(EVERYTHING)[0]


def test_the_contents_lead_to_every_files_bytes() -> None:
    blob, annotations = packed(EVERYTHING)
    entries = contents(blob, annotations)
    files = [found for found in entries if found["type"] == "reg" and found.get("size")]
    assert [found["name"] for found in files] == ["etc/small", "big", "n" * 200]
    for found in files:
        frames = blob[int(str(found["offset"])) : int(str(found["endOffset"]))]
        assert digest(plain(frames)) == found["digest"]
    small = next(found for found in entries if found["name"] == "etc/small")
    assert (small["mode"], small["uid"], small["gid"], small["modtime"]) == (0o4755, 7, 8, "2023-11-14T22:13:20Z")
    parts = [found for found in entries if found["name"] == "big"]
    assert [found["type"] for found in parts] == ["reg", "chunk", "chunk"]
    assert sum(int(str(found["chunkSize"])) for found in parts) == 2_500_000
    assert next(found for found in entries if found["type"] == "dir")["name"] == "etc/"


def test_the_footer_says_where_the_contents_are() -> None:
    blob, annotations = packed(EVERYTHING)
    offset, size, whole, kind, *_, magic = struct.unpack("<7Q8s", blob[-64:])
    assert annotations[chunked.POSITION] == f"{offset}:{size}:{whole}:{kind}"
    assert magic == b"GNUlInUx"


def test_a_tar_with_zeros_behind_its_end_and_a_sparse_file_is_kept(tmp_path: Path) -> None:
    tar = EVERYTHING + bytes(1 << 20)
    assert plain(packed(tar)[0]) == tar


def descriptor(blob: bytes, annotations: dict[str, str]) -> Descriptor:
    return Descriptor(digest=digest(blob), size=len(blob), annotations=annotations)


def rows(blob: bytes, annotations: dict[str, str]) -> list[Run]:
    place = runs.place_of(descriptor(blob, annotations))
    assert place
    return runs.parse(blob[place[0] : place[0] + place[1]], place[0] - runs.SKIP_HEAD)


def test_runs_cover_everything_before_their_table() -> None:
    blob, annotations = packed(EVERYTHING)
    found = rows(blob, annotations)
    assert found[0].offset == 0
    assert all(one.end == two.offset for one, two in itertools.pairwise(found))
    assert all(hashlib.sha256(blob[run.offset : run.end]).digest()[:16] == run.mark for run in found)
    place = runs.place_of(descriptor(blob, annotations))
    assert place
    assert found[-1].end == place[0] - runs.SKIP_HEAD


def test_a_file_in_the_middle_changes_few_runs() -> None:
    def version(number: int) -> bytes:
        chance = random.Random(3)
        files = [entry(f"f/{name}", chance.randbytes(9_000)) for name in range(600)]
        files[300] = entry("f/300", random.Random(number).randbytes(12_000))
        return make_tar(folder("f"), *files)

    one, two = packed(version(1)), packed(version(2))
    known = {run.mark for run in rows(*one)}
    new = [run for run in rows(*two) if run.mark not in known]
    assert sum(run.size for run in new) < len(two[0]) / 10


@pytest.mark.parametrize(
    "value", ["", "1", "a:b", "-1:8", "8:8:8", "0:8", "8:7", "8:9", "99999:8", "8:99999999999", "८:८", "9" * 40 + ":8"]
)
def test_a_table_that_cannot_be_is_none(value: str) -> None:
    assert runs.place_of(Descriptor(digest=digest(b""), size=1000, annotations={runs.RUNS: value})) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda table: b"x" + table[1:],
        lambda table: table[:8] + bytes(4) + table[12:],
        lambda table: table[:8] + b"\xff\xff\xff\xff" + table[12:],
    ],
)
def test_a_table_that_does_not_fit_is_refused(change: Callable[[bytes], bytes]) -> None:
    blob, annotations = packed(EVERYTHING)
    place = runs.place_of(descriptor(blob, annotations))
    assert place
    with pytest.raises(ImageError):
        runs.parse(change(blob[place[0] : place[0] + place[1]]), place[0] - runs.SKIP_HEAD)


@given(st.lists(st.tuples(st.integers(1, 100_000), st.booleans()), max_size=30), st.integers(0, 5000))
def test_a_plan_covers_the_blob_once_and_in_order(parts: list[tuple[int, bool]], more: int) -> None:
    wanted, known, at = [], {}, 0
    for number, (size, have) in enumerate(parts):
        run = Run(at, size, number.to_bytes(16, "big"))
        wanted.append(run)
        at += size
        if have:
            known[run.mark] = patching._Have(0, run)
    pieces = patching.plan(wanted, known, at + more)
    assert [piece.offset for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])][: len(pieces)]
    assert (pieces[-1].end if pieces else 0) == at + more
    assert all(piece.end > piece.offset for piece in pieces)
