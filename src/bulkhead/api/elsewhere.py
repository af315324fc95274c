"""Any verb from any host on any instance: what is elsewhere is asked for there, for whoever asked here."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.api.auth import KEY
from bulkhead.api.finding import OPERATION, find_operation
from bulkhead.api.following import Asgi, follow, serve_here
from bulkhead.api.gathering import GATHERED
from bulkhead.api.making import make, make_here, pass_to
from bulkhead.api.passing import Broken, Unreachable
from bulkhead.api.peers import PASSED_ON
from bulkhead.api.responses import json_response
from bulkhead.api.service import Service
from bulkhead.api.tcp import deny
from bulkhead.engine.fleet.member import HINT, NO_FLEET, Member
from bulkhead.errors import BulkheadError, Forbidden, NotFound
from bulkhead.store.state import within
from bulkhead.tenancy.names import qualified
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.roles import Permission

log = logging.getLogger(__name__)
_ONE = re.compile(r"^/v1/instances/([^/]+)(/.*)?$")
_OF_HOST = re.compile(r"^/v1/hosts/([^/]+)/drain$")
"""What a host does itself."""
_RECORD = re.compile(r"^/v1/instances/[^/]+(/describe)?$")
"""What is known of an instance whose host does not answer, too."""
_DRY_RUN = "/v1/dry-run"
_MAKING = frozenset({("POST", "/v1/instances"), ("POST", "/v1/run"), ("POST", _DRY_RUN)})
HOST = "host"
"""Query parameter that says on which host an instance is to be made."""


class Elsewhere:
    """Before everything else: pass on what another host has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not isinstance(scope.get(KEY), Principal):
            await self._app(scope, receive, send)
            return
        fleet: Member = scope["app"].state.fleet
        method = scope.get("method", "WebSocket")
        making = (method, scope["path"]) in _MAKING
        if scope.get(PASSED_ON):
            await self._passed_on(fleet, scope, receive, send, making=making)
            return
        if fleet.identity is None and HOST.encode() not in scope["query_string"]:  # most hosts: nothing is lost on it
            await self._app(scope, receive, send)
            return
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        gather = GATHERED.get((method, scope["path"]))
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

    async def _passed_on(self, fleet: Member, scope: Scope, receive: Receive, send: Send, *, making: bool) -> None:
        if making:
            await make_here(self._app, fleet, scope, receive, send)
        elif found := _ONE.match(scope["path"]):
            try:
                await serve_here(self._app, fleet, unquote(found[1]), (scope, receive, send))
            except BulkheadError as error:
                await deny(error, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _make(self, fleet: Member, query: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        wanted, host = query.pop(HOST, None), None
        if wanted is not None:
            if fleet.identity is None:
                raise NotFound(NO_FLEET, hint=HINT)
            if not scope[KEY].may(Permission.HOST):
                raise Forbidden("on which host something runs is the operator's to say", hint="leave out --host")
            host = await asyncio.to_thread(fleet.host, wanted)
            scope = {**scope, "query_string": urlencode(query).encode()}
        if scope["path"] != _DRY_RUN:
            await make(self._app, fleet, scope, receive, send, host=host)
        elif fleet.identity is not None and host is not None and host.id != fleet.identity.id:
            await pass_to(host, fleet, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _one(self, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
        service: Service = scope["app"].state.service
        host = None
        if found := _ONE.match(scope["path"]):
            try:
                await follow(self._app, fleet, unquote(found[1]), (scope, receive, send))
            except Unreachable as error:
                await _tell_absent(fleet, unquote(found[1]), error, (scope, receive, send))
            return
        if found := OPERATION.match(scope["path"]):
            host = await find_operation(service, fleet, unquote(found[1]), scope[KEY])
        elif (found := _OF_HOST.match(scope["path"])) and fleet.identity is not None:
            named = await service.call(fleet.host, unquote(found[1]))
            host = None if named.id == fleet.identity.id else named
        if host is None:
            await self._app(scope, receive, send)
        else:
            await pass_to(host, fleet, scope, receive, send)


async def _tell_absent(fleet: Member, reference: str, error: Unreachable, asgi: Asgi) -> None:
    """What is known of an instance whose host does not answer: its record where that is asked for, else why not.

    Raises Unreachable.
    """
    scope, receive, send = asgi
    host = await asyncio.to_thread(fleet.elsewhere, reference, tenant=scope[KEY].tenant)
    lines = await asyncio.to_thread(fleet.absent, [host.id] if host else [], tenant=scope[KEY].tenant)
    key = within(scope[KEY].tenant, reference)
    line = next((each for each in lines if key == _named(each) or each["spec"]["id"].startswith(reference)), None)
    if line is None:
        raise error
    if scope.get("method") == "GET" and _RECORD.search(scope["path"]):
        await json_response(line)(scope, receive, send)
        return
    raise Unreachable(f"{line['spec']['name']}: {line['reason']}; {error.what}", hint=error.hint) from error


def _named(line: dict[str, Any]) -> str:
    return qualified(line["spec"]["tenant"], line["spec"]["name"])
