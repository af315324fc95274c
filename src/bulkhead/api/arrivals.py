"""Routes by which a host sends an instance to another one. Nobody else is served: they ask for a host's certificate."""

from __future__ import annotations

from functools import partial
from io import BufferedReader
from typing import Annotated, BinaryIO, Literal, cast

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from bulkhead.api import problems
from bulkhead.api.piping import PipeResponse
from bulkhead.api.responses import Upload, json_response
from bulkhead.api.service import Service, service_of
from bulkhead.api.wire import CERTIFICATE
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.fleet.parcels import read_head
from bulkhead.engine.fleet.travel import Travels, require_host
from bulkhead.fleet import HostId
from bulkhead.moves import Inquiry, Judgement, Parcel, Receipt, Settled

CHUNK = 1 << 20
SILENCE_SECONDS = 60.0
"""After which a host that sends nothing more is given up."""
router = APIRouter(prefix="/v1", tags=["fleet"])


def asked(request: Request) -> tuple[Service, Travels, str]:
    """The service, whose threads are used, the moves of this host, and the host that asks."""
    host = require_host(str(request.scope.get(CERTIFICATE, "")))
    return service_of(request), cast(Member, request.app.state.fleet).travels, host


def body_of(request: Request) -> BinaryIO:
    """What is sent, to be read by a thread."""
    return cast(BinaryIO, BufferedReader(Upload(request, patience=SILENCE_SECONDS), CHUNK))


@router.post("/fleet/arrivals")
async def judge_arrival(request: Request) -> Response:
    """For a host: what stands in the way of an instance here. The body: an Inquiry on a line, then its padding."""
    service, travels, _ = asked(request)
    body = body_of(request)

    def work() -> Judgement:
        inquiry: Inquiry = problems.validate(Inquiry, read_head(body))
        return travels.judged(inquiry, body)

    return json_response(await service.begin_long(work))


@router.put("/fleet/arrivals/{instance}", status_code=201)
async def receive_arrival(request: Request, instance: Annotated[HostId, Path()]) -> Response:
    """For a host: take in an instance's files. The body: a Parcel on a line, then frames, see docs/design/0030."""
    service, travels, host = asked(request)
    body = body_of(request)

    def work() -> Receipt:
        parcel: Parcel = problems.validate(Parcel, read_head(body))
        return travels.receive(instance, parcel, body, source=host)

    return json_response(await service.begin_long(work), 201)


@router.post("/fleet/arrivals/{instance}/stream")
async def carry_arrival(
    request: Request, instance: Annotated[HostId, Path()], move: HostId, to: Literal["disk", "memory"]
) -> Response:
    """For a host: join a stream with a machine that waits here. Both bodies are its bytes, as they come."""
    service, travels, host = asked(request)
    return PipeResponse(await service.begin_long(partial(travels.opened, instance, move, to, source=host)))


@router.put("/fleet/arrivals/{instance}/rest")
async def complete_arrival(request: Request, instance: Annotated[HostId, Path()], move: HostId) -> Response:
    """For a host: all of a machine has been sent. The body: what its log has more. Answered once it is here."""
    service, travels, host = asked(request)
    body = body_of(request)
    receipt: Receipt = await service.begin_long(partial(travels.complete, instance, move, body, source=host))
    return json_response(receipt)


@router.post("/fleet/arrivals/{instance}/settle")
async def settle_arrival(request: Request, instance: Annotated[HostId, Path()], move: HostId) -> Response:
    """For a host: make an instance of what has arrived, now that the fleet's record says that it is this host's."""
    service, travels, _ = asked(request)
    settled: Settled = await service.begin_long(travels.settle, instance, move)
    return json_response(settled)
