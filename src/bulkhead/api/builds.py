"""The route of builds: the order as one line of JSON, then the context as a tar; NDJSON comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import BinaryIO, cast

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api import problems
from bulkhead.api.progress import Detached, Watched, is_detached
from bulkhead.api.responses import Pipe, Upload
from bulkhead.api.service import Service, service_of
from bulkhead.engine.builds.order import BuildOrder, Told
from bulkhead.errors import Refused
from bulkhead.events import Progress, Step

MOST_ORDER = 64 << 20
"""Bytes of the first line, secrets included."""
MOST_LABEL = 200
CHUNK = 1 << 18
_SHOWN = ("begin", "cached")

router = APIRouter(prefix="/v1", tags=["images"])


@router.post("/build")
async def build(request: Request) -> Response:
    """Carry a Containerfile out. The body: a BuildOrder as JSON on one line, then the context as a tar.

    Answers `{"build": ...}` for everything that happens, then `{"result": ...}`, the image, or `{"problem": ...}`.
    """
    service, upload = service_of(request), Upload(request)
    if is_detached(request):
        stopping = service.stopping

        def silent(progress: Progress) -> object:
            return _carry_out(service, upload, progress, lambda _: None, lambda: not stopping.is_set())

        return Detached(request, silent, target="", upload=upload)

    def work(progress: Progress, pipe: Pipe) -> object:
        def tell(told: Told) -> None:
            pipe.write(b'{"build":' + to_json(told) + b"}\n")

        return _carry_out(service, upload, progress, tell, pipe.alive)

    return Watched(request, work, upload=upload, steps=False)


def _carry_out(
    service: Service, upload: Upload, progress: Progress, tell: Callable[[Told], None], alive: Callable[[], bool]
) -> object:
    """Read the order, then build. What begins is the operation's progress, by which it is cancelled as well."""
    body = cast(BinaryIO, BufferedReader(upload, CHUNK))
    order: BuildOrder = problems.validate(BuildOrder, _first_line(body))

    def told(event: Told) -> None:
        words = " ".join(filter(None, (event.stage, event.place, " ".join(event.text.split()))))
        progress(Step(words[:MOST_LABEL] if event.kind in _SHOWN else f"step {event.step}"))
        tell(event)

    return service.engine.build(order, _chunks(body), tell=told, alive=alive)


def _first_line(body: BinaryIO) -> bytes:
    line = body.readline(MOST_ORDER)
    if not line.endswith(b"\n"):
        raise Refused(f"the body does not begin with a line of JSON of at most {MOST_ORDER} bytes")
    return line


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: body.read(CHUNK), b"")
