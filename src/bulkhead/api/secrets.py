"""Routes of secrets. None of them tells what is in one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Base64Bytes, Field
from starlette.responses import Response

from bulkhead.api.conditions import edit
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.model import Model, Name
from bulkhead.secret import Secret

router = APIRouter(prefix="/v1", tags=["secrets"], max_body_size=1 << 20)
SecretList = list[Secret]


class SecretRequest(Model):
    """A secret to make."""

    name: Name
    data: Base64Bytes = Field(repr=False, description="its value in base64, at most 512,000 bytes")
    labels: dict[str, str] = {}
    replace: bool = Field(default=False, description="put the value in the place of the one that is there")


@router.get("/secrets", responses={200: {"model": SecretList}})
async def list_secrets(request: Request) -> Response:
    """Every secret, without what is in it."""
    service = service_of(request)
    return json_response(await service.call(service.engine.secrets.list))


@router.get("/secrets/{name}", responses={200: {"model": Secret}})
async def get_secret(request: Request, name: str) -> Response:
    """One secret, without what is in it."""
    service = service_of(request)
    return json_response(await service.call(service.engine.secrets.get, name))


@router.post("/secrets", status_code=201, responses={201: {"model": Secret}})
async def create_secret(request: Request, body: SecretRequest) -> Response:
    """Make a secret; its record. Where `replace` puts the very same value there, nothing changes."""
    service, secrets = service_of(request), service_of(request).engine.secrets
    made = await service.call(secrets.create, body.name, body.data, labels=body.labels, replace=body.replace)
    return json_response(made, 201)


@router.delete("/secrets/{name}", status_code=204)
async def remove_secret(request: Request, name: str) -> Response:
    """Remove a secret that no instance has."""
    secrets = service_of(request).engine.secrets
    await edit(
        request,
        lambda: secrets.get(name),
        lambda found: secrets.remove(found.key),
        key=lambda found: f"secret/{found.key}",
    )
    return Response(status_code=204)
