"""Passing a request on to another host's daemon, byte by byte in both directions.

Terminals are one request whose body and answer go on side by side, so both are moved as they come.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import h11
from starlette.types import Receive, Scope, Send

from bulkhead.errors import Unavailable
from bulkhead.tenancy.passing import HEADER as PRINCIPAL

CONNECT_SECONDS = 10.0
PLACE = b"bulkhead-place"
"""Header with the id of the instance whose place is reserved; believed of a host alone."""
_READ = 1 << 16
_OWN = frozenset({b"host", b"connection", b"transfer-encoding", b"authorization", b"upgrade", b"keep-alive", b"te"})
_OWN |= {PRINCIPAL.encode(), PLACE}
"""Headers of one connection, of one host, or believed of hosts alone: they are not passed on."""


class Unreachable(Unavailable):
    """There is no connection: nothing was asked."""


@asynccontextmanager
async def connected(
    address: str, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TLS connection to IP:PORT. Raises Unreachable."""
    host, _, port = address.rpartition(":")
    opening = asyncio.open_connection(host.strip("[]"), int(port), ssl=context, server_hostname=host.strip("[]"))
    try:
        reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        what = f"the host at {address}, which has it, does not answer: {error or 'too late'}"
        raise Unreachable(what, hint="see: bulkhead cluster status") from error
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def pass_on(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    address: str,
    context: ssl.SSLContext,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
) -> None:
    """Ask the daemon at `address` for `target` what `scope` asks for here, and answer as it answers.

    `headers` go with it in place of those of the same name. Raises Unavailable before anything is answered.
    """
    async with connected(address, context) as (reader, writer):
        wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        request = h11.Request(method=scope["method"], target=target, headers=_headers(scope, headers, address))
        writer.write(wire.send(request) or b"")
        up = asyncio.create_task(_send_body(wire, receive, writer))
        try:
            await _answer(wire, reader, send, address)
        finally:
            up.cancel()
            with suppress(asyncio.CancelledError, OSError, h11.LocalProtocolError):
                await up


def _headers(scope: Scope, more: list[tuple[bytes, bytes]], address: str) -> list[tuple[bytes, bytes]]:
    replaced = _OWN | {name for name, _ in more}
    kept = [(name, value) for name, value in scope["headers"] if name not in replaced]
    bodied = any(name == b"content-length" for name, _ in kept)
    length = [] if bodied or scope["method"] in ("GET", "HEAD", "DELETE") else [(b"transfer-encoding", b"chunked")]
    return [(b"host", address.encode()), (b"connection", b"close"), *kept, *more, *length]


async def _send_body(wire: h11.Connection, receive: Receive, writer: asyncio.StreamWriter) -> None:
    """What the client sends, as it comes. A client that goes takes the connection with it."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            writer.close()
            return
        if body := message.get("body", b""):
            writer.write(wire.send(h11.Data(data=body)) or b"")
            await writer.drain()
        if not message.get("more_body", False):
            writer.write(wire.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            break
    while (await receive())["type"] != "http.disconnect":
        pass
    writer.close()


async def _answer(wire: h11.Connection, reader: asyncio.StreamReader, send: Send, address: str) -> None:
    begun = False
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            try:
                wire.receive_data(await reader.read(_READ))
            except OSError as error:
                raise _lost(address, begun, error) from error
            except h11.RemoteProtocolError as error:
                raise _lost(address, begun, error) from error
        elif isinstance(event, h11.Response):
            kept = [(name, value) for name, value in event.headers if name not in (b"connection", b"transfer-encoding")]
            await send({"type": "http.response.start", "status": event.status_code, "headers": kept})
            begun = True
        elif isinstance(event, h11.Data):
            await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        elif isinstance(event, h11.EndOfMessage):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        elif isinstance(event, h11.ConnectionClosed):
            raise _lost(address, begun, None)


class Broken(Exception):
    """The other host went away in the middle of its answer: the client's connection is to be cut as well."""


def _lost(address: str, begun: bool, error: Exception | None) -> Exception:
    if begun:
        return Broken(f"the host at {address} went away in the middle of its answer")
    return Unavailable(f"the host at {address} ended without an answer: {error or 'closed'}")
