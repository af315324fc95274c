"""Routes of networks."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bulkhead.api.conditions import edit
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.model import Model, Name, Network

router = APIRouter(prefix="/v1", tags=["networks"], max_body_size=1 << 16)
NetworkList = list[Network]


class NetworkRequest(Model):
    """A network to make; None: a subnet from the pool."""

    name: Name
    subnet4: str | None = None
    subnet6: str | None = None


@router.get("/networks", responses={200: {"model": NetworkList}})
async def list_networks(request: Request) -> Response:
    """Every network."""
    service = service_of(request)
    return json_response(await service.call(service.engine.networks.list))


@router.get("/networks/{name}", responses={200: {"model": Network}})
async def get_network(request: Request, name: str) -> Response:
    """One network."""
    service = service_of(request)
    return json_response(await service.call(service.engine.networks.get, name))


@router.post("/networks", status_code=201, responses={201: {"model": Network}})
async def create_network(request: Request, body: NetworkRequest) -> Response:
    """Make a bridge with its subnets."""
    service = service_of(request)
    made = await service.call(service.engine.networks.create, body.name, subnet4=body.subnet4, subnet6=body.subnet6)
    return json_response(made, 201)


@router.delete("/networks/{name}", status_code=204)
async def remove_network(request: Request, name: str) -> Response:
    """Remove a network that no instance is on."""
    networks = service_of(request).engine.networks
    await edit(
        request,
        lambda: networks.get(name),
        lambda found: networks.remove(found.key),
        key=lambda found: f"network/{found.key}",
    )
    return Response(status_code=204)
