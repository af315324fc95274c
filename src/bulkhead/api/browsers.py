"""What browsers need watching for: pages of other sites that talk to this API with somebody else's power.

A browser sends along where a request comes from (`Origin`), and under which name it knows the server (`Host`). Another
site's page may send requests here, open WebSockets, and make its own name lead to this address; what it may not do is
hide either header. So a request of another origin is refused whatever it asks for. Over the unix socket, where nobody
has to show a token, the name must be a local one too, for example that of a port which ssh forwards.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.api.problems import MEDIA_TYPE, encode
from bulkhead.errors import Forbidden

TERMINAL = "bulkhead.frames.v1"
"""The WebSocket subprotocol that is spoken; docs/reference/http-api.md has it."""
TOKEN = "bulkhead.token."  # noqa: S105 - no token, but what stands before one
"""Begins the subprotocol in which a browser's WebSocket carries its token: it can send no header of its own."""


class BrowserGuard:
    """Refuses what another site's page sends, and makes the token of a WebSocket an ordinary header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        host, origin = _headers(scope["headers"])
        problem = _foreign(origin, host) or (_not_local(host) if over_unix(scope) else None)
        if problem:
            await _refuse(problem, scope, send)
            return
        if scope["type"] == "websocket":
            scope = {**scope, **_with_token(scope["subprotocols"], scope["headers"])}
        await self._app(scope, receive, send)


def over_unix(scope: Scope) -> bool:
    """Whether a request came over the unix socket."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str | None]:
    """Host and Origin."""
    host, origin = "", None
    for name, value in headers:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
    return host, origin


def _foreign(origin: str | None, host: str) -> Forbidden | None:
    if origin is None:
        return None
    here = _place(f"{origin.partition('://')[0]}://{host}")
    if here and _place(origin) == here:
        return None
    return Forbidden(
        f"a page of {origin!r} may not use {host!r}",
        hint="open Bulkhead's own page; a proxy in between must pass the Host header on as it is",
    )


def _place(url: str) -> tuple[str, int] | None:
    """Host and port of a URL, None where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.hostname.lower(), port) if parts.hostname else None


def _not_local(host: str) -> Forbidden | None:
    place = _place(f"http://{host}")
    if place and _is_local(place[0]):
        return None
    return Forbidden(
        f"the unix socket is not served under the name {host!r}",
        hint="use localhost: another site could make any other name lead here",
    )


def _is_local(name: str) -> bool:
    """A name that no other site can have: without a dot, or a loopback address."""
    if "." not in name and ":" not in name:
        return True
    if name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _with_token(subprotocols: Sequence[str], headers: Sequence[tuple[bytes, bytes]]) -> dict[str, object]:
    """The parts of a WebSocket's scope without the token among its subprotocols, and with it as a header."""
    tokens = [name.removeprefix(TOKEN) for name in subprotocols if name.startswith(TOKEN)]
    rest = [name for name in subprotocols if not name.startswith(TOKEN)]
    if not tokens:
        return {}
    kept = [(name, value) for name, value in headers if name not in (b"authorization", b"sec-websocket-protocol")]
    return {
        "subprotocols": rest,
        "headers": [*kept, (b"authorization", f"Bearer {tokens[0]}".encode("latin-1"))],
    }


async def _refuse(problem: Forbidden, scope: Scope, send: Send) -> None:
    """Answer 403; of a WebSocket its handshake."""
    body = encode(problem)
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": problem.http_status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
