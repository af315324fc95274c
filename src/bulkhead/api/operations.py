"""Routes of operations: what lasts, how far it is, how it ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, json_response, problem_line
from bulkhead.api.service import service_of
from bulkhead.api.sse import Stream, last_seen, stream, wants_stream
from bulkhead.engine.operations import Report
from bulkhead.operation import Operation, OperationState

router = APIRouter(prefix="/v1", tags=["operations"], max_body_size=1 << 16)


@router.get("/operations")
async def list_operations(request: Request, state: OperationState | None = None) -> Response:
    """Every operation that is remembered, or those in a state, the newest first."""
    service = service_of(request)
    found = await service.call(service.engine.operations.list, tenant=principal_of(request).tenant)
    return json_response([one for one in found if state in (None, one.state)])


@router.get("/operations/{operation}")
async def get_operation(request: Request, operation: str) -> Response:
    """One operation: its state, how far it is, what came of it."""
    service = service_of(request)
    tenant = principal_of(request).tenant
    return json_response(await service.call(service.engine.operations.get, operation, tenant=tenant))


@router.delete("/operations/{operation}")
async def cancel_operation(request: Request, operation: str) -> Response:
    """Ask an operation that runs to end (202, its record); forget one that has ended (204)."""
    service = service_of(request)
    tenant = principal_of(request).tenant
    running = await service.call(service.engine.operations.cancel, operation, tenant=tenant)
    return Response(status_code=204) if running is None else json_response(running, 202)


@router.get("/operations/{operation}/events")
async def follow_operation(
    request: Request, operation: str, after: Annotated[int, Query(ge=0, le=1 << 62)] = 0
) -> Response:
    """Its progress, and how it ends. Server-sent events where the client accepts them, else NDJSON.

    Events are `progress`, numbered, and at last `end` with the operation's record. NDJSON is `{"progress": ...}` with
    its `number`, then `{"operation": ...}`.
    """
    service = service_of(request)
    operations = service.engine.operations
    await service.call(operations.get, operation, tenant=principal_of(request).tenant)
    last = last_seen(request, after)

    def events(client: Stream) -> None:
        for each in operations.follow(operation, after=last, alive=client.alive):
            if isinstance(each, Report):
                client.send("progress", to_json(each.progress), number=each.number)
            else:
                client.send("end", to_json(each))

    def lines(pipe: Pipe) -> None:
        for each in operations.follow(operation, after=last, alive=pipe.alive):
            pipe.write(_line(each))

    if wants_stream(request):
        return stream(request, events)
    return ThreadResponse(service, lines, media_type=NDJSON, late=problem_line)


def _line(each: Report | Operation) -> bytes:
    if isinstance(each, Report):
        return to_json({"number": each.number, "progress": each.progress}) + b"\n"
    return to_json({"operation": each}) + b"\n"
