"""Routes of instances: their life, their state, their logs and files. Terminals and streams are in streams.py."""

from __future__ import annotations

import asyncio
import json
import math
from io import BufferedReader
from typing import Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.conditions import edit
from bulkhead.api.progress import answered, is_detached, with_progress
from bulkhead.api.responses import NDJSON, TAR, Pipe, ThreadResponse, Upload, disconnected, json_response, problem_line
from bulkhead.api.service import LogLine, create_and_start, service_of
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import Forbidden, Problem, Refused
from bulkhead.events import Progress
from bulkhead.model import CreateRequest, Exit, Instance, Isolation, Model, PlanRequest, RestartPolicy
from bulkhead.moves import Wanted
from bulkhead.tenancy.roles import Permission

MAX_BODY = 1 << 20
router = APIRouter(prefix="/v1", tags=["instances"], max_body_size=MAX_BODY)
files = APIRouter(prefix="/v1", tags=["instances"])
"""Archives are as large as they are."""

InstanceList = list[Instance]


class StopRequest(Model):
    """How to end a workload; None: as the instance says."""

    timeout: float | None = Field(default=None, ge=0, description="seconds until KILL")
    signal: str | None = None


class RestartRequest(Model):
    """How to end the workload first; None: as the instance says."""

    timeout: float | None = Field(default=None, ge=0, description="seconds until KILL")


class KillRequest(Model):
    """Which signal to send."""

    signal: str = "SIGKILL"


class UpdateRequest(Model):
    """What to change: fields of the plan, the restart policy, or both."""

    plan: PlanRequest = PlanRequest()
    restart: RestartPolicy | None = None


class MoveRequest(Wanted):
    """Another wall, or another host; what is None stays as it is."""

    isolation: Isolation | None = None
    host: str | None = Field(default=None, min_length=1, max_length=128, description="of the fleet, by name or id")
    dry_run: bool = Field(default=False, description="of a move to a host: only say what stands in the way")
    plan: PlanRequest = PlanRequest()
    network: str | None = None
    within: float = Field(default=120.0, gt=0, le=86400, description="seconds for its health check to pass")

    @property
    def wanted(self) -> Wanted:
        """How a move to a host is to go."""
        return Wanted(way=self.way, rate=self.rate, downtime=self.downtime, patience=self.patience)


class LogQuery(Model):
    """Which entries of a log: times in seconds since the epoch, `tail` the last so many lines of them."""

    strict = False  # in a query everything is text, which queries.py looks at

    since: float = 0.0
    until: float | None = None
    tail: int | None = Field(default=None, ge=0)
    follow: bool = False


@router.get("/instances", responses={200: {"model": InstanceList}})
async def list_instances(request: Request) -> Response:
    """Every instance, running or not."""
    service = service_of(request)
    return json_response(await service.call(service.engine.list))


@router.post("/instances", status_code=201, responses={201: {"model": Instance}})
async def create_instance(request: Request, body: CreateRequest, start: bool = False) -> Response:
    """Create an instance; with `start` run it as well, and leave nothing of it where that fails."""
    service = service_of(request)
    if is_detached(request):
        engine, fleet = service.engine, cast(Member, request.app.state.fleet)

        def work() -> Instance:
            return create_and_start(engine, body) if start else engine.create(body)

        return await answered(request, lambda: fleet.giving_back(work), target=body.name or "")
    if start:
        return json_response(await service.call(create_and_start, service.engine, body), 201)
    return json_response(await service.call(service.engine.create, body), 201)


@router.post("/dry-run")
async def dry_run(request: Request, body: CreateRequest) -> Response:
    """What a start of such an instance would do, operation by operation, in words: `{"text": ...}`."""
    service = service_of(request)
    return json_response({"text": await service.call(service.engine.dry_run, body)})


@router.get("/instances/{ref}", responses={200: {"model": Instance}})
async def get_instance(request: Request, ref: str) -> Response:
    """One instance's record."""
    service = service_of(request)
    return json_response(await service.call(service.engine.get, ref))


