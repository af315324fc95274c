"""What goes between two hosts: it arrives as it was, and nothing that is sent makes more of it than its head says."""

from __future__ import annotations

import hashlib
import io
import os
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bulkhead.engine.fleet import arriving as arrivals
from bulkhead.engine.fleet import copies, expecting, parcels
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.parcels import END, PORTION, Sender
from bulkhead.errors import Refused, Unavailable
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.moves import Inquiry, Parcel, Receipt, Shipment

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


@pytest.mark.parametrize("layer", ["../../../etc/passwd", "sha256:" + "0" * 63, "sha256:" + "0" * 64 + "\n", "a b"])
def test_a_layer_is_a_digest_and_no_path(layer: str) -> None:
    with pytest.raises(ValidationError):
        Parcel(move="b" * 32, instance=INSTANCE, ran=True, layers=(layer,), foreign=False, files={})  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Shipment(spec=INSTANCE["spec"], layers=(layer,), foreign=False, size=1, base=0, at=1.0)


def test_no_size_is_below_zero() -> None:
    with pytest.raises(ValidationError):
        parcel(disk_img=-1)


def arriving(**changes: Any) -> Parcel:
    spec = {**INSTANCE["spec"], **changes.pop("spec", {})}
    files = {"disk.img": 64 << 20, **changes.pop("files", {})}
    instance = {**INSTANCE, **changes, "spec": spec}
    return Parcel(move="b" * 32, instance=instance, ran=True, layers=(), foreign=False, files=files)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "running"}, "must have ended"),
        ({"pid": 1}, "must have ended"),
        ({"files": {"disk.img": (64 << 20) + 1}}, "larger than its plan"),
        ({"files": {f"log.{at}": 1 << 25 for at in range(33)}}, "bytes beside its disk"),
        ({"spec": {"mounts": [{"kind": "bind", "source": "/", "target": "/host"}]}}, "stays on its host"),
        ({"spec": {"secrets": [{"source": "key", "target": "/key"}]}}, "stays on its host"),
        ({"spec": {"inside": "c" * 32}}, "stays on its host"),
    ],
)
def test_what_no_host_sends(changes: dict[str, Any], why: str) -> None:
    arrivals._check(arriving())
    with pytest.raises(Refused, match=why):
        arrivals._check(arriving(**changes))


def test_a_log_that_is_sent_again_and_again_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expecting, "MOST_SMALL", 10)
    assert expecting._append(tmp_path / "log", io.BytesIO(b"x" * 6)) == 6
    with pytest.raises(Refused, match="more than 10 bytes"):
        expecting._append(tmp_path / "log", io.BytesIO(b"x" * 6))
    assert (tmp_path / "log").stat().st_size == 6


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 1 << 64 - 1), st.binary(max_size=40)), max_size=4),
    st.binary(),
)
def test_no_noise_makes_more_of_a_parcel(tmp_path_factory: pytest.TempPathFactory, frames: Any, noise: bytes) -> None:
    """Of frames that are nearly good, and of what is none at all."""
    sent = b"".join(frame(number % 3, at % 5000, data) for number, at, data in frames)
    for stream in (ended(sent), io.BytesIO(sent + noise), io.BytesIO(noise)):
        directory = tmp_path_factory.mktemp("noise")
        with suppress(Refused):
            parcels.receive(parcel(disk_img=4096, log=5), stream, directory)
        assert {path.name: path.stat().st_size for path in directory.iterdir()} == {"disk.img": 4096, "log": 5}


BLOCKS = hashlib.sha256(bytes([1]) * copies.BLOCK).digest() + copies.ZERO + hashlib.sha256(b"tail").digest()
SIZE = 2 * copies.BLOCK + 4


def block(index: int, data: bytes) -> bytes:
    return copies.FRAME.pack(index, len(data)) + data


GOOD = block(0, bytes([1]) * copies.BLOCK) + block(2, b"tail")
DONE = copies.FRAME.pack(copies.END, 0)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (GOOD, "ends in the middle"),
        (DONE, "2 blocks have not come"),
        (block(0, b"x") + DONE, "no such part"),
        (block(1, bytes(copies.BLOCK)) + DONE, "no such part"),
        (block(3, b"x") + DONE, "no such part"),
        (copies.FRAME.pack(2, 0xFFFFFFFF), "no such part"),
        (block(2, b"tail") + block(0, bytes([1]) * copies.BLOCK) + DONE, "no such part"),
        (block(0, bytes([2]) * copies.BLOCK) + DONE, "is not what was said to come"),
        (b"", "ends in the middle"),
    ],
)
def test_a_replica_is_what_its_digests_say_or_none(tmp_path: Path, sent: bytes, why: str) -> None:
    target = tmp_path / "disk.1.img"
    with pytest.raises(Refused, match=why):
        copies._apply(None, target, SIZE, BLOCKS, io.BytesIO(sent))
    assert target.stat().st_size == SIZE
    assert copies._apply(None, tmp_path / "good", SIZE, BLOCKS, io.BytesIO(GOOD + DONE)) == copies.BLOCK + 4


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"received": "1"}, {"digests": "#"}, {"digests": "A"}, {"number": True}]
)
def test_a_host_that_does_not_answer_as_one_is_unavailable(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"cores": 1, "ghz": None, "memory": 1, "kernel": "", "architecture": "", "version": ""}
    other = Host(id="c" * 32, name="beta", address="10.0.0.2:1", joined=0.0, machine=machine)  # type: ignore[arg-type]
    peer = Peer(other, ssl.create_default_context())
    monkeypatch.setattr(peers, "call", lambda *_, **__: answer)
    asked = [lambda: peer.judge(Inquiry(spec=INSTANCE["spec"], size=1)), lambda: peer.settle("a" * 32, "b" * 32)]
    asked += [lambda: peer.complete("a" * 32, "b" * 32, iter(())), lambda: peer.ship("a" * 32, iter(()))]
    for ask in [*asked, *([] if answer == {} else [lambda: peer.held("a" * 32)])]:
        with pytest.raises(Unavailable, match="host beta does not answer as a daemon does"):
            ask()


def test_a_head_is_bounded() -> None:
    with pytest.raises(Refused, match="does not begin with a line"):
        parcels.read_head(io.BytesIO(b"x" * (parcels.MOST_HEAD + 10)))


def test_measuring_leaves_nothing_and_wants_all_that_was_said(tmp_path: Path) -> None:
    parcels.measure(io.BytesIO(bytes(3 << 20)), 3 << 20, tmp_path)
    with pytest.raises(Refused, match="ends in the middle"):
        parcels.measure(io.BytesIO(bytes(100)), 200, tmp_path)
    assert list(tmp_path.iterdir()) == []
