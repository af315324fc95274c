"""Who makes a request: put into its scope by the door that it came through, asked for by everything behind."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.errors import Unauthorized
from bulkhead.tenancy.principal import ROOT, Principal

_KEY = "bulkhead.principal"


def principal_of(connection: HTTPConnection) -> Principal:
    """Who makes this request. Raises Unauthorized where no door has let it in."""
    found = connection.scope.get(_KEY)
    if not isinstance(found, Principal):
        raise Unauthorized("nobody knows who makes this request", hint="send a token: Authorization: Bearer TOKEN")
    return found


class SocketDoor:
    """The unix socket's door: its file mode lets in root and one group, and whoever comes in is the administrator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_KEY] = ROOT
        await self._app(scope, receive, send)
