"""Answers to what takes longer than a second.

Each such request is an operation, with a record of its own. Who asks waits for it, with `{"step": ...}` lines of NDJSON
and a result or a problem at the end; or, with `?detach=true` or `Prefer: respond-async`, is told where to look for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bulkhead.api import problems
from bulkhead.api.auth import principal_of
from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, Upload, json_response, problem_line
from bulkhead.api.service import Service, service_of
from bulkhead.errors import BulkheadError, Refused
from bulkhead.events import Progress, Step
from bulkhead.operation import Operation, OperationState
from bulkhead.tenancy import acting

log = logging.getLogger(__name__)
DETACH = "detach"
ASYNC = "respond-async"
_YES, _NO = "true", ("", "false")


def with_progress(
    request: Request, work: Callable[[Progress], object], *, upload: Upload | None = None, target: str = ""
) -> Response:
    """Do `work` in a thread of its own. A client that goes ends it: its next step raises BrokenPipeError."""
    if is_detached(request):
        return Detached(request, work, target=target, upload=upload)
    return Watched(request, lambda progress, _: work(progress), target=target, upload=upload)


async def answered(request: Request, work: Callable[[], object], *, target: str = "", status: int = 200) -> Response:
    """The same of what has no steps and cannot be cancelled: its result is the answer, unless it is detached."""
    if is_detached(request):
        return Detached(request, lambda _: work(), target=target, cancellable=False)
    return json_response(await service_of(request).begin_long(work), status)


def is_detached(request: Request) -> bool:
    """Whether the client does not want to wait. Raises Refused where `detach` is neither true nor false."""
    asked = request.query_params.get(DETACH, "")
    if asked == _YES:
        return True
    if asked not in _NO:
        raise Refused(f"detach {asked!r} is neither true nor false", hint="see docs/reference/http-api.md")
    preferred = [each.partition(";")[0].strip().lower() for each in request.headers.get("prefer", "").split(",")]
    return ASYNC in preferred


def begin(request: Request, target: str, *, cancellable: bool) -> Operation:
    """The operation that a request is; it is recorded as running."""
    acting.carried_out(lambda: None)
    about = target or "/".join(map(str, request.path_params.values()))
    kind = str(request.scope["route"].name)
    return service_of(request).engine.operations.begin(
        kind, about, tenant=principal_of(request).home, cancellable=cancellable
    )


def location(operation: Operation) -> str:
    """Where an operation's record is."""
    return f"/v1/operations/{operation.id}"


def carry_out(
    service: Service,
    operation: Operation,
    work: Callable[[Progress], object],
    *,
    alive: Callable[[], bool],
    told: Callable[[Step], None] = lambda _: None,
) -> object:
    """In a thread: do `work` and record how it ended. `told` gets the steps that are worth telling."""
    operations = service.engine.operations

    def progress(step: Step) -> None:
        if not alive():
            raise BrokenPipeError
        if operations.tell(operation.id, step):
            told(step)

    def end(state: OperationState, *, result: object = None, problem: object = None) -> None:
        # The store may have been closed with the daemon: the next one finds the operation interrupted.
        with suppress(RuntimeError):
            operations.end(operation.id, state, result=result, problem=problem)

    try:
        result = work(progress)
    except BrokenPipeError:
        end(OperationState.INTERRUPTED if service.stopping.is_set() else OperationState.CANCELLED)
        raise
    except BulkheadError as error:
        end(OperationState.FAILED, problem=problems.details(error))
        raise
    except BaseException as error:
        unknown = BulkheadError(f"{operation.kind} failed: {type(error).__name__}", hint=problems.LOG_HINT)
        end(OperationState.FAILED, problem=problems.details(unknown))
        raise
    end(OperationState.SUCCEEDED, result=json.loads(to_json(result)))
    return result


class Watched(ThreadResponse):
    """NDJSON of an operation while it goes on: its steps, unless `work` writes lines of its own, and the result."""

    def __init__(
        self,
        request: Request,
        work: Callable[[Progress, Pipe], object],
        *,
        target: str = "",
        upload: Upload | None = None,
        steps: bool = True,
    ) -> None:
        service = service_of(request)
        super().__init__(service, self._work, media_type=NDJSON, late=problem_line, upload=upload)
        self._operations, self._carried, self._steps, self._begun = service.engine.operations, work, steps, False
        self._operation = begin(request, target, cancellable=True)
        self.headers["link"] = f'<{location(self._operation)}>; rel="monitor"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except BulkheadError as error:
            if not self._begun:  # there was no thread for it
                self._operations.end(self._operation.id, OperationState.FAILED, problem=problems.details(error))
            raise

    def _work(self, pipe: Pipe) -> None:
        self._begun = True

        def told(step: Step) -> None:
            if self._steps:
                pipe.write(b'{"step":' + to_json(step) + b"}\n")

        result = carry_out(
            self._service,
            self._operation,
            lambda progress: self._carried(progress, pipe),
            alive=pipe.alive,
            told=told,
        )
        pipe.write(b'{"result":' + to_json(result) + b"}\n")


class Detached(Response):
    """202 with the operation's record, once all of the request has been read; the work goes on without the client."""

    def __init__(
        self,
        request: Request,
        work: Callable[[Progress], object],
        *,
        target: str,
        cancellable: bool = True,
        upload: Upload | None = None,
    ) -> None:
        super().__init__(status_code=202)
        self._service, self._work, self._upload = service_of(request), work, upload
        self._operation = begin(request, target, cancellable=cancellable)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operations = self._service.engine.operations
        try:
            done = self._service.begin_long(self._run)
        except BulkheadError as error:
            operations.end(self._operation.id, OperationState.FAILED, problem=problems.details(error))
            raise
        if self._upload:
            read = asyncio.ensure_future(self._upload.ended.wait())
            waiting: set[asyncio.Future[object]] = {read, done}  # type: ignore[arg-type]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            read.cancel()
        record = operations.get(self._operation.id)
        answer = json_response(record, 202)
        answer.headers["location"] = location(record)
        answer.headers["preference-applied"] = ASYNC
        await answer(scope, receive, send)

    def _run(self) -> None:
        stopping = self._service.stopping
        try:
            carry_out(self._service, self._operation, self._work, alive=lambda: not stopping.is_set())
        except (BulkheadError, BrokenPipeError):
            pass  # the record says so
        except Exception:
            log.exception("operation %s (%s) failed", self._operation.id, self._operation.kind)
