"""What a client's bytes can and cannot become on their way to an agent."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from bulkhead.agent.frames import Frame, Type, encode
from bulkhead.api.relay import FROM_CLIENT, MAX_REQUEST, REQUEST, STREAM, Client, api_frame
from bulkhead.errors import Refused

FRAMES = st.builds(
    Frame,
    type=st.sampled_from(list(Type)),
    stream=st.sampled_from([1, 1, 1, 2, 0xFFFFFFFF]),
    payload=st.binary(max_size=12) | st.integers(0, 70).map(lambda number: struct.pack("<II", number, 0)),
    channel=st.sampled_from([0, 0, 1, 2, 3]),
)


def client(portions: list[bytes], *, framed: bool = True) -> Client:
    """A client whose body comes in these portions and which then disconnects."""
    messages: list[Message] = [{"type": "http.request", "body": portion, "more_body": True} for portion in portions]
    messages[-1:] = [{**messages[-1], "more_body": False}] if messages else []
    messages.append({"type": "http.disconnect"})

    async def receive() -> Message:
        return messages.pop(0)

    return Client(receive, framed=framed)


async def everything(source: Client) -> tuple[bytes, list[Frame]]:
    """The request and all frames that follow."""
    request, found = await source.request(), []
    while (frames := await source.frames()) is not None:
        found += frames
    return request, found


def allowed(frame: Frame) -> bool:
    """What may go on to an agent, said once more."""
    match frame.type:
        case Type.DATA | Type.EOF:
            fits = frame.channel == 0 and (frame.type is Type.DATA or not frame.payload)
        case Type.CREDIT:
            fits = frame.channel in (1, 2) and len(frame.payload) == 4
        case Type.RESIZE:
            fits = frame.channel == 0 and len(frame.payload) == 4
        case Type.SIGNAL:
            fits = frame.channel == 0 and len(frame.payload) == 8
            fits = fits and 1 <= struct.unpack("<II", frame.payload)[0] <= 64 and frame.payload[4:] == bytes(4)
        case Type.CLOSE:
            fits = frame.channel == 0 and not frame.payload
        case _:
            fits = False
    return fits and frame.stream == STREAM


@settings(deadline=None)
@given(frames=st.lists(FRAMES, max_size=6), cut=st.integers(1, 40))
def test_exactly_what_is_allowed_goes_on(frames: list[Frame], cut: int) -> None:
    body = api_frame(REQUEST, b"{}") + b"".join(map(encode, frames))
    portions = [body[start : start + cut] for start in range(0, len(body), cut)]
    if all(map(allowed, frames)):
        assert asyncio.run(everything(client(portions))) == (b"{}", frames)
    else:
        with pytest.raises(Refused):
            asyncio.run(everything(client(portions)))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_noise_is_refused_or_nothing(portions: list[bytes]) -> None:
    try:
        _, frames = asyncio.run(everything(client(portions)))
    except Refused:
        return
    assert all(map(allowed, frames))
    assert {frame.type for frame in frames} <= FROM_CLIENT


def test_requests_are_bounded() -> None:
    with pytest.raises(Refused, match="larger than"):
        asyncio.run(client([b"x" * 70_000] * 20, framed=False).request())
    with pytest.raises(Refused, match="REQUEST"):
        asyncio.run(client([struct.pack("<IBBBBI", MAX_REQUEST + 1, 1, REQUEST, 0, 0, 1)]).request())
    assert asyncio.run(client([b"{", b"}"], framed=False).request()) == b"{}"
    with pytest.raises(Refused, match="whole"):
        asyncio.run(client([], framed=False).request())
