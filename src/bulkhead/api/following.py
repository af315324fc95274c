"""An instance is asked for where it is, also while it moves: a host that does not have it (any more, or yet) says so,
and what is asked goes on to the one that has it.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.api.auth import KEY
from bulkhead.api.gathering import find
from bulkhead.api.making import pass_to
from bulkhead.api.replay import Attempt, Replay
from bulkhead.api.service import Service
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import NoInstance
from bulkhead.fleet import Host

MOST_ASKED = 4
"""Hosts that one request goes to in turn."""
SMALL = 1 << 16
"""Bytes of a body that may be sent again. What is larger, or has no end yet, goes where the instance is found first."""


Asgi = tuple[Scope, Receive, Send]


async def follow(app: ASGIApp, fleet: Member, reference: str, asgi: Asgi) -> None:
    """Have a request served by the host that has the instance; by `app` where that is this one.

    Raises Unavailable, Conflict before anything is answered.
    """
    scope, receive, send = asgi
    service: Service = scope["app"].state.service
    host = await service.call(find, service, fleet, reference, scope[KEY])
    if not _is_small(scope):
        await _serve(app, fleet, host, asgi)
        return
    replay, tenant, certain = Replay(receive), scope[KEY].tenant, False
    for _ in range(MOST_ASKED):
        attempt = Attempt(send, replay.settle, _is_missing)
        await _serve(app, fleet, host, (scope, replay.reader(), attempt))
        if not attempt.refused:
            return
        if attempt.kind != NoInstance.kind:
            break
        if host is None:
            await asyncio.to_thread(fleet.await_arrival, reference, tenant=tenant)
        now = await asyncio.to_thread(fleet.where, reference, tenant=tenant)
        same = (now and now.id) == (host and host.id)
        if same and certain:  # it may have come between the answer and the look where it is
            break
        host, certain = now, same
    await attempt.pass_on()


async def serve_here(app: ASGIApp, fleet: Member, reference: str, asgi: Asgi) -> None:
    """Serve what another host has passed on, which has asked the fleet; what is on its way here is waited for."""
    scope, receive, send = asgi
    if not _is_small(scope):
        await app(scope, receive, send)
        return
    replay, tenant = Replay(receive), scope[KEY].tenant
    attempt = Attempt(send, replay.settle, _is_missing)
    await app(scope, replay.reader(), attempt)
    if not attempt.refused:
        return
    if attempt.kind == NoInstance.kind:
        await asyncio.to_thread(fleet.await_arrival, reference, tenant=tenant)
        await app(scope, replay.reader(), send)
    else:
        await attempt.pass_on()


async def _serve(app: ASGIApp, fleet: Member, host: Host | None, asgi: Asgi) -> None:
    scope, receive, send = asgi
    if host is None:
        await app(scope, receive, send)
    else:
        await pass_to(host, fleet, scope, receive, send)


def _is_missing(start: Message) -> bool:
    return bool(start["status"] == 404)


def _is_small(scope: Scope) -> bool:
    """Whether it can be asked for again: its whole body has come, or none does."""
    headers = dict(scope["headers"])
    if scope["type"] != "http" or b"transfer-encoding" in headers or b"upgrade" in headers:
        return False
    length = headers.get(b"content-length", b"0")
    return length.isdigit() and int(length) <= SMALL
