"""Routes about the daemon and its host: ping, info, host, doctor, events."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, json_response, problem_line
from bulkhead.api.service import Service, service_of
from bulkhead.api.sse import Stream, last_seen, stream, wants_stream

router = APIRouter(prefix="/v1", tags=["system"])


@router.get("/ping")
async def ping() -> Response:
    """Whether the daemon answers, and which process it is: `{"pid": ...}`."""
    return json_response({"pid": os.getpid()})


@router.get("/whoami")
async def whoami(request: Request) -> Response:
    """Who asks: `user`, `role`, `tenant` (null: it sees everybody's), `permissions`."""
    who = principal_of(request)
    permissions = sorted(who.permissions)
    return json_response({"user": who.user, "role": who.role, "tenant": who.tenant, "permissions": permissions})


@router.get("/info")
async def info(request: Request) -> Response:
    """Version, host facts, paths of the configuration."""
    service = service_of(request)
    return json_response(await service.call(service.engine.info))


@router.get("/host")
async def host(request: Request) -> Response:
    """What of this host is sold, used and free (`resources`), and how many more of each plan would fit (`plans`)."""
    service = service_of(request)
    return json_response(await service.call(service.engine.host))


@router.get("/doctor")
async def doctor(request: Request) -> Response:
    """Every ability of this host: `name`, `works`, `reason`, `hint`."""
    service = service_of(request)
    return json_response(await service.begin_long(service.engine.doctor))


@router.get("/isolation")
async def isolation(request: Request) -> Response:
    """The levels (`level`, `works`, `reason`, `hint`, `not_isolated`) and the rules by which one is chosen
    (`number`, `when`, `level`, `because`): the first that fits decides.
    """
    service = service_of(request)
    return json_response(await service.begin_long(service.engine.walls))


@router.get("/events")
async def events(
    request: Request,
    since: float | None = None,
    until: float | None = None,
    follow: bool = False,
    after: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
) -> Response:
    """Events: `number`, `when` (s), `kind`, `id`, `name`, `action`, `attributes`; those with a number above `after`.

    NDJSON, where `follow` goes on with new ones; server-sent events where the client accepts them, which go on always,
    and begin with the next one unless `since`, `after` or Last-Event-ID says otherwise. They have the event's number.
    """
    service = service_of(request)
    if wants_stream(request):
        last = last_seen(request, after)
        begin = since if since is not None else 0.0 if last else time.time()
        return stream(request, lambda client: _send(service, client, begin, until, last))

    def produce(pipe: Pipe) -> None:
        alive = pipe.alive if follow else None
        for event in service.engine.events(since=since or 0.0, until=until, after=after, follow=alive):
            pipe.write(to_json(asdict(event)) + b"\n")

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line)


def _send(service: Service, client: Stream, since: float, until: float | None, after: int) -> None:
    for event in service.engine.events(since=since, until=until, after=after, follow=client.alive):
        client.send(event.kind, to_json(asdict(event)), number=event.number)
