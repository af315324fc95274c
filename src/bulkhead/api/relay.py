"""Moving frames between one HTTP request and one agent, both ways at once, every frame checked in both directions.

The request's body is frames (docs/reference/http-api.md): REQUEST with the JSON request, then stdin. The answer's body
is frames too: RESPONSE, output, EXIT or PROBLEM. Credit passes through, so no more than it is ever held here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Send

from bulkhead.agent.frames import (
    VERSION,
    Channel,
    Decoder,
    Exit,
    Frame,
    ProtocolError,
    Type,
    encode,
    parse_exit,
)
from bulkhead.errors import BulkheadError, Refused, Unavailable

MEDIA_TYPE = "application/vnd.bulkhead.frames"
REQUEST, RESPONSE, PROBLEM = 64, 65, 66
"""Types of frames between a client and the API; agents never see them."""
STREAM = 1
MAX_REQUEST = 1 << 20
MAX_SIGNAL = 64
OPEN_SECONDS = 30.0
READ_SIZE = 1 << 17
FROM_CLIENT = frozenset({Type.DATA, Type.EOF, Type.CREDIT, Type.RESIZE, Type.SIGNAL, Type.CLOSE})
TO_CLIENT = frozenset({Type.DATA, Type.CREDIT, Type.EXIT})
Ended = Callable[[Exit | None], Awaitable[Exit]]
Signalled = Callable[[int], Awaitable[None]]
_HEADER = struct.Struct("<IBBBBI")
_PAYLOADS = {Type.RESIZE: 4, Type.SIGNAL: 8}


def api_frame(kind: int, payload: bytes) -> bytes:
    """A frame of one of the API's own types."""
    return _HEADER.pack(len(payload), VERSION, kind, 0, 0, STREAM) + payload


class Client:
    """What a client sends: its request, then frames if it speaks them (`framed`)."""

    def __init__(self, receive: Receive, *, framed: bool) -> None:
        self.framed = framed
        self._receive = receive
        self._decoder = Decoder(FROM_CLIENT)
        self._waiting: list[Frame] = []
        self._ended = False

    async def request(self) -> bytes:
        """The JSON request. Raises Refused when there is none, or when it is too large."""
        body = bytearray()
        while not self._ended:
            chunk = await self._chunk()
            if chunk is None:
                break
            body += chunk
            if self.framed and len(body) >= _HEADER.size:
                size = _HEADER.size + self._check_request(bytes(body[: _HEADER.size]))
                if len(body) >= size:
                    self._waiting = self._decode(bytes(body[size:]))
                    return bytes(body[_HEADER.size : size])
            elif not self.framed and len(body) > MAX_REQUEST:
                raise Refused(f"the request is larger than {MAX_REQUEST} bytes")
        if self.framed or not self._ended:
            raise Refused("the request ended before it was whole", hint="see docs/reference/http-api.md")
        return bytes(body)

    async def frames(self) -> list[Frame] | None:
        """The next frames, checked; None when the client has gone. Without any it waits for that."""
        if self._waiting:
            frames, self._waiting = self._waiting, []
            return frames
        while (chunk := await self._chunk()) is not None:
            if frames := self._decode(chunk):
                return frames
        return None

    async def _chunk(self) -> bytes | None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            return None
        self._ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    def _check_request(self, header: bytes) -> int:
        length, version, kind, channel, zero, stream = _HEADER.unpack(header)
        if (version, kind, channel, zero, stream) != (VERSION, REQUEST, 0, 0, STREAM) or length > MAX_REQUEST:
            raise Refused("the request does not begin with a REQUEST frame", hint="see docs/reference/http-api.md")
        return int(length)

    def _decode(self, data: bytes) -> list[Frame]:
        try:
            frames = self._decoder.feed(data)
        except ProtocolError as error:
            raise _broken() from error
        for frame in frames:
            _check(frame)
        return frames


def _check(frame: Frame) -> None:
    """Raise Refused for a frame that an agent would end the connection for, or that is not a client's business."""
    channels: tuple[int, ...] = (Channel.STDIN,)
    if frame.type is Type.CREDIT:
        channels = (Channel.STDOUT, Channel.STDERR)
    size = _PAYLOADS.get(frame.type, len(frame.payload))
    if frame.stream != STREAM or frame.channel not in channels or len(frame.payload) != size:
        raise _broken()
    if frame.type is Type.SIGNAL:
        number, flags = struct.unpack("<II", frame.payload)
        if not 1 <= number <= MAX_SIGNAL or flags:
            raise Refused(f"signal {number} with flags {flags} cannot be sent", hint="signals are 1 to 64, flags 0")


def _broken() -> Refused:
    return Refused("the frames of the request break the protocol", hint="see docs/reference/http-api.md")


