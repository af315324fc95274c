"""Routes of volumes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from bulkhead.api.conditions import edit
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.api.usage import visible_tenant
from bulkhead.model import Model, Name, Volume
from bulkhead.tenancy.names import TenantName

router = APIRouter(prefix="/v1", tags=["volumes"], max_body_size=1 << 16)
VolumeList = list[Volume]


class VolumeRequest(Model):
    """A volume to make; None: the usual size."""

    name: Name
    tenant: TenantName | None = None
    """Whose it is to be; None: of whoever asks. Only those who see all tenants may name another."""
    size: int | None = Field(default=None, ge=16 << 20, le=1 << 50, description="bytes")


@router.get("/volumes", responses={200: {"model": VolumeList}})
async def list_volumes(request: Request, tenant: TenantName | None = None) -> Response:
    """Every volume, or those of a tenant."""
    service, whose = service_of(request), visible_tenant(request, tenant)
    found = await service.call(service.engine.volumes.list)
    return json_response([volume for volume in found if whose in (None, volume.tenant)])


@router.get("/volumes/{name}", responses={200: {"model": Volume}})
async def get_volume(request: Request, name: str) -> Response:
    """One volume."""
    service = service_of(request)
    return json_response(await service.call(service.engine.volumes.get, name))


@router.post("/volumes", status_code=201, responses={201: {"model": Volume}})
async def create_volume(request: Request, body: VolumeRequest) -> Response:
    """Make a volume."""
    service = service_of(request)
    made = await service.call(service.engine.volumes.create, body.name, size=body.size, tenant=body.tenant)
    return json_response(made, 201)


@router.delete("/volumes/{name}", status_code=204)
async def remove_volume(request: Request, name: str) -> Response:
    """Remove a volume that no instance uses, with its data."""
    volumes = service_of(request).engine.volumes
    await edit(
        request,
        lambda: volumes.get(name),
        lambda found: volumes.remove(found.key),
        key=lambda found: f"volume/{found.key}",
    )
    return Response(status_code=204)
