"""The application: every route over one engine."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from bulkhead.api import (
    access,
    arrivals,
    audits,
    billing,
    builds,
    fleet,
    images,
    instances,
    networks,
    openapi,
    operations,
    page,
    plans,
    problems,
    registries,
    replicas,
    rooms,
    secrets,
    snapshots,
    sockets,
    streams,
    system,
    usage,
    volumes,
)
from bulkhead.api.conditions import Conditional
from bulkhead.api.elsewhere import Elsewhere
from bulkhead.api.judging import authorize
from bulkhead.api.problems import ProblemDetails
from bulkhead.api.service import Service, Whole
from bulkhead.api.trail import Trailed

VERSION = "1"


def create_app(engine: Whole) -> FastAPI:
    """The API over an engine. `app.state.service` has the threads; close it when the server has ended."""
    app = FastAPI(
        title="Bulkhead",
        version=VERSION,
        dependencies=[Depends(authorize)],
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        # What 422 is here is a problem as all others are, see openapi.py.
        responses={"4XX": {"model": ProblemDetails}},
        generate_unique_id_function=lambda route: route.name,
        # Without this every request pays 60 microseconds for spans that nobody collects.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.service = Service(engine)
    app.state.fleet = engine.fleet
    problems.install(app)
    for routes in (
        system,
        instances,
        streams,
        images,
        registries,
        plans,
        networks,
        volumes,
        secrets,
        snapshots,
        rooms,
        audits,
        operations,
        usage,
        access,
        billing,
        fleet,
        arrivals,
        replicas,
    ):
        app.include_router(routes.router)
    app.include_router(instances.files)
    app.include_router(images.uploads)
    app.include_router(builds.router)
    app.include_router(usage.metrics)
    app.include_router(page.router)
    app.include_router(sockets.router)
    app.add_middleware(Conditional)
    app.add_middleware(Trailed)
    app.add_middleware(Elsewhere)
    openapi.install(app)
    return app
