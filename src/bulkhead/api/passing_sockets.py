"""Passing a browser's terminal on: a WebSocket here, the stream that it stands for at the host of the instance."""

from __future__ import annotations

import ssl

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from bulkhead.api import problems
from bulkhead.api.auth import KEY
from bulkhead.api.browsers import TERMINAL
from bulkhead.api.passing import pass_on
from bulkhead.api.relay import MEDIA_TYPE, PROBLEM, api_frame
from bulkhead.api.sockets import Transport
from bulkhead.errors import BulkheadError
from bulkhead.tenancy.passing import HEADER, encode


async def pass_on_socket(scope: Scope, receive: Receive, send: Send, *, address: str, context: ssl.SSLContext) -> None:
    """Serve a WebSocket by the HTTP stream of the same path at another host."""
    websocket = WebSocket(scope, receive, send)
    await websocket.accept(subprotocol=TERMINAL if TERMINAL in scope["subprotocols"] else None)
    transport = Transport(websocket)
    answer = _Answer(transport)
    kind = MEDIA_TYPE.encode()
    asked = {**scope, "type": "http", "method": "POST", "headers": [(b"content-type", kind), (b"accept", kind)]}
    headers = [(HEADER.encode(), encode(scope[KEY]).encode())]
    try:
        await pass_on(
            asked,
            transport.receive,
            answer.send,
            address=address,
            context=context,
            target=scope["raw_path"],
            headers=headers,
        )
    except BulkheadError as error:
        await answer.problem(problems.encode(error))
    finally:
        await transport.close()


class _Answer:
    """The other host's answer as messages. What it refuses is a document there, and a frame here."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._refused: bytearray | None = None

    async def send(self, message: Message) -> None:
        """A part of the answer."""
        if message["type"] == "http.response.start":
            self._refused = bytearray() if message["status"] >= 400 else None
            return
        if self._refused is None:
            await self._transport.send(message)
            return
        self._refused += message.get("body", b"")
        if not message.get("more_body", False):
            await self.problem(bytes(self._refused))

    async def problem(self, document: bytes) -> None:
        """The last message."""
        await self._transport.send({"type": "http.response.body", "body": api_frame(PROBLEM, document)})
