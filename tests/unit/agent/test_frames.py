"""The codec: what is written is read back, in any portions, and what breaks a rule is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.agent import frames
from bulkhead.agent.frames import (
    CREDIT,
    FROM_AGENT,
    MAX_DATA,
    MAX_PAYLOAD,
    TO_AGENT,
    Channel,
    Decoder,
    ExecRequest,
    Frame,
    Phase,
    ProtocolError,
    Start,
    Type,
    Window,
)
from bulkhead.agent.operations import Code, encode, mkdir, simple

EMPTY_LIST = struct.pack("<I", 0)


def header(**fields: int) -> bytes:
    """A frame's first 12 bytes: an empty OK but for the fields given."""
    usual = {"length": 0, "version": 1, "kind": 16, "channel": 0, "zero": 0, "stream": 1}
    return struct.pack("<IBBBBI", *{**usual, **fields}.values())


payloads = {Type.CREDIT: st.binary(min_size=4, max_size=4), Type.EXIT: st.binary(min_size=8, max_size=8)}
good_frames = st.sampled_from(sorted(FROM_AGENT)).flatmap(
    lambda kind: st.builds(
        Frame,
        type=st.just(kind),
        stream=st.integers(1, 2**32 - 1),
        payload=st.just(b"") if kind is Type.EOF else payloads.get(kind, st.binary(max_size=300)),
        channel=st.integers(0, 2) if kind in (Type.DATA, Type.EOF, Type.CREDIT) else st.just(0),
    )
)


@given(st.lists(good_frames, max_size=8), st.lists(st.integers(1, 64), min_size=1, max_size=8))
def test_frames_survive_any_portions(sent: list[Frame], portions: list[int]) -> None:
    data = b"".join(map(frames.encode, sent))
    decoder = Decoder()
    received: list[Frame] = []
    at = 0
    while at < len(data):
        size = portions[at % len(portions)]
        received += decoder.feed(data[at : at + size])
        at += size
    assert received == sent
    assert decoder.pending == 0


@given(st.binary(max_size=2000))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.feed(data):
            assert frame.type in FROM_AGENT
            assert len(frame.payload) <= MAX_PAYLOAD
    except ProtocolError:
        return
    assert decoder.pending <= len(data)


@pytest.mark.parametrize(
    "broken",
    [
        header(length=MAX_PAYLOAD + 1),
        header(length=2**32 - 1),
        header(length=MAX_DATA + 1, kind=Type.DATA),
        header(version=0),
        header(version=2),
        header(kind=0),
        header(kind=99),
        header(kind=Type.START),
        header(kind=Type.CLOSE),
        header(kind=Type.OK, channel=1),
        header(kind=Type.DATA, channel=3),
        header(zero=1),
        header(stream=0),
        header(kind=Type.EOF, length=1),
        header(kind=Type.CREDIT, length=3),
        header(kind=Type.EXIT, length=4),
    ],
)
def test_a_broken_rule_ends_the_connection(broken: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(broken)


def test_a_length_is_refused_before_its_bytes_come() -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match="too large"):
        decoder.feed(header(length=1 << 30))
    assert decoder.pending <= 12


def test_the_other_direction_has_its_own_types() -> None:
    assert Decoder(TO_AGENT).feed(frames.encode(Frame(Type.WATCH, 7))) == [Frame(Type.WATCH, 7)]
    with pytest.raises(ProtocolError):
        Decoder(TO_AGENT).feed(header(kind=Type.EXIT, length=8))


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ValueError, match="too large"):
        frames.encode(Frame(Type.DATA, 1, bytes(MAX_DATA + 1), Channel.STDIN))


def test_windows() -> None:
    window = Window()
    window.spend(CREDIT)
    with pytest.raises(ProtocolError):
        window.spend(1)
    window.refill(10)
    assert window.left == 10
    with pytest.raises(ProtocolError):
        window.refill(2**32 - 1)


def test_start_is_laid_out_as_in_the_protocol() -> None:
    start = Start(
        inside=(simple(Code.EXEC, "true"),),
        prepare=(mkdir("/x"),),
        flags=frames.StartFlag.TERMINAL | frames.StartFlag.STDIN,
        clone_flags=0x30000000,
        unshare_flags=0x20000,
        id_base=65536,
        id_count=65536,
        rows=24,
        columns=80,
        log_size=100,
        log_files=2,
        netns="/proc/self/fd/5",
        join=("/a/cgroup.procs", "/b/tasks"),
        kill="/a/cgroup.procs",
    )
    expected = struct.pack("<IIIIIHHII", 3, 0x30000000, 0x20000, 65536, 65536, 24, 80, 100, 2)
    expected += struct.pack("<I", 15) + b"/proc/self/fd/5"
    expected += struct.pack("<II", 2, 15) + b"/a/cgroup.procs" + struct.pack("<I", 8) + b"/b/tasks"
    expected += struct.pack("<I", 15) + b"/a/cgroup.procs"
    expected += encode(start.prepare) + EMPTY_LIST + encode(start.inside) + EMPTY_LIST
    assert frames.start_payload(start) == expected


def test_exec_is_laid_out_as_in_the_protocol() -> None:
    request = ExecRequest(inside=(simple(Code.EXEC, "ls", "-l"),), flags=frames.ExecFlag.STDIN, setns_flags=7, rows=1)
    expected = struct.pack("<IIHHI", 2, 7, 1, 0, 0) + encode(request.inside)
    assert frames.exec_payload(request) == expected


def test_answers() -> None:
    assert frames.parse_pid(struct.pack("<I", 77)) == 77
    with pytest.raises(ProtocolError):
        frames.parse_pid(b"123")
    failure = frames.parse_failure(struct.pack("<BBHII", 2, 0, 20, 3, 1) + b"text\x1b[31m")
    assert failure == frames.Failure(Phase.INSIDE, 20, 3, 1, "text?[31m")
    for broken in (b"", b"x" * 11, struct.pack("<BBHII", 9, 0, 0, 0, 0), struct.pack("<BBHII", 2, 0, 20, 0, 1 << 31)):
        with pytest.raises(ProtocolError):
            frames.parse_failure(broken)
    assert frames.parse_exit(struct.pack("<II", 3, 0)) == frames.Exit(3, 0)
    with pytest.raises(ProtocolError):
        frames.parse_exit(struct.pack("<II", 256, 0))
    assert frames.parse_credit(struct.pack("<I", 5)) == 5
