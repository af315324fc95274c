"""Any verb from any host on any instance: what is elsewhere is asked for there, for whoever asked here."""

from __future__ import annotations

import asyncio
import logging
import re
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.api.auth import KEY
from bulkhead.api.gathering import GATHERED, find
from bulkhead.api.passing import Broken, pass_on
from bulkhead.api.passing_sockets import pass_on_socket
from bulkhead.api.peers import PASSED_ON
from bulkhead.api.service import Service
from bulkhead.api.tcp import deny
from bulkhead.engine.fleet.member import HINT, NO_FLEET, Member
from bulkhead.errors import BulkheadError, Forbidden, NotFound
from bulkhead.fleet import Host
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.roles import Permission

log = logging.getLogger(__name__)
_ONE = re.compile(r"^/v1/instances/([^/]+)(/.*)?$")
_MAKING = frozenset({("POST", "/v1/instances"), ("POST", "/v1/run"), ("POST", "/v1/dry-run")})
HOST = "host"
"""Query parameter that says on which host an instance is to be made."""


class Elsewhere:
    """Before everything else: pass on what another host has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get(PASSED_ON) or not isinstance(scope.get(KEY), Principal):
            await self._app(scope, receive, send)
            return
        fleet: Member = scope["app"].state.fleet
        if fleet.identity is None and HOST.encode() not in scope["query_string"]:  # most hosts: nothing is lost on it
            await self._app(scope, receive, send)
            return
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        method = scope.get("method", "WebSocket")
        making, gather = (method, scope["path"]) in _MAKING, GATHERED.get((method, scope["path"]))
        if fleet.identity is None and not (making and HOST in query):
            await self._app(scope, receive, send)
            return
        try:
            if making:
                await self._make(fleet, query, scope, receive, send)
            elif gather:
                await gather(self._app, fleet, scope, receive, send)
            else:
                await self._one(fleet, scope, receive, send)
        except BulkheadError as error:
            await deny(error, scope, receive, send)
        except Broken as error:
            log.warning("%s", error)
            raise

    async def _make(self, fleet: Member, query: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        wanted = query.pop(HOST, None)
        if wanted is not None:
            if fleet.identity is None:
                raise NotFound(NO_FLEET, hint=HINT)
            if not scope[KEY].may(Permission.HOST):
                raise Forbidden("on which host something runs is the operator's to say", hint="leave out --host")
            host = await asyncio.to_thread(fleet.host, wanted)
            scope = {**scope, "query_string": urlencode(query).encode()}
            if host.id != fleet.identity.id:
                await self._pass(host, fleet, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _one(self, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
        found = _ONE.match(scope["path"])
        if found:
            service: Service = scope["app"].state.service
            host = await service.call(find, service, fleet, unquote(found[1]), scope[KEY])
            if host is not None:
                await self._pass(host, fleet, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _pass(self, host: Host, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await pass_on_socket(scope, receive, send, address=host.address, context=fleet.tls())
            return
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(HEADER.encode(), encode(scope[KEY]).encode())]
        await pass_on(scope, receive, send, address=host.address, context=fleet.tls(), target=target, headers=headers)
