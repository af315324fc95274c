"""Before every route: may whoever asks do this, and is it asked for as the API's description says?"""

from __future__ import annotations

from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from bulkhead.api import queries, trail
from bulkhead.api.auth import REFUSED, principal_of
from bulkhead.api.rules import PUBLIC, RULES, changes
from bulkhead.errors import BulkheadError, Forbidden

MOST_REASON = 100
"""Characters of why a WebSocket is closed: its protocol has room for no more."""


async def authorize(connection: HTTPConnection) -> None:
    """Before every route. Raises Unauthorized, and Forbidden where the rules do not let this principal in."""
    try:
        await _judge(connection)
    except BulkheadError as error:
        if connection.scope["type"] != "websocket":
            raise
        raise WebSocketException(REFUSED + error.http_status, error.what[:MOST_REASON]) from error


async def _judge(connection: HTTPConnection) -> None:
    method = connection.scope.get("method", "GET")
    key = f"{method} {connection.scope['route'].path}"
    if key in PUBLIC:
        return
    principal = principal_of(connection)
    if changes(key) or connection.scope["type"] == "websocket":  # a terminal
        trail.begin(connection, principal)
    rule = RULES.get(key)
    if rule is None:
        raise Forbidden(f"{key} has no rule of who may use it", hint="this is a fault of Bulkhead's: please report it")
    principal.require(rule)
    if connection.scope["type"] == "http":
        queries.check(connection)
