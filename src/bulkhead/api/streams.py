"""Routes that join a client's terminal or pipes with a workload: run, attach, exec. One request each, both ways."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from struct import pack
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bulkhead.agent import frames
from bulkhead.agent.collect import Collected
from bulkhead.agent.explain import explain
from bulkhead.agent.frames import MAX_DATA, WORKLOAD, Channel, ExecRequest, Exit, Frame, Type, encode, exec_payload
from bulkhead.api import problems
from bulkhead.api.launch import Launch, attach_payload, ending, open_stream
from bulkhead.api.relay import MEDIA_TYPE, STREAM, Agent, Answer, Client, Ended, Signalled, pump, tell
from bulkhead.api.responses import json_response
from bulkhead.api.service import Service, create_and_start, service_of
from bulkhead.errors import AgentError, BulkheadError, Refused
from bulkhead.model import CreateRequest, Instance, Model

router = APIRouter(prefix="/v1", tags=["streams"])


class AttachRequest(Model):
    """What to join."""

    stdin: bool = False
    output: bool = True


class ExecBody(Model):
    """A command to run beside the workload; None: as the workload has it."""

    command: tuple[str, ...] = Field(min_length=1)
    env: tuple[str, ...] = ()
    user: str | None = None
    workdir: str | None = Field(default=None, pattern=r"^/.*")
    tty: bool = False
    stdin: bool = False
    rows: int = Field(default=0, ge=0, le=65535)
    columns: int = Field(default=0, ge=0, le=65535)
    detach: bool = False


class RunRequest(CreateRequest):
    """An instance to create and start; `detach`: answer with its record, do not attach."""

    detach: bool = False


def _documented(body: type[Model]) -> dict[str, object]:
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    frames_of = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}, MEDIA_TYPE: frames_of}}
    }


_ANSWERS: dict[int | str, dict[str, object]] = {200: {"content": {MEDIA_TYPE: {}}, "description": "frames"}}


@router.post("/run", response_class=Response, responses=_ANSWERS, openapi_extra=_documented(RunRequest))
async def run(request: Request) -> Response:
    """Create, start and attach; the answer ends when the workload has, and, with `auto_remove`, is gone."""
    return FramesResponse(request, _run)


@router.post(
    "/instances/{ref}/run", response_class=Response, responses=_ANSWERS, openapi_extra=_documented(AttachRequest)
)
async def run_instance(request: Request, ref: str) -> Response:
    """Start an instance and attach to it; none of its output is missed."""
    return FramesResponse(request, lambda session: _begin(session, ref))


@router.post(
    "/instances/{ref}/attach", response_class=Response, responses=_ANSWERS, openapi_extra=_documented(AttachRequest)
)
async def attach(request: Request, ref: str) -> Response:
    """Join the workload's stdin and output; what it wrote before is in the log."""
    return FramesResponse(request, lambda session: attach_to(session, ref))


@router.post("/instances/{ref}/exec", response_class=Response, responses=_ANSWERS, openapi_extra=_documented(ExecBody))
async def exec_command(request: Request, ref: str) -> Response:
    """Run a command beside the workload."""
    return FramesResponse(request, lambda session: exec_in(session, ref))


@dataclass(frozen=True, slots=True)
class Session:
    """One such request while it is served."""

    service: Service
    client: Client
    answer: Answer
    asgi: tuple[Scope, Receive, Send]

    async def reply(self, response: Response) -> None:
        """Answer with an ordinary response instead of frames."""
        await response(*self.asgi)

    async def relay(self, agent: Agent, response: object, *, ended: Ended, signalled: Signalled | None = None) -> None:
        """Begin the answer with RESPONSE and move frames to the end."""
        await self.answer.begin(to_json(response))
        stopping = self.service.stopping
        await pump(self.client, self.answer, agent, signalled=signalled, stopping=stopping, ended=ended)

    async def join(self, agent: Agent, instance: Instance, *, ended: Ended) -> None:
        """The same with an instance's workload."""
        spec = instance.spec

        async def signalled(number: int) -> None:
            if not spec.powered:
                await agent.write(encode(Frame(Type.SIGNAL, WORKLOAD, pack("<II", number, 0))))
                return
            # Its hypervisor would take a signal for its own. One that says nothing to a machine is dropped.
            with suppress(BulkheadError):
                await self.service.call(self.service.engine.kill, spec.id, signal=str(number))

        about = {"id": spec.id, "name": spec.name, "tty": spec.tty, "stdin": spec.stdin}
        response = about | ({"isolation": spec.isolation, "choice": spec.choice} if spec.choice else {})
        await self.relay(agent, response, ended=_recorded(ended) if spec.program else ended, signalled=signalled)


def _recorded(ended: Ended) -> Ended:
    """Of a unikernel the agent sees its hypervisor's exit code alone: the engine's record has the program's."""

    async def told(how: Exit | None) -> Exit:
        try:
            return await ended(None)
        except AgentError:
            if how is None:
                raise
            return how

    return told


class FramesResponse(Response):
    """Serves a Session; reads the request's body itself, while it answers."""

    def __init__(self, request: Request, serve: Callable[[Session], Awaitable[None]]) -> None:
        super().__init__()
        self._service, self._serve = service_of(request), serve
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in (MEDIA_TYPE, "application/json"):
            raise Refused(f"content type {kind!r} is not served here", hint=f"use application/json or {MEDIA_TYPE}")
        self._framed = kind == MEDIA_TYPE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer(send, last=self._framed)
        session = Session(self._service, Client(receive, framed=self._framed), answer, (scope, receive, send))
        try:
            await self._serve(session)
        except BulkheadError as error:
            await tell(answer, error, problems.encode(error))