@router.get("/instances/{ref}/describe")
async def describe_instance(request: Request, ref: str) -> Response:
    """The record, the limits in force, what is not isolated, and where things are."""
    service = service_of(request)
    return json_response(await service.call(service.engine.describe, ref))


@router.post("/instances/{ref}/start", responses={200: {"model": Instance}})
async def start_instance(request: Request, ref: str) -> Response:
    """Run the workload; answers when its program has been executed."""
    engine = service_of(request).engine
    if is_detached(request):
        return await answered(request, lambda: engine.start(ref))
    return json_response(await service_of(request).call(engine.start, ref))


@router.post("/instances/{ref}/stop", responses={200: {"model": Instance}})
async def stop_instance(request: Request, ref: str, body: StopRequest | None = None) -> Response:
    """End the workload: its stop signal, KILL after the timeout. Answers when it has ended."""
    engine, how = service_of(request).engine, body or StopRequest()
    # Workloads may take their time to end: they do not keep other calls waiting.
    return await answered(request, lambda: engine.stop(ref, timeout=how.timeout, signal=how.signal))


@router.post("/instances/{ref}/restart", responses={200: {"model": Instance}})
async def restart_instance(request: Request, ref: str, body: RestartRequest | None = None) -> Response:
    """Stop (where it runs) and start again."""
    engine, how = service_of(request).engine, body or RestartRequest()

    def restart() -> Instance:
        engine.stop(ref, timeout=how.timeout)
        return engine.start(ref)

    return await answered(request, restart)


@router.post("/instances/{ref}/kill", responses={200: {"model": Instance}})
async def kill_instance(request: Request, ref: str, body: KillRequest | None = None) -> Response:
    """Send a signal to the workload."""
    service = service_of(request)
    return json_response(await service.call(service.engine.kill, ref, signal=(body or KillRequest()).signal))


@router.post("/instances/{ref}/pause", responses={200: {"model": Instance}})
async def pause_instance(request: Request, ref: str) -> Response:
    """Freeze every process of a running instance."""
    service = service_of(request)
    return json_response(await service.call(service.engine.pause, ref))


@router.post("/instances/{ref}/unpause", responses={200: {"model": Instance}})
async def unpause_instance(request: Request, ref: str) -> Response:
    """Let a paused instance go on."""
    service = service_of(request)
    return json_response(await service.call(service.engine.unpause, ref))


@router.delete("/instances/{ref}")
async def delete_instance(request: Request, ref: str, force: bool = False) -> Response:
    """Remove an instance; `force` ends a running one first. Answers `{"id": ...}`."""
    engine = service_of(request).engine

    def delete(found: Instance) -> str:
        return engine.delete(found.spec.id, force=force)

    if is_detached(request):
        return await answered(request, lambda: {"id": engine.delete(ref, force=force)})
    return json_response({"id": await edit(request, lambda: engine.get(ref), delete, key=_key)})


@router.patch("/instances/{ref}", responses={200: {"model": Instance}})
async def update_instance(request: Request, ref: str, body: UpdateRequest) -> Response:
    """Change the plan, also of a running instance: all of it or nothing."""
    engine = service_of(request).engine

    def update(found: Instance) -> Instance:
        return engine.update(found.spec.id, body.plan, restart=body.restart)

    return json_response(await edit(request, lambda: engine.get(ref), update, key=_key))


def _key(instance: Instance) -> str:
    return instance.spec.id


@router.post("/instances/{ref}/move")
async def move_instance(request: Request, ref: str, body: MoveRequest) -> Response:
    """Put an instance behind another wall or on another host; progress and how it went as NDJSON. A client that goes
    leads back."""
    engine, level = service_of(request).engine, body.isolation
    if wrong := _move_problems(body):
        raise Refused(wrong)
    if body.host is not None:
        return _between_hosts(request, ref, body, body.host)
    assert level is not None

    def work(progress: Progress) -> object:
        return engine.move(ref, level, plan=body.plan, network=body.network, within=body.within, progress=progress)

    return with_progress(request, work)


