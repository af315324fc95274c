"""The route of builds: the order as one line of JSON, then the context as a tar; NDJSON comes back."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import BinaryIO, cast

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api import problems
from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, Upload, problem_line
from bulkhead.api.service import service_of
from bulkhead.engine.builds.order import BuildOrder, Told
from bulkhead.errors import Refused

MOST_ORDER = 64 << 20
"""Bytes of the first line, secrets included."""
CHUNK = 1 << 18

router = APIRouter(prefix="/v1", tags=["images"])


@router.post("/build")
async def build(request: Request) -> Response:
    """Carry a Containerfile out. The body: a BuildOrder as JSON on one line, then the context as a tar.

    Answers `{"build": ...}` for everything that happens, then `{"result": ...}`, the image, or `{"problem": ...}`.
    """
    service, upload = service_of(request), Upload(request)

    def produce(pipe: Pipe) -> None:
        body = cast(BinaryIO, BufferedReader(upload, CHUNK))
        order: BuildOrder = problems.validate(BuildOrder, _first_line(body))

        def tell(told: Told) -> None:
            pipe.write(b'{"build":' + to_json(told) + b"}\n")

        image = service.engine.build(order, _chunks(body), tell=tell, alive=pipe.alive)
        pipe.write(b'{"result":' + to_json(image) + b"}\n")

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line, upload=upload)


def _first_line(body: BinaryIO) -> bytes:
    line = body.readline(MOST_ORDER)
    if not line.endswith(b"\n"):
        raise Refused(f"the body does not begin with a line of JSON of at most {MOST_ORDER} bytes")
    return line


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: body.read(CHUNK), b"")
