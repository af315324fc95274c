"""Routes of clean rooms. A room, or an image's name, lives for as long as the request that opened it."""

from __future__ import annotations

import json
import time

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, json_response, problem_line
from bulkhead.api.service import service_of
from bulkhead.model import CreateRequest
from bulkhead.storage.changes import Changes

router = APIRouter(prefix="/v1", tags=["rooms"], max_body_size=1 << 20)
LAYER = "application/vnd.oci.image.layer.v1.tar"
LOOK_SECONDS = 0.5
"""How soon a room is removed after whoever held it has gone."""


@router.post("/rooms")
async def open_room(request: Request, body: CreateRequest) -> Response:
    """Make an instance that belongs to this request: `{"room": ...}` is its record, then the answer stays open.

    When the client goes, or the daemon ends, the room is removed with all that runs in it.
    """
    service = service_of(request)
    rooms = service.engine.rooms

    def produce(pipe: Pipe) -> None:
        instance_id = ""
        try:
            room = rooms.open(body)
            instance_id = room.spec.id
            pipe.write(b'{"room":' + to_json(room) + b"}\n")
            while pipe.alive() and rooms.is_there(instance_id):
                time.sleep(LOOK_SECONDS)
        finally:
            if instance_id:
                rooms.close(instance_id)

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line)


@router.post("/images/temporary")
async def hold_name(request: Request) -> Response:
    """A name for an image that is to go with this request: `{"name": ...}`, then the answer stays open.

    When the client goes, or the daemon ends, the name is taken away, and with it the image where it has no other.
    """
    service = service_of(request)
    temporaries = service.engine.temporaries

    def produce(pipe: Pipe) -> None:
        name = temporaries.name()
        try:
            pipe.write(json.dumps({"name": name}).encode() + b"\n")
            while pipe.alive():
                time.sleep(LOOK_SECONDS)
        finally:
            temporaries.end(name)

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line)


@router.get("/instances/{ref}/changes", responses={200: {"model": Changes}})
async def get_changes(request: Request, ref: str) -> Response:
    """How much an instance that does not run has changed."""
    service = service_of(request)
    return json_response(await service.call(lambda: service.engine.rooms.changes(service.engine.get(ref))))


@router.get("/instances/{ref}/changes/layer")
async def get_layer(request: Request, ref: str) -> Response:
    """What an instance that does not run has changed, as an OCI layer: a tar. A machine's is copied out first."""
    service = service_of(request)
    instance = await service.call(service.engine.get, ref)

    def produce(pipe: Pipe) -> None:
        for portion in service.engine.rooms.layer(instance):
            pipe.write(portion)

    return ThreadResponse(service, produce, media_type=LAYER)


@router.get("/instances/{ref}/watch")
async def watch(request: Request, ref: str) -> Response:
    """Which programs run in a chroot or container, who has started each, and which files each opens, as NDJSON.

    The first line is `{}`: from there on nothing is missed. `{"step", "by", "program"}` is an execution, `{"step",
    "path"}` a file that it opens; 0 is what came from outside.
    """
    service = service_of(request)
    instance = await service.call(service.engine.get, ref)

    def produce(pipe: Pipe) -> None:
        for line in service.engine.watches.watch(instance, alive=pipe.alive):
            pipe.write(json.dumps(line).encode() + b"\n")

    return ThreadResponse(service, produce, media_type=NDJSON, late=problem_line)


@router.delete("/instances/{ref}/watch", status_code=204)
async def end_watch(request: Request, ref: str) -> Response:
    """Let the watch of an instance tell what it has seen so far, and end."""
    service = service_of(request)
    service.engine.watches.end((await service.call(service.engine.get, ref)).spec.id)
    return Response(status_code=204)
