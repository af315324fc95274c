"""Routes of prices and invoices."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.responses import json_response
from bulkhead.api.service import Service, service_of
from bulkhead.api.usage import visible_tenant
from bulkhead.config import TextLine
from bulkhead.metering.invoices import Invoice
from bulkhead.metering.prices import NewPrice, Price
from bulkhead.model import DEFAULT_TENANT, Model
from bulkhead.tenancy.names import TenantName
from bulkhead.tenancy.roles import Permission

router = APIRouter(prefix="/v1", tags=["billing"], max_body_size=1 << 16)
PriceList = list[Price]
Form = Literal["json", "html", "pdf"]
KINDS: dict[str, str] = {"json": "application/json", "html": "text/html; charset=utf-8", "pdf": "application/pdf"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A page of ours without scripts: whatever got into it does nothing."""


class Summary(Model):
    """An issued invoice in a list. Amounts are decimal digits."""

    number: str
    issued: date
    tenant: str
    month: str
    currency: str
    net: str
    tax: str
    total: str


class Order(Model):
    """An invoice to be issued."""

    tenant: TenantName = DEFAULT_TENANT
    month: str = Field(pattern=r"^\d{4}-\d{2}$")
    recipient: list[TextLine] = Field(default=[], max_length=10)
    """Lines of name and address; none: the tenant's name."""


SummaryList = list[Summary]


@router.get("/prices", responses={200: {"model": PriceList}})
async def list_prices(request: Request) -> Response:
    """Every price; a tenant's user sees those that hold for it."""
    service, tenant = service_of(request), visible_tenant(request, None)
    return json_response(await service.call(service.engine.billing.prices, tenant))


@router.post("/prices", status_code=201, responses={201: {"model": Price}})
async def set_price(request: Request, body: NewPrice) -> Response:
    """Set a price from a day on, in place of one for the same from the same day."""
    principal_of(request).require(Permission.HOST)
    service = service_of(request)
    return json_response(await service.call(service.engine.billing.set_price, body), 201)


@router.delete("/prices/{number}", status_code=204)
async def remove_price(request: Request, number: Annotated[int, Field(ge=1, lt=1 << 53)]) -> Response:
    """Take a price back, for all that has not been billed."""
    principal_of(request).require(Permission.HOST)
    service = service_of(request)
    await service.call(service.engine.billing.remove_price, number)
    return Response(status_code=204)


@router.get("/invoices", responses={200: {"model": SummaryList}})
async def list_invoices(request: Request, tenant: TenantName | None = None) -> Response:
    """Issued invoices, the latest first."""
    service = service_of(request)
    return json_response(await service.call(service.engine.billing.invoices, visible_tenant(request, tenant)))


@router.post("/invoices", status_code=201, responses={201: {"model": Invoice}})
async def issue_invoice(request: Request, body: Order) -> Response:
    """Give a month's invoice a number, for good. Where that has been done, it is the one that there is."""
    principal_of(request).require(Permission.HOST)
    service = service_of(request)
    return json_response(await service.call(service.engine.billing.issue, body.tenant, body.month, body.recipient), 201)


@router.get("/invoices/month/{month}", responses={200: {"model": Invoice}})
async def invoice_of_month(
    request: Request,
    month: str,
    tenant: TenantName | None = None,
    form: Annotated[Form, Query(alias="format")] = "json",
) -> Response:
    """A tenant's invoice for a month ("2026-11"), a draft without a number where none has been issued."""
    service, whose = service_of(request), visible_tenant(request, tenant) or DEFAULT_TENANT
    return await _document(service, await service.call(service.engine.billing.of_month, whose, month), form)


@router.get("/invoices/{number}", responses={200: {"model": Invoice}})
async def invoice(request: Request, number: str, form: Annotated[Form, Query(alias="format")] = "json") -> Response:
    """An issued invoice, as JSON, HTML or PDF."""
    service, tenant = service_of(request), visible_tenant(request, None)
    return await _document(service, await service.call(service.engine.billing.invoice, number, tenant), form)


async def _document(service: Service, found: Invoice, form: Form) -> Response:
    drawn = await service.begin_long(service.engine.billing.drawn, found, form)
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(drawn, media_type=KINDS[form], headers=headers)
