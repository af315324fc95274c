"""Bytes both ways between a socket here and a route of another host's daemon, as they come: one request, one answer.

Both bodies are chunked and go on side by side (HTTP/1.1 over the hosts' TLS). What is in them is not looked at; it is
held by what the slower side takes. A link that carries nothing any more ends it within seconds.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from bulkhead.errors import BulkheadError, Unavailable, from_document
from bulkhead.host import peers
from bulkhead.host.peers import CONNECT_SECONDS

PORTION = 1 << 18
ANSWER_SECONDS = 30.0
"""In which the other host must say that it goes on."""
MOST_PROBLEM = 1 << 20
_CHUNK = re.compile(rb"[0-9a-fA-F]{1,8}\r\n")


class Rate:
    """At most so many bytes a second over all pipes that share it; None: as many as there are. Thread-safe."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._guard, self._free = limit, threading.Lock(), 0.0

    def take(self, count: int) -> float:
        """How many seconds to wait before so many bytes go."""
        if self._limit is None:
            return 0.0
        with self._guard:
            now = time.monotonic()
            begin = max(self._free, now)
            self._free = begin + count / self._limit
            return begin - now


class Pipe:
    """One, in a thread of its own from `start` to `close`. `sent`, `received`: bytes of the socket's.

    `near` is a connected socket, or one that listens: then the first that connects there is it.
    """

    def __init__(
        self, address: str, path: str, *, context: ssl.SSLContext, near: socket.socket, listens: bool, rate: Rate
    ) -> None:
        self._address, self._path, self._context = address, path, context
        self._near, self._listens, self._rate = near, listens, rate
        self.sent, self.received = 0, 0
        self._begun: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="pipe", daemon=True)

    def start(self) -> None:
        """Returns once the other host goes on. Raises its own error as it told it, Unavailable."""
        self._near.setblocking(False)
        self._thread.start()
        try:
            self._begun.result(CONNECT_SECONDS + ANSWER_SECONDS)
        except TimeoutError as error:
            raise Unavailable(f"the host at {self._address} does not take a stream") from error

    def close(self) -> None:
        """End it, whatever is on its way. The socket stays the caller's. Idempotent."""
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._task.cancel)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as error:
            if not self._begun.done():
                self._begun.set_exception(error if isinstance(error, BulkheadError) else _gone(self._address, error))

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        host, _, port = self._address.rpartition(":")
        name = host.strip("[]")
        opening = asyncio.open_connection(name, int(port), ssl=self._context, server_hostname=name)
        reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
        near: socket.socket | None = None
        try:
            peers.watch(writer.get_extra_info("socket"))
            writer.write(
                f"POST {self._path} HTTP/1.1\r\nhost: {self._address}\r\nconnection: close\r\n"
                "content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            )
            await asyncio.wait_for(_accepted(reader, self._address), ANSWER_SECONDS)
            self._begun.set_result(None)
            near = await self._accept()
            await self._carry(near, reader, writer)
        finally:
            if near is not None:
                with suppress(OSError):  # whoever has the other end sees an end, and no silence
                    near.shutdown(socket.SHUT_RDWR)
                if self._listens:
                    near.close()
            writer.transport.abort()

    async def _accept(self) -> socket.socket:
        if not self._listens:
            return self._near
        near, _ = await asyncio.get_running_loop().sock_accept(self._near)
        near.setblocking(False)
        return near

    async def _carry(self, near: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either side ends. What was sent before the end has gone."""
        up = asyncio.ensure_future(self._up(near, writer))
        down = asyncio.ensure_future(self._down(near, reader))
        try:
            done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up in done and up.exception() is None:
                await asyncio.wait({down}, timeout=ANSWER_SECONDS)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self, near: socket.socket, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(near, PORTION):
            if wait := self._rate.take(len(data)):
                await asyncio.sleep(wait)
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            self.sent += len(data)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _down(self, near: socket.socket, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        while size := _size(await reader.readuntil(b"\r\n")):
            left = size
            while left:
                data = await reader.read(min(left, PORTION))
                if not data:
                    raise ConnectionResetError("the other host has gone")
                await loop.sock_sendall(near, data)
                left -= len(data)
                self.received += len(data)
            await reader.readexactly(2)


def _size(line: bytes) -> int:
    """Of a chunk. Raises ValueError."""
    if not _CHUNK.fullmatch(line):
        raise ValueError(f"{line[:20]!r} is no size of a chunk")
    return int(line, 16)


async def _accepted(reader: asyncio.StreamReader, address: str) -> None:
    """Read the head of the answer. Raises what it tells where that is no good one."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, length = int(head.split(b" ", 2)[1]), 0
    for line in head.lower().splitlines():
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = min(int(value), MOST_PROBLEM)
    if status != 200:
        raise from_document(await reader.readexactly(length), status)
    if b"transfer-encoding: chunked" not in head.lower():
        raise Unavailable(f"the host at {address} does not answer as a daemon does")


def _gone(address: str, error: BaseException) -> Unavailable:
    return Unavailable(f"the host at {address} does not answer: {error}", hint="see: bulkhead cluster status")
