"""Who makes a request: put into its scope by the door that it came through, asked for by everything behind."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.errors import Unauthorized
from bulkhead.tenancy.principal import ROOT, Principal

KEY = "bulkhead.principal"
PEER = "bulkhead.peer"
"""In a scope: who is at the other end of the unix socket."""
REFUSED = 4000
"""On top of an HTTP status: how a WebSocket is closed that nobody may open."""


def principal_of(connection: HTTPConnection) -> Principal:
    """Who makes this request. Raises Unauthorized where no door has let it in."""
    found = connection.scope.get(KEY)
    if not isinstance(found, Principal):
        raise Unauthorized("nobody knows who makes this request", hint="send a token: Authorization: Bearer TOKEN")
    return found


class SocketDoor:
    """The unix socket's door: its file mode lets in root and one group, and whoever comes in is the administrator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY] = scope.get(PEER, ROOT)
        await self._app(scope, receive, send)
