"""HTTP and WebSockets on one connection: uvicorn's, bounded, and with what the connection says of its other end."""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from asyncio.transports import BaseTransport
from collections import Counter
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from bulkhead.api import problems
from bulkhead.api.auth import PEER
from bulkhead.api.lasting import CUT
from bulkhead.errors import Refused
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.roles import Role

MOST_HEAD = 64 << 10
"""Bytes of a request's line and headers."""
HEAD_SECONDS = 20.0
"""In which a connection has to bring a request's head: its first, or the rest of one that has begun."""
MOST_OF_ADDRESS = 128
"""Connections of one address over TCP at the same time."""
MAX_MESSAGE = 1 << 21
"""Bytes of a WebSocket's message: the largest frame, and some more."""
CERTIFICATE = "bulkhead.certificate"
"""In a scope: the common name of the client certificate that was verified, "" where there is none."""
_PEER = struct.Struct("3i")
_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large", 429: b"Too Many Requests"}
_open: Counter[str] = Counter()
"""Connections by address. Changed in the event loop alone."""


class Wire(HttpToolsProtocol):
    """uvicorn's, that answers what is no HTTP as everything else is answered."""

    _head = 0
    _late: asyncio.TimerHandle | None = None
    _address = ""
    _about: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See who it is, and wait for a request for so long."""
        super().connection_made(transport)
        self._about = _about(transport)
        if PEER not in self._about and self.client:
            self._address = self.client[0]
            _open[self._address] += 1
            if _open[self._address] > MOST_OF_ADDRESS:
                self._refuse(429, f"{MOST_OF_ADDRESS} connections of {self._address} are open already")
                return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._arrived()
        self._forget()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; what comes of it is not told here."""
        self._forget()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """A request begins; its head has to come soon."""
        super().on_message_begin()
        self._head = 0
        self.scope.update(self._about)  # type: ignore[typeddict-item]
        self._wait()

    def on_url(self, url: bytes) -> None:
        """Part of the request's line."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._arrived()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Tell the client, and close the connection."""
        self._refuse(400, f"the request is not HTTP/1.1: {msg}")

    def _forget(self) -> None:
        address, self._address = self._address, ""
        if address:
            _open[address] -= 1
            if _open[address] <= 0:
                del _open[address]

    def _count(self, length: int) -> None:
        self._head += length
        if self._head > MOST_HEAD and not self.transport.is_closing():
            self._refuse(431, f"the request's head has more than {MOST_HEAD} bytes")

    def _wait(self) -> None:
        self._arrived()
        if not self._address:
            return  # who has the unix socket may take its time
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _arrived(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: int, what: str) -> None:
        error = Refused(what, hint="see docs/reference/http-api.md")
        body = problems.encode(error, status=status)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, _REASONS[status], problems.MEDIA_TYPE.encode(), len(body), body)
        )
        self.transport.close()


class SocketWire(WebSocketsSansIOProtocol):
    """uvicorn's. A connection that has become a WebSocket is still of whom it was."""

    _about: dict[str, Any]

    def connection_made(self, transport: BaseTransport) -> None:
        """See who it is."""
        super().connection_made(transport)
        self._about = _about(cast(asyncio.Transport, transport))

    async def run_asgi(self) -> None:
        """Serve it, and say who it is."""
        self.scope.update(self._about)  # type: ignore[typeddict-item]
        await super().run_asgi()


def _about(transport: asyncio.Transport) -> dict[str, Any]:
    """What a connection says of its other end."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_UNIX:
        pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        return {PEER: Principal(_user(uid), Role.ADMIN, source=f"unix socket, uid {uid}, pid {pid}")}
    certificate = transport.get_extra_info("peercert")
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    return {CERTIFICATE: names[0] if len(names) == 1 else "", CUT: transport.abort}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
