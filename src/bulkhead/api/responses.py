"""Answers: JSON straight from the serializer, and streams that a thread of the engine's writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from typing import Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bulkhead.api import problems
from bulkhead.api.service import Service
from bulkhead.errors import BulkheadError

NDJSON = "application/x-ndjson"
TAR = "application/x-tar"
HEAD_SECONDS = 0.05
HIGH_WATER = 1 << 20
"""Bytes that may wait for a slow client before the thread that writes them is held up."""


def json_response(value: object, status: int = 200) -> Response:
    """Any model, dataclass, mapping or list of them as JSON, without a detour over dicts."""
    return Response(to_json(value), status_code=status, media_type="application/json")


class Pipe:
    """Bytes from one thread to the event loop, bounded. Made in the loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._buffer = bytearray()
        self._ended = False
        self._error: BaseException | None = None
        self._gone = False

    def alive(self) -> bool:
        """Whether anybody still listens."""
        return not self._gone and not self._service.stopping.is_set()

    def write(self, data: bytes) -> None:
        """From the thread: hand over bytes. Raises BrokenPipeError when nobody listens any more."""
        with self._changed:
            while len(self._buffer) >= HIGH_WATER and self.alive():
                self._changed.wait(1.0)
            if not self.alive():
                raise BrokenPipeError
            empty = not self._buffer
            self._buffer += data
        if empty:
            self._loop.call_soon_threadsafe(self._ready.set)

    def run(self, produce: Callable[[Pipe], None]) -> None:
        """From the thread: produce everything, then say that it is all, or what went wrong."""
        try:
            produce(self)
        except BrokenPipeError:
            pass
        except BaseException as error:
            self._error = error
        self._ended = True
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._ready.set)

    async def read(self) -> bytes:
        """From the loop: what is there; b"" at the end. Raises what went wrong after all else was read."""
        while True:
            self._ready.clear()
            ended = self._ended
            with self._changed:
                data, self._buffer = bytes(self._buffer), bytearray()
                self._changed.notify()
            if data:
                return data
            if ended:
                if self._error:
                    raise self._error
                return b""
            await self._ready.wait()

    def close(self) -> None:
        """From the loop: nobody reads any more."""
        self._gone = True
        with self._changed:
            self._changed.notify()


class ThreadResponse(Response):
    """A streamed answer that `produce(pipe)` writes in a thread of its own.

    Errors before the answer has begun become an ordinary problem answer. Later ones become what `late(error)` makes
    of them, a last line of NDJSON for example; without `late` the connection is cut, so that the client notices.
    """

    def __init__(
        self,
        service: Service,
        produce: Callable[[Pipe], None],
        *,
        media_type: str,
        late: Callable[[BulkheadError], bytes] | None = None,
        upload: Upload | None = None,
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._service, self._produce, self._late = service, produce, late
        self._upload = upload
        """The request's body, where the thread reads it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        pipe = Pipe(self._service)
        self._service.begin_long(pipe.run, self._produce)
        sender = asyncio.ensure_future(self._send_all(pipe, send))
        watcher = asyncio.ensure_future(self._disconnected(receive))
        try:
            await asyncio.wait({sender, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
        finally:
            pipe.close()
            sender.cancel()
            watcher.cancel()

    async def _disconnected(self, receive: Receive) -> None:
        """Until its body has been read, the thread is told itself when the client goes."""
        if self._upload:
            await self._upload.ended.wait()
        await disconnected(receive)

    async def _send_all(self, pipe: Pipe, send: Send) -> None:
        # A client that follows something quiet does not wait for the answer's head. Where an error could not be told
        # after it, the head waits for the first byte.
        first = asyncio.ensure_future(pipe.read())
        begun = False
        try:
            await asyncio.wait({first}, timeout=HEAD_SECONDS if self._late else None)
            if first.done():
                first.result()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            begun = True
            data = await first
            while data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                data = await pipe.read()
        except BulkheadError as error:
            if not begun or self._late is None:
                raise
            await send({"type": "http.response.body", "body": self._late(error), "more_body": True})
        finally:
            first.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection. Drops what it still sends."""
    while (await receive())["type"] != "http.disconnect":
        pass


def problem_line(error: BulkheadError) -> bytes:
    """An error that comes in the middle of NDJSON."""
    return b'{"problem":' + problems.encode(error) + b"}\n"


class Upload(RawIOBase):
    """A request's body as a file that a thread reads forwards; reading waits for the client, at most `patience` s."""

    def __init__(self, request: Request, *, patience: float | None = None) -> None:
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._chunks = request.stream()
        self._rest = b""
        self.ended = asyncio.Event()
        """Nothing more will be read from the request."""

    def _portion(self) -> bytes:
        """What has arrived, at least a byte; b"" at the end. Raises BrokenPipeError when the client has gone."""
        coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        try:
            return coming.result(self._patience)
        except TimeoutError:
            coming.cancel()
            raise BrokenPipeError(f"the client has sent nothing for {self._patience:g} s") from None

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what has arrived; 0 at the end."""
        self._rest = self._rest or self._portion()
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes:
        try:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        except ClientDisconnect:
            raise BrokenPipeError("the client has gone") from None
        self.ended.set()
        return b""
