"""Routes of replicas: what there is of them, and those by which a host copies a disk to another one."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from bulkhead.api import problems
from bulkhead.api.arrivals import asked, body_of
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.fleet.parcels import read_head
from bulkhead.fleet import HostId
from bulkhead.moves import Receipt, Shipment

router = APIRouter(prefix="/v1", tags=["fleet"])


@router.get("/fleet/replicas")
async def list_replicas(request: Request) -> Response:
    """Every instance whose disk is copied to another host: where, how old the copy is, how often it is made anew."""
    fleet = cast(Member, request.app.state.fleet)
    return json_response(await service_of(request).call(fleet.replicas))


@router.post("/fleet/replicas/{instance}/digests")
async def ask_replica(request: Request, instance: Annotated[HostId, Path()]) -> Response:
    """For a host: what is here of the disk of its instance."""
    service, travels, host = asked(request)
    return json_response(await service.begin_long(travels.loss.held, instance, source=host))


@router.put("/fleet/replicas/{instance}", status_code=201)
async def receive_replica(request: Request, instance: Annotated[HostId, Path()]) -> Response:
    """For a host: take in what has changed of the disk of its instance. The body: a Shipment on a line, then digests
    and blocks, see docs/design/0032.
    """
    service, travels, host = asked(request)
    body = body_of(request)

    def work() -> Receipt:
        shipment: Shipment = problems.validate(Shipment, read_head(body))
        return travels.loss.receive(instance, shipment, body, source=host)

    return json_response(await service.begin_long(work), 201)