# --- exec


async def exec_in(session: Session, ref: str) -> None:
    """Serve a request for a command beside the workload."""
    service = session.service
    body: ExecBody = problems.validate(ExecBody, await session.client.request())
    stdin = body.stdin and session.client.framed
    opened = await service.call(_open_exec, service, ref, body, stdin=stdin)
    if opened is None:
        await _collect(session, ref, body, stdin=stdin)
        return
    connection, request = opened
    agent = Agent(connection)
    try:
        answer = await agent.opened()
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), request)
        response = {"pid": frames.parse_pid(answer.payload), "tty": body.tty, "stdin": body.stdin}
        if body.detach:
            await agent.write(encode(Frame(Type.CLOSE, STREAM)))
            await session.reply(json_response(response))
            return
        await session.relay(agent, response, ended=_exec_ended)
    finally:
        agent.close()


def _open_exec(service: Service, ref: str, body: ExecBody, *, stdin: bool) -> tuple[socket.socket, ExecRequest] | None:
    """None where no client can be joined to a command."""
    if service.engine.collects(ref):
        return None
    path, request = service.engine.prepare_exec(
        ref,
        argv=body.command,
        env=body.env,
        user=body.user,
        workdir=body.workdir,
        tty=body.tty,
        stdin=stdin,
    )
    request = replace(request, rows=body.rows, columns=body.columns)
    return open_stream(path, Type.EXEC, exec_payload(request)), request


async def _collect(session: Session, ref: str, body: ExecBody, *, stdin: bool) -> None:
    """Where no client can be joined to a command: run it to its end, then tell what it said."""
    service, stop = session.service, threading.Event()

    def work() -> Collected:
        return service.engine.collect(
            ref,
            argv=body.command,
            env=body.env,
            user=body.user,
            workdir=body.workdir,
            tty=body.tty,
            stdin=stdin,
            alive=lambda: not (stop.is_set() or service.stopping.is_set()),
        )

    if body.detach:
        raise Refused("a command cannot be left running by a guest agent", hint="leave out -d, or name nohup in it")
    running, gone = service.begin_long(work), asyncio.ensure_future(_left(session.client))
    try:
        waiting: set[asyncio.Future[Any]] = {running, gone}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return
        await _tell_collected(session, running.result())
    finally:
        stop.set()
        gone.cancel()


async def _left(client: Client) -> None:
    while await client.frames() is not None:
        pass


async def _tell_collected(session: Session, done: Collected) -> None:
    answer = session.answer
    await answer.begin(to_json({"pid": 0, "tty": False, "stdin": False}))
    for channel, data in ((Channel.STDOUT, done.stdout), (Channel.STDERR, done.stderr)):
        for start in range(0, len(data), MAX_DATA):
            await answer.write(encode(Frame(Type.DATA, STREAM, data[start : start + MAX_DATA], channel)))
    if done.truncated:
        raise AgentError(
            f"the command ended with {done.code} and said more than a guest agent passes on: the rest is lost",
            hint="let it write to a file, and fetch that by ssh",
        )
    await answer.end(encode(Frame(Type.EXIT, STREAM, pack("<II", done.code, 0))))


async def _exec_ended(how: Exit | None) -> Exit:
    if how is None:
        raise AgentError("the instance ended before the command did")
    return how


# --- attach and run


async def attach_to(session: Session, ref: str) -> None:
    """Serve a request to join a workload."""
    service = session.service
    body: AttachRequest = problems.validate(AttachRequest, await session.client.request())
    instance = await service.call(service.engine.get, ref)
    path = await service.call(service.engine.prepare_attach, instance.spec.id)
    payload = attach_payload(stdin=body.stdin and session.client.framed, output=body.output)
    agent = Agent(await service.call(open_stream, path, Type.ATTACH, payload))
    try:
        answer = await agent.opened()
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), ())
        await session.join(agent, instance, ended=ending(service, instance.spec.id))
    finally:
        agent.close()


async def _begin(session: Session, ref: str) -> None:
    service = session.service
    body: AttachRequest = problems.validate(AttachRequest, await session.client.request())
    instance = await service.call(service.engine.get, ref)
    launch = Launch(service, stdin=body.stdin and session.client.framed)
    try:
        await service.call(launch.created, instance)
        instance = await service.call(service.engine.start, instance.spec.id, on_launch=launch.launched)
        agent = Agent(launch.take())
    finally:
        launch.close()
    try:
        await session.join(agent, instance, ended=launch.ended)
    finally:
        agent.close()


async def _run(session: Session) -> None:
    service = session.service
    body: RunRequest = problems.validate(RunRequest, await session.client.request())
    if body.detach:
        await session.reply(json_response(await service.call(create_and_start, service.engine, body), 201))
        return
    launch = Launch(service, stdin=body.stdin and session.client.framed)
    try:
        instance = await service.call(
            create_and_start, service.engine, body, on_create=launch.created, on_launch=launch.launched
        )
        agent = Agent(launch.take())
    finally:
        launch.close()
    try:
        await session.join(agent, instance, ended=launch.ended)
    finally:
        agent.close()
