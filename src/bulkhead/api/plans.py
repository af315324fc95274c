"""Routes of named plans."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bulkhead.api.conditions import edit
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.model import Model, Name, NamedPlan, PlanRequest

router = APIRouter(prefix="/v1", tags=["plans"], max_body_size=1 << 16)
PlanList = list[NamedPlan]


class NewPlan(Model):
    """A plan to be named. Its fields are judged by the engine, so that a wrong one does not hide the others."""

    name: Name
    plan: PlanRequest


@router.get("/plans", responses={200: {"model": PlanList}})
async def list_plans(request: Request) -> Response:
    """Every named plan."""
    service = service_of(request)
    return json_response(await service.call(service.engine.plans.list))


@router.get("/plans/{name}", responses={200: {"model": NamedPlan}})
async def get_plan(request: Request, name: str) -> Response:
    """One plan."""
    service = service_of(request)
    return json_response(await service.call(service.engine.plans.get, name))


@router.post("/plans", status_code=201, responses={201: {"model": NamedPlan}})
async def create_plan(request: Request, body: NewPlan) -> Response:
    """Name a plan: memory, cpus and disk are needed. Everything that is wrong with it is told at once."""
    service = service_of(request)
    return json_response(await service.call(service.engine.plans.create, body.name, body.plan), 201)


@router.delete("/plans/{name}", status_code=204)
async def remove_plan(request: Request, name: str) -> Response:
    """Forget a plan; instances keep their limits."""
    plans = service_of(request).engine.plans
    await edit(request, lambda: plans.get(name), lambda found: plans.remove(found.name), key=lambda _: "plan/" + name)
    return Response(status_code=204)
