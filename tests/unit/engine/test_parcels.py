"""What goes between two hosts: it arrives as it was, and nothing that is sent makes more of it than its head says."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bulkhead.engine.fleet import parcels
from bulkhead.engine.fleet.parcels import END, PORTION, Sender
from bulkhead.errors import Refused
from bulkhead.moves import Parcel, Receipt

INSTANCE: dict[str, Any] = {
    "spec": {
        "id": "a" * 32,
        "name": "one",
        "image": "box",
        "image_digest": "sha256:0",
        "isolation": "container",
        "plan": {"memory": 64 << 20, "cpus": 1.0, "disk": 64 << 20},
        "argv": ["sh"],
        "hostname": "one",
        "network": "none",
        "created": 1.0,
    },
    "state": "exited",
}


def parcel(**files: int) -> Parcel:
    named = {name.replace("_", "."): size for name, size in files.items()}
    return Parcel(move="b" * 32, instance=INSTANCE, ran=True, layers=(), foreign=False, files=named)  # type: ignore[arg-type]


def frame(number: int, at: int, data: bytes) -> bytes:
    return struct.pack(">BQI", number, at, len(data)) + data


def ended(frames: bytes) -> io.BytesIO:
    return io.BytesIO(frames + frame(END, 0, hashlib.sha256(frames).digest()))


def received(about: Parcel, stream: io.BytesIO, directory: Path) -> Receipt:
    directory.mkdir()
    return parcels.receive(about, stream, directory)


def test_files_arrive_as_they_were_and_holes_stay_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "disk.img").open("wb") as file:
        os.truncate(file.fileno(), 64 << 20)
        os.pwrite(file.fileno(), os.urandom(3 << 20), 5 << 20)
        os.pwrite(file.fileno(), b"end", (64 << 20) - 3)
    (source / "log").write_bytes(b"line\n")
    about, told = parcel(disk_img=64 << 20, log=5), list[int]()
    sender = Sender(about, source, told=told.append, rate=None)
    stream = io.BytesIO(b"".join(sender))
    assert Parcel.model_validate_json(parcels.read_head(stream)) == about
    receipt = received(about, stream, tmp_path / "target")
    assert (receipt.received, receipt.digest) == (sender.sent, sender.digest)
    assert told == sorted(told)
    for name in about.files:
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()
    assert stream.getbuffer().nbytes < 5 << 20
    assert (tmp_path / "target" / "disk.img").stat().st_blocks * 512 < 6 << 20


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (frame(1, 0, b"x"), "no such part"),
        (frame(0, 4095, b"xx"), "more bytes"),
        (frame(0, 1 << 63, b"x"), "more bytes"),
        (frame(0, 10, b"x") + frame(0, 10, b"y"), "no such part"),
        (struct.pack(">BQI", 0, 0, PORTION + 1), "no such part"),
    ],
)
def test_a_parcel_has_no_more_than_its_head_says(tmp_path: Path, frames: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        received(parcel(disk_img=4096), ended(frames), tmp_path / "target")


def test_what_was_changed_or_cut_off_on_the_way_is_found(tmp_path: Path) -> None:
    good = ended(frame(0, 0, b"data")).getvalue()
    changed = good.replace(b"data", b"date")
    with pytest.raises(Refused, match="digest"):
        received(parcel(disk_img=4096), io.BytesIO(changed), tmp_path / "changed")
    for length in (5, 14, len(good) - 1, 0):
        with pytest.raises(Refused, match="ends in the middle"):
            received(parcel(disk_img=4096), io.BytesIO(good[:length]), tmp_path / f"cut{length}")


@pytest.mark.parametrize("name", ["../disk_img", "spec.json", "parcel.json", "log.1/x", "disk.img\n", "leaving.json"])
def test_a_parcel_brings_no_other_files(name: str) -> None:
    with pytest.raises(ValidationError):
        parcel(**{name: 1})


def test_a_head_is_bounded() -> None:
    with pytest.raises(Refused, match="does not begin with a line"):
        parcels.read_head(io.BytesIO(b"x" * (parcels.MOST_HEAD + 10)))


def test_measuring_leaves_nothing_and_wants_all_that_was_said(tmp_path: Path) -> None:
    parcels.measure(io.BytesIO(bytes(3 << 20)), 3 << 20, tmp_path)
    with pytest.raises(Refused, match="ends in the middle"):
        parcels.measure(io.BytesIO(bytes(100)), 200, tmp_path)
    assert list(tmp_path.iterdir()) == []
