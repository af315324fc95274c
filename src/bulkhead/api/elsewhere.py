"""Any verb from any host on any instance: what is elsewhere is asked for there, for whoever asked here."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.api import problems
from bulkhead.api.auth import KEY
from bulkhead.api.passing import Broken, pass_on
from bulkhead.api.peers import PASSED_ON
from bulkhead.api.service import Service
from bulkhead.engine.fleet.member import HINT, NO_FLEET, Member
from bulkhead.errors import BulkheadError, Forbidden, NotFound, Unavailable
from bulkhead.fleet import Host
from bulkhead.host import peers
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.roles import Permission

log = logging.getLogger(__name__)
_ONE = re.compile(r"^/v1/instances/([^/]+)(/.*)?$")
_LIST = "/v1/instances"
_MAKING = frozenset({("POST", "/v1/instances"), ("POST", "/v1/run"), ("POST", "/v1/dry-run")})
HOST = "host"
"""Query parameter that says on which host an instance is to be made."""
MISSING = b"bulkhead-missing"
"""Header of a list: the hosts that did not answer, whose instances are not in it."""
LIST_SECONDS = 10.0


class Elsewhere:
    """Before everything else: pass on what another host has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get(PASSED_ON) or not isinstance(scope.get(KEY), Principal):
            await self._app(scope, receive, send)
            return
        fleet: Member = scope["app"].state.fleet
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        making = (scope["method"], scope["path"]) in _MAKING
        if fleet.identity is None and not (making and HOST in query):
            await self._app(scope, receive, send)
            return
        try:
            if making:
                await self._make(fleet, query, scope, receive, send)
            elif (scope["method"], scope["path"]) == ("GET", _LIST):
                await self._list(fleet, scope, receive, send)
            else:
                await self._one(fleet, scope, receive, send)
        except BulkheadError as error:
            await problems.response(error)(scope, receive, send)
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
            host = await service.call(_find, service, fleet, unquote(found[1]), scope[KEY])
            if host is not None:
                await self._pass(host, fleet, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _list(self, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
        """This host's, then those of the others, each with the name of its host."""
        start, own = await _captured(self._app, scope, receive)
        if start["status"] != 200:
            await send(start)
            await send({"type": "http.response.body", "body": own})
            return
        assert fleet.identity is not None
        lines = [{**line, "host": fleet.identity.name} for line in json.loads(own)]
        others = await asyncio.to_thread(fleet.others)
        told = await asyncio.gather(*(asyncio.to_thread(self._ask, host, fleet, scope[KEY]) for host in others))
        missing = [host.name for host, found in zip(others, told, strict=True) if found is None]
        for host, found in zip(others, told, strict=True):
            lines += [{**line, "host": host.name} for line in found or []]
        body = json.dumps(sorted(lines, key=lambda line: -line["spec"]["created"])).encode()
        replaced = {b"content-length", b"etag"}
        kept = [(name, value) for name, value in start["headers"] if name not in replaced]
        kept += [(b"content-length", str(len(body)).encode())]
        kept += [(MISSING, ", ".join(missing).encode())] if missing else []
        await send({**start, "headers": kept})
        await send({"type": "http.response.body", "body": body})

    def _ask(self, host: Host, fleet: Member, principal: Principal) -> list[Any] | None:
        try:
            headers = {HEADER: encode(principal)}
            context = fleet.tls()
            found = peers.call(host.address, "GET", _LIST, context=context, headers=headers, timeout=LIST_SECONDS)
        except Unavailable as error:
            log.warning("instances of host %s are not in a list: %s", host.name, error.what)
            return None
        return found if isinstance(found, list) else None

    async def _pass(self, host: Host, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(HEADER.encode(), encode(scope[KEY]).encode())]
        await pass_on(scope, receive, send, address=host.address, context=fleet.tls(), target=target, headers=headers)


def _find(service: Service, fleet: Member, reference: str, principal: Principal) -> Host | None:
    """The other host that has it; None where this one has, or nobody: then this one says so."""
    try:
        service.seen_by(principal.tenant).engine.get(reference)
    except NotFound:
        return fleet.elsewhere(reference, tenant=principal.tenant)
    return None


async def _captured(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """What the application would answer."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    body = b"".join(bytes(message.get("body", b"")) for message in messages[1:])
    return messages[0], body
