"""Routes of networks."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bulkhead.api.conditions import edit
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.api.usage import visible_tenant
from bulkhead.model import Model, Name, Network
from bulkhead.tenancy.names import TenantName

router = APIRouter(prefix="/v1", tags=["networks"], max_body_size=1 << 16)
NetworkList = list[Network]


class NetworkRequest(Model):
    """A network to make; None: a subnet from the pool."""

    name: Name
    tenant: TenantName | None = None
    """Whose it is to be; None: of whoever asks. Only those who see all tenants may name another."""
    subnet4: str | None = None
    subnet6: str | None = None
    fleet: bool = False
    """One network on all hosts of the fleet."""
    unencrypted: bool = False
    """Of such a network: whoever is on the way between two hosts may read it."""


@router.get("/networks", responses={200: {"model": NetworkList}})
async def list_networks(request: Request, tenant: TenantName | None = None) -> Response:
    """Every network, or those of a tenant."""
    service, whose = service_of(request), visible_tenant(request, tenant)
    found = await service.call(service.engine.networks.list)
    return json_response([network for network in found if whose in (None, network.tenant)])


@router.get("/networks/{name}", responses={200: {"model": Network}})
async def get_network(request: Request, name: str) -> Response:
    """One network."""
    service = service_of(request)
    return json_response(await service.call(service.engine.networks.get, name))


@router.post("/networks", status_code=201, responses={201: {"model": Network}})
async def create_network(request: Request, body: NetworkRequest) -> Response:
    """Make a bridge with its subnets."""
    service = service_of(request)
    wanted = body.model_dump(include={"subnet4", "subnet6", "tenant", "fleet", "unencrypted"})
    made = await service.call(service.engine.networks.create, body.name, **wanted)
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
