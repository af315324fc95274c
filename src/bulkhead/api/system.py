"""Routes about the daemon and its host: ping, info, doctor, events."""

from __future__ import annotations

import os
from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, json_response, problem_line
from bulkhead.api.service import service_of

router = APIRouter(prefix="/v1", tags=["system"])


@router.get("/ping")
async def ping() -> Response:
    """Whether the daemon answers, and which process it is: `{"pid": ...}`."""
    return json_response({"pid": os.getpid()})


@router.get("/info")
async def info(request: Request) -> Response:
    """Version, host facts, paths of the configuration."""
    service = service_of(request)
    return json_response(await service.call(service.engine.info))


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
async def events(request: Request, since: float = 0.0, until: float | None = None, follow: bool = False) -> Response:
    """Events as NDJSON: `when` (s), `kind`, `id`, `name`, `action`, `attributes`. `follow` goes on with new ones."""
    service = service_of(request)

    def produce(pipe: Pipe) -> None:
        alive = pipe.alive if follow else None
        for event in service.engine.events(since=since, until=until, follow=alive):
            pipe.write(to_json(asdict(event)) + b"\n")

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line)