class Answer:
    """The response, begun with the first frame: until then an error can still become an ordinary problem."""

    def __init__(self, send: Send, *, last: bool) -> None:
        self._send = send
        self._last = last
        """No other request can follow on the connection: the body of this one has no end of its own."""
        self.begun = False

    async def begin(self, response: bytes) -> None:
        """Status 200 and RESPONSE."""
        self.begun = True
        headers = [(b"content-type", MEDIA_TYPE.encode()), *([(b"connection", b"close")] if self._last else [])]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.write(api_frame(RESPONSE, response))

    async def write(self, data: bytes) -> None:
        """Frames, made ready. Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last frames, and nothing more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


class Agent:
    """The connection to an agent on which one stream was opened; from now on the event loop's.

    Not an asyncio transport: that gives up what it has not read yet when a write fails, and an agent that ends does
    not wait for our last credit before it closes. EXIT would be lost.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._waiting: list[Frame] = []

    async def opened(self) -> Frame:
        """The OK or ERROR to the request that opened the stream."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await self._opened()
        except TimeoutError as error:
            raise Unavailable(f"the agent did not answer within {OPEN_SECONDS:g} s") from error

    async def _opened(self) -> Frame:
        while (frames := await self.frames()) is not None:
            for index, frame in enumerate(frames):
                if frame.stream == STREAM and frame.type in (Type.OK, Type.ERROR):
                    self._waiting = frames[index + 1 :]
                    return frame
        raise Unavailable("the agent closed the connection instead of answering")

    async def frames(self) -> list[Frame] | None:
        """The next frames; None at the end of the connection. Raises ProtocolError."""
        if self._waiting:
            frames, self._waiting = self._waiting, []
            return frames
        try:
            while data := await self._loop.sock_recv(self._socket, READ_SIZE):
                if frames := self._decoder.feed(data):
                    return frames
        except ConnectionError:
            pass  # it closed without having read all: as good an end as any
        return None

    async def write(self, data: bytes) -> None:
        """Frames, made ready. Waits while the agent does not read; an agent that has gone shows in `frames`."""
        with suppress(ConnectionError):
            await self._loop.sock_sendall(self._socket, data)

    def close(self) -> None:
        """Give the connection up: what is attached detaches."""
        self._socket.close()


async def pump(
    client: Client,
    answer: Answer,
    agent: Agent,
    *,
    signalled: Signalled | None,
    stopping: asyncio.Event,
    ended: Ended,
) -> None:
    """Move frames until the stream ends, the client goes or closes it, or the daemon stops; ends the answer.

    `signalled(number)` is told of signals, which go to the stream's exec where it is None. `ended(exit)` is awaited
    before EXIT is passed on, with None when the agent went without telling; it gives what the client is told or raises.
    """
    inward = asyncio.ensure_future(_inward(client, agent, signalled))
    outward = asyncio.ensure_future(_outward(client, answer, agent, ended))
    stop = asyncio.ensure_future(stopping.wait())
    tasks: set[asyncio.Future[Any]] = {inward, outward, stop}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if outward in done:
            await answer.end(outward.result())
        elif inward in done:
            inward.result()
            await answer.end()
        else:
            raise Unavailable("the daemon stops; the instance runs on", hint="bulkhead attach, once it is back")
    finally:
        for task in tasks:
            task.cancel()
        # They hold the agent's socket, which may be closed only now.
        await asyncio.wait(tasks)


async def _inward(client: Client, agent: Agent, signalled: Signalled | None) -> None:
    while (frames := await client.frames()) is not None:
        for frame in frames:
            if frame.type is Type.SIGNAL and signalled:
                await signalled(int.from_bytes(frame.payload[:4], "little"))
                continue
            await agent.write(encode(Frame(frame.type, STREAM, frame.payload, frame.channel)))
            if frame.type is Type.CLOSE:
                return


async def _outward(client: Client, answer: Answer, agent: Agent, ended: Ended) -> bytes:
    """Pass output on; the EXIT frame that ends it."""
    while (frames := await agent.frames()) is not None:
        output, credit = bytearray(), bytearray()
        for frame in frames:
            if frame.stream != STREAM or frame.type not in TO_CLIENT:
                continue
            if frame.type is Type.EXIT:
                if output:
                    await answer.write(bytes(output))
                return _exit_frame(await ended(parse_exit(frame.payload)))
            output += encode(frame)
            if frame.type is Type.DATA and not client.framed:
                credit += encode(Frame(Type.CREDIT, STREAM, struct.pack("<I", len(frame.payload)), frame.channel))
        if output:
            await answer.write(bytes(output))
        if credit:
            await agent.write(bytes(credit))
    return _exit_frame(await ended(None))


def _exit_frame(how: Exit) -> bytes:
    return encode(Frame(Type.EXIT, STREAM, struct.pack("<II", how.code, how.signal)))


async def tell(answer: Answer, error: BulkheadError, problem: bytes) -> None:
    """Pass an error on: as a problem answer before the first frame, as a PROBLEM frame after it."""
    if not answer.begun:
        raise error
    await answer.write(api_frame(PROBLEM, problem))
    await answer.end()
