"""Making an instance in a fleet: the daemon that is asked judges which host it goes to, reserves its place there, and
passes the request on, or makes it itself. Whoever refuses is not asked again; another is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.api import problems
from bulkhead.api.auth import KEY
from bulkhead.api.passing import PLACE, Unreachable, pass_on
from bulkhead.api.passing_sockets import pass_on_socket
from bulkhead.api.relay import MEDIA_TYPE, Client
from bulkhead.api.replay import NOT_MADE, Attempt, Replay, marking
from bulkhead.api.rules import RULES
from bulkhead.api.streams import RunRequest
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.fleet.placing import Order
from bulkhead.engine.fleet.taking import taking
from bulkhead.errors import NoImage, NoRoom, Refused, Unavailable
from bulkhead.fleet import Host, Place
from bulkhead.model import CreateRequest
from bulkhead.store.fleet import Stale
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import Principal

_RUN = "/v1/run"
MOST_ASKED = 10
"""Hosts that are asked to make it."""
_LAST_WORD = frozenset({NoImage.kind, Unavailable.kind, "unauthorized", "forbidden", "too-many"})
"""Refusals that another host would repeat."""


async def make(app: ASGIApp, fleet: Member, scope: Scope, receive: Receive, send: Send, *, host: Host | None) -> None:
    """Have it made where the fleet's policy says, or at `host`. `app` serves what is made here.

    Raises NoRoom, Conflict, Unavailable before anything is answered.
    """
    principal: Principal = scope[KEY]
    principal.require(RULES[f"{scope['method']} {scope['path']}"])
    replay = Replay(receive)
    asked = await _read(scope, replay)
    if asked is None or (principal.tenant and asked.tenant not in (None, principal.tenant)):
        await app(scope, replay.reader(), send)  # and what is wrong with it is told, as ever
        return
    if principal.tenant and asked.where.constraints:
        await app(scope, replay.reader(), send)
        return
    if asked.inside or asked.snapshot:
        await _beside(app, fleet, asked, (scope, replay.reader(), send), host=host)
        return
    try:
        order = await asyncio.to_thread(
            fleet.placer.order,
            asked,
            tenant=asked.tenant or principal.home,
            host=host,
            seen_by_tenant=principal.tenant is not None,
        )
    except Refused:
        await app(scope, replay.reader(), send)
        return
    await _Making(app, fleet, order, asgi=(scope, replay, send)).carry_out(asked)


async def make_here(app: ASGIApp, fleet: Member, scope: Scope, receive: Receive, send: Send) -> None:
    """Make what another host has judged to go here, in the place that it has reserved."""
    reserved = next((value for name, value in scope["headers"] if name == PLACE), None)
    if reserved is None:
        await app(scope, receive, send)
        return
    try:
        place = await asyncio.to_thread(fleet.take_over, reserved.decode("latin-1"))
    except Stale as error:
        await marking(send, lambda: False)(_start(error))
        await send({"type": "http.response.body", "body": problems.encode(error)})
        return
    await _here(app, place, scope, receive, send)


def _start(error: Stale) -> dict[str, Any]:
    headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
    return {"type": "http.response.start", "status": error.http_status, "headers": headers}


async def _here(app: ASGIApp, place: Place, scope: Scope, receive: Receive, send: Send) -> None:
    with taking(place) as taken:
        await app(scope, receive, marking(send, lambda: taken.made))


async def pass_to(
    host: Host, fleet: Member, scope: Scope, receive: Receive, send: Send, *, place: Place | None = None
) -> None:
    """Have another host serve a request, for whoever asks here. Raises Unavailable before anything is answered."""
    if scope["type"] == "websocket":
        await pass_on_socket(scope, receive, send, address=host.address, context=fleet.tls())
        return
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(HEADER.encode(), encode(scope[KEY]).encode())]
    headers += [(PLACE, place.id.encode())] if place else []
    await pass_on(scope, receive, send, address=host.address, context=fleet.tls(), target=target, headers=headers)


async def _read(scope: Scope, replay: Replay) -> CreateRequest | None:
    """What is asked for; None where it cannot be read. Of terminals the first frame alone, if it is whole."""
    kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().decode("latin-1")
    framed = scope["path"] == _RUN and kind == MEDIA_TYPE
    model = RunRequest if scope["path"] == _RUN else CreateRequest
    try:
        found: CreateRequest = problems.validate(model, await Client(replay.reader(), framed=framed).request())
    except Refused:
        return None
    return found


async def _beside(
    app: ASGIApp, fleet: Member, asked: CreateRequest, asgi: tuple[Scope, Receive, Send], *, host: Host | None
) -> None:
    """What runs inside a VM, or is a copy of a snapshot, is made where that is."""
    scope, receive, send = asgi
    identity = fleet.identity
    if host is None:
        reference = asked.inside if asked.inside not in (None, "new") else (asked.snapshot or "").partition("/")[0]
        tenant = scope[KEY].tenant
        host = await asyncio.to_thread(fleet.elsewhere, reference, tenant=tenant) if reference else None
    if host is None or (identity is not None and host.id == identity.id):
        await app(scope, receive, send)
    else:
        await pass_to(host, fleet, scope, receive, send)


class _Making:
    """One request, until a host has made it or none will."""

    def __init__(self, app: ASGIApp, fleet: Member, order: Order, *, asgi: tuple[Scope, Replay, Send]) -> None:
        self._app, self._fleet, self._order = app, fleet, order
        self._scope, self._replay, self._send = asgi
        self._same: set[str] = set()
        """What hosts have refused it with."""

    async def carry_out(self, asked: CreateRequest) -> None:
        """Ask one host after the other. Raises NoRoom, Conflict, Unavailable."""
        placer, last = self._fleet.placer, None
        for _ in range(MOST_ASKED):
            try:
                place, host = await asyncio.to_thread(placer.reserve, self._order, asked)
            except NoRoom:
                # Where all that would do say the same, it is the request that they mean.
                if last is None or len(self._same) > 1:
                    raise
                break
            attempt = await self._ask(place, host)
            if not attempt.refused:
                return
            await asyncio.to_thread(placer.release, place)
            if self._replay.gone:
                return
            last = attempt
            if attempt.kind in _LAST_WORD:
                break
            if attempt.kind != Stale.kind:
                self._refused(host, attempt.why)
        assert last is not None
        await last.pass_on()

    async def _ask(self, place: Place, host: Host) -> Attempt:
        attempt = Attempt(self._send, self._replay.settle)
        receive, identity = self._replay.reader(), self._fleet.identity
        if identity is not None and host.id == identity.id:
            await _here(self._app, place, self._scope, receive, attempt)
            return attempt
        try:
            await pass_to(host, self._fleet, self._scope, receive, attempt, place=place)
        except Unreachable as error:  # nothing was asked
            await attempt({"type": "http.response.start", "status": error.http_status, "headers": [(NOT_MADE, b"1")]})
            await attempt({"type": "http.response.body", "body": problems.encode(Refused(error.what, hint=error.hint))})
        return attempt

    def _refused(self, host: Host, why: str) -> None:
        self._same.add(why)
        self._order.refuse(host, why)