def _move_problems(body: MoveRequest) -> list[Problem]:
    if body.host is None:
        found = [] if body.isolation else [Problem("neither a host nor an isolation is named to move to", "name one")]
        wanted, usual = body.wanted.model_dump(), Wanted().model_dump()
        only = {"dry_run": body.dry_run, **{name: value != usual[name] for name, value in wanted.items()}}
        return found + [
            Problem(f"{name} is of moves to a host", "name a host") for name, given in only.items() if given
        ]
    if body.isolation is not None or body.network is not None or body.plan != PlanRequest():
        what = "a move to another host changes neither the wall, the plan nor the network: it could not be undone there"
        return [Problem(what, "do one after the other")]
    return []


def _between_hosts(request: Request, ref: str, body: MoveRequest, host: str) -> Response:
    if not principal_of(request).may(Permission.HOST):
        raise Forbidden("on which host something runs is the operator's to say", hint="leave out --host")
    engine, fleet = service_of(request).engine, cast(Member, request.app.state.fleet)

    def work(progress: Progress) -> object:
        fleet.opened()
        found = engine.get(ref).spec.id
        return fleet.travels.move(found, host, body.wanted, dry_run=body.dry_run, progress=progress)

    return with_progress(request, work)


@router.get("/instances/{ref}/wait", responses={200: {"model": Exit}, 204: {"description": "still running"}})
async def wait_instance(request: Request, ref: str, timeout: Annotated[float | None, Query(ge=0)] = None) -> Response:
    """Wait until the workload has ended: how it ended, or 204 after `timeout` seconds."""
    service = service_of(request)
    # Never cancelled: the engine resolves it whether or not anybody still waits.
    ending = asyncio.wrap_future(await service.call(service.engine.wait, ref))
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        waiting: set[asyncio.Future[Any]] = {ending, gone}
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    return json_response(ending.result()) if ending.done() else Response(status_code=204)


@router.get("/stats")
async def stats(request: Request, ref: Annotated[list[str] | None, Query()] = None) -> Response:
    """What running instances use now: those named by `ref`, or all."""
    service = service_of(request)
    return json_response(await service.call(service.engine.stats, ref))


@router.get("/instances/{ref}/logs")
async def logs(request: Request, ref: str, query: Annotated[LogQuery, Query()]) -> Response:
    """The log as NDJSON: `when` (s), `stream`, `text`, `partial`. Bytes that are not UTF-8 become U+DC80 to U+DCFF."""
    service = service_of(request)
    await service.call(service.engine.get, ref)
    until = math.inf if query.until is None else query.until

    def produce(pipe: Pipe) -> None:
        alive = pipe.alive if query.follow else None
        for line in service.engine.logs(ref, since=query.since, until=until, tail=query.tail, follow=alive):
            pipe.write(_log_line(line))

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line)


def _log_line(line: LogLine) -> bytes:
    text = line.text.decode("utf-8", "surrogateescape")
    entry = {"when": line.when, "stream": line.stream, "text": text, "partial": line.partial}
    return json.dumps(entry).encode() + b"\n"


@files.get("/instances/{ref}/files")
async def copy_out(request: Request, ref: str, path: str) -> Response:
    """A file or a directory of the instance as a tar archive."""
    service = service_of(request)

    def produce(pipe: Pipe) -> None:
        for portion in service.engine.copy_out(ref, path):
            pipe.write(portion)

    return ThreadResponse(service, produce, media_type=TAR)


@files.put("/instances/{ref}/files", status_code=204)
async def copy_in(request: Request, ref: str, path: str) -> Response:
    """Unpack the tar archive in the body below the directory `path`."""
    service = service_of(request)
    stream = cast(BinaryIO, BufferedReader(Upload(request), 1 << 16))
    await service.begin_long(service.engine.copy_in, ref, path, stream)
    return Response(status_code=204)
