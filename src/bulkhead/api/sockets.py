"""The same streams over a WebSocket, for browsers: a binary message in each direction holds frames.

A browser cannot send a body while it reads the answer's, which attach and exec do. So the frames of an HTTP stream's
bodies travel in messages, split as the sender likes, and everything else is streams.py's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import APIRouter, WebSocket
from starlette.responses import Response
from starlette.types import Message

from bulkhead.api import problems
from bulkhead.api.browsers import TERMINAL
from bulkhead.api.relay import PROBLEM, Answer, Client, api_frame
from bulkhead.api.service import service_of
from bulkhead.api.streams import Session, attach_to, exec_in
from bulkhead.errors import BulkheadError

router = APIRouter(prefix="/v1", tags=["streams"])


@router.websocket("/instances/{ref}/exec")
async def exec_command(websocket: WebSocket, ref: str) -> None:
    """Run a command beside the workload."""
    await _serve(websocket, lambda session: exec_in(session, ref))


@router.websocket("/instances/{ref}/attach")
async def attach(websocket: WebSocket, ref: str) -> None:
    """Join the workload's stdin and output."""
    await _serve(websocket, lambda session: attach_to(session, ref))


class Transport:
    """A WebSocket that looks like an HTTP request with its answer."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._gone = False

    async def receive(self) -> Message:
        """The next message as a part of a request's body."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._gone = True
            return {"type": "http.disconnect"}
        data = message.get("bytes")
        # Text is nothing that a frame could begin with: the relay says so.
        body = data if data is not None else message.get("text", "").encode()
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(self, message: Message) -> None:
        """A part of an answer's body as a message. A client that has gone shows in `receive`."""
        body = message.get("body", b"")
        if not body or self._gone:
            return
        with suppress(OSError):
            await self._websocket.send({"type": "websocket.send", "bytes": body})

    async def close(self) -> None:
        """End it in order."""
        if not self._gone:
            with suppress(OSError):
                await self._websocket.close()


class _SocketSession(Session):
    """One such WebSocket while it is served."""

    async def reply(self, response: Response) -> None:
        """There are no ordinary answers here: what they hold is the RESPONSE, and nothing follows."""
        await self.answer.begin(bytes(response.body))
        await self.answer.end()


async def _serve(websocket: WebSocket, work: Callable[[Session], Awaitable[None]]) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol=TERMINAL if TERMINAL in offered else None)
    transport = Transport(websocket)
    answer = Answer(transport.send, last=True)
    client = Client(transport.receive, framed=True)
    asgi = (websocket.scope, transport.receive, transport.send)
    try:
        await work(_SocketSession(service_of(websocket), client, answer, asgi))
    except BulkheadError as error:
        await answer.write(api_frame(PROBLEM, problems.encode(error)))
    finally:
        await transport.close()
