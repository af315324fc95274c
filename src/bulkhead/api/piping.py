"""A request whose body and answer are the two directions of a socket here, as they come."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

READ = 1 << 18
SILENCE_SECONDS = 900.0
"""After which one that carries nothing is given up."""
MEDIA_TYPE = "application/octet-stream"


class PipeResponse(Response):
    """Moves bytes between the client and `near` until either ends; `near` is closed then."""

    media_type = MEDIA_TYPE

    def __init__(self, near: socket.socket) -> None:
        super().__init__()
        self._near = near

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        self._near.setblocking(False)
        tasks: set[asyncio.Task[None]] = set()
        try:
            headers = [(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            tasks = {asyncio.ensure_future(self._inward(receive)), asyncio.ensure_future(self._outward(send))}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(OSError):
                self._near.shutdown(socket.SHUT_RDWR)
            self._near.close()
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _inward(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await receive()
            if message["type"] == "http.disconnect":
                return
            if body := message.get("body", b""):
                await loop.sock_sendall(self._near, body)
            if not message.get("more_body", False):
                break
        with suppress(OSError):
            self._near.shutdown(socket.SHUT_WR)
        # What it still has to say goes; the other task sees the end.
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _outward(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._near, READ):
            await send({"type": "http.response.body", "body": data, "more_body": True})
