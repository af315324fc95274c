"""Routes of who may do what: tenants, users, tokens, the trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.model import Isolation, Model
from bulkhead.tenancy.names import TenantName
from bulkhead.tenancy.quotas import Quota
from bulkhead.tenancy.roles import Permission, Role

router = APIRouter(prefix="/v1", tags=["access"], max_body_size=1 << 16)
MOST_TRAIL = 1000


class NewTenant(Model):
    """A tenant to make; None for its levels: all that tenants may have."""

    name: TenantName
    quota: Quota = Quota()
    levels: tuple[Isolation, ...] | None = Field(default=None, min_length=1)


class TenantChange(Model):
    """What to change. A field of the quota that is not given stays, one that is null is no limit any more."""

    quota: Quota | None = None
    levels: tuple[Isolation, ...] | None = Field(default=None, min_length=1)


class NewUser(Model):
    """A user to make. A tenant's user names the tenant, as a viewer may; admins and operators see all of them."""

    name: str = Field(max_length=64)
    role: Role
    tenant: TenantName | None = None


class NewToken(Model):
    """A token to make; None for a user: one's own."""

    user: str | None = Field(default=None, max_length=64)
    scopes: tuple[Permission, ...] = ()
    expires: float | None = Field(default=None, description="seconds since the epoch; None: never")
    label: str = Field(default="", max_length=128)


@router.get("/tenants")
async def list_tenants(request: Request) -> Response:
    """Every tenant that one sees: `tenant` with its quota, `used`, `users`."""
    service = service_of(request)
    return json_response(await service.call(service.engine.tenants.list))


@router.get("/tenants/{name}")
async def get_tenant(request: Request, name: str) -> Response:
    """One tenant, its quota, and what it uses."""
    service = service_of(request)
    return json_response(await service.call(service.engine.tenants.get, name))


@router.post("/tenants", status_code=201)
async def create_tenant(request: Request, body: NewTenant) -> Response:
    """Make a tenant with a network of its own."""
    service = service_of(request)
    made = await service.call(service.engine.tenants.create, body.name, quota=body.quota, levels=body.levels)
    return json_response(made, 201)


@router.patch("/tenants/{name}")
async def update_tenant(request: Request, name: str, body: TenantChange) -> Response:
    """Change a tenant's quota, or behind which walls it may run."""
    service = service_of(request)
    return json_response(await service.call(service.engine.tenants.update, name, quota=body.quota, levels=body.levels))


@router.delete("/tenants/{name}", status_code=204)
async def remove_tenant(request: Request, name: str) -> Response:
    """Forget a tenant that has nothing any more."""
    service = service_of(request)
    await service.call(service.engine.tenants.remove, name)
    return Response(status_code=204)


@router.get("/users")
async def list_users(request: Request) -> Response:
    """Every user that one sees."""
    service = service_of(request)
    return json_response(await service.call(service.engine.users.list))


@router.post("/users", status_code=201)
async def create_user(request: Request, body: NewUser) -> Response:
    """Make a user."""
    service = service_of(request)
    made = await service.call(service.engine.users.create, body.name, role=body.role, tenant=body.tenant)
    return json_response(made, 201)


@router.delete("/users/{name}", status_code=204)
async def remove_user(request: Request, name: str) -> Response:
    """Forget a user; none of the tokens is good from here on."""
    service = service_of(request)
    await service.call(service.engine.users.remove, name)
    return Response(status_code=204)


@router.get("/tokens")
async def list_tokens(request: Request) -> Response:
    """One's own tokens, an administrator everybody's; never what is secret in them."""
    service = service_of(request)
    return json_response(await service.call(service.engine.users.tokens, principal_of(request)))


@router.post("/tokens", status_code=201)
async def create_token(request: Request, body: NewToken) -> Response:
    """Make a token: `token` is shown this once."""
    service = service_of(request)
    made = await service.call(
        service.engine.users.create_token,
        principal_of(request),
        user=body.user,
        scopes=body.scopes,
        expires=body.expires,
        label=body.label,
    )
    answer = json_response(made, 201)
    answer.headers["cache-control"] = "no-store"
    return answer


@router.delete("/tokens/{identifier}", status_code=204)
async def remove_token(request: Request, identifier: str) -> Response:
    """Make a token good for nothing."""
    service = service_of(request)
    await service.call(service.engine.users.remove_token, principal_of(request), identifier)
    return Response(status_code=204)


@router.get("/trail")
async def get_trail(
    request: Request,
    user: str | None = None,
    since: float = 0.0,
    most: Annotated[int, Query(ge=1, le=MOST_TRAIL)] = 100,
) -> Response:
    """Who did what, the oldest first: `when` (s), `user`, `role`, `tenant`, `action`, `targets`, `result`, `source`."""
    service = service_of(request)
    return json_response(
        await service.call(service.engine.users.trail, principal_of(request), most=most, user=user, since=since)
    )
