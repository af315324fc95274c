"""Routes of metering: what has been used."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from starlette.requests import HTTPConnection
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.errors import NotFound
from bulkhead.metering.query import By
from bulkhead.model import Model, Name
from bulkhead.tenancy.names import TenantName
from bulkhead.tenancy.roles import Permission

router = APIRouter(prefix="/v1", tags=["metering"])
metrics = APIRouter(tags=["metering"])
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
YEAR_3000 = 32_503_680_000
"""Seconds since the epoch: later times are mistakes."""


def visible_tenant(request: HTTPConnection, asked: str | None) -> str | None:
    """The tenant whose use is told: of a tenant's user always its own, of others the one asked for (None: all)."""
    principal = principal_of(request)
    principal.require(Permission.READ)
    if principal.tenant is None:
        return asked
    if asked not in (None, principal.tenant):
        raise NotFound(f"no such tenant: {asked}", hint="leave --tenant out: it is your own")
    return principal.tenant


class UsageQuery(Model):
    """Whose use, of when, and what it is summed by."""

    strict = False  # in a query everything is text, which queries.py looks at
    model_config = ConfigDict(populate_by_name=True)

    ref: list[str] = Field(default=[], max_length=1000)
    """Instances, also removed ones."""
    tenant: TenantName | None = None
    plan: Name | None = None
    begin: float | None = Field(default=None, ge=0, le=YEAR_3000, alias="from")
    end: float | None = Field(default=None, ge=0, le=YEAR_3000, alias="to")
    """Seconds since the epoch; None: since this month began, and until now."""
    by: list[By] = Field(default=["instance"], min_length=1, max_length=4)
    known: bool = Field(default=False, description="tell of instances that were never there in `unknown`")


@router.get("/usage")
async def usage(request: Request, query: Annotated[UsageQuery, Query()]) -> Response:
    """What has been used: `{"from", "to", "resolution", "by", "rows": [...], "unknown"}`; see
    docs/reference/metering.md."""
    service = service_of(request)
    found = await service.call(
        service.engine.usage.use,
        instances=query.ref or None,
        tenant=visible_tenant(request, query.tenant),
        plan=query.plan,
        begin=query.begin,
        end=query.end,
        by=query.by,
        known=query.known,
    )
    return json_response(found)


@metrics.get("/metrics", include_in_schema=False)
async def exposition(request: Request) -> Response:
    """For Prometheus, in its text format: a tenant's instances, for others all of them, the host and the daemon."""
    service, tenant = service_of(request), visible_tenant(request, None)
    return Response(await service.call(service.engine.exposer.metrics, tenant), media_type=CONTENT_TYPE)
