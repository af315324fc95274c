"""Routes of snapshots. Making one and putting one back answer with NDJSON: `{"step": ...}` lines, then the result."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bulkhead.api.conditions import edit
from bulkhead.api.progress import with_progress
from bulkhead.api.responses import json_response
from bulkhead.api.service import service_of
from bulkhead.events import Progress
from bulkhead.model import Model, Name, Snapshot

router = APIRouter(prefix="/v1", tags=["snapshots"], max_body_size=1 << 16)
SnapshotList = list[Snapshot]


class SnapshotRequest(Model):
    """A snapshot to make; None for a name: snap0, snap1 and so on."""

    name: Name | None = None
    memory: bool = False
    """Of a VM: where it is, too, to go on from there."""


class RestoreRequest(Model):
    """How to put a snapshot back."""

    force: bool = False
    """End an instance that runs, and start it again."""
    memory: bool = True
    """Go on with the memory, where the snapshot has one; False: the disk alone, as after a power cut."""


@router.get("/snapshots", responses={200: {"model": SnapshotList}})
async def list_snapshots(request: Request, instance: str | None = None) -> Response:
    """Every snapshot, or those of an instance, the oldest first."""
    service = service_of(request)
    return json_response(await service.call(service.engine.snapshots.list, instance))


@router.post("/instances/{ref}/snapshots")
async def create_snapshot(request: Request, ref: str, body: SnapshotRequest | None = None) -> Response:
    """Make a snapshot of an instance, running or not; progress and result as NDJSON."""
    snapshots, wanted = service_of(request).engine.snapshots, body or SnapshotRequest()

    def work(progress: Progress) -> object:
        return snapshots.create(ref, name=wanted.name, memory=wanted.memory, progress=progress)

    return with_progress(request, work)


@router.get("/instances/{ref}/snapshots/{name}", responses={200: {"model": Snapshot}})
async def get_snapshot(request: Request, ref: str, name: str) -> Response:
    """One snapshot."""
    service = service_of(request)
    return json_response(await service.call(service.engine.snapshots.get, ref, name))


@router.post("/instances/{ref}/snapshots/{name}/restore")
async def restore_snapshot(request: Request, ref: str, name: str, body: RestoreRequest | None = None) -> Response:
    """Put a snapshot back; progress and the instance's record as NDJSON."""
    snapshots, how = service_of(request).engine.snapshots, body or RestoreRequest()

    def work(progress: Progress) -> object:
        return snapshots.restore(ref, name, force=how.force, memory=how.memory, progress=progress)

    return with_progress(request, work)


@router.delete("/instances/{ref}/snapshots/{name}", status_code=204)
async def remove_snapshot(request: Request, ref: str, name: str) -> Response:
    """Remove a snapshot; what was made of it stays."""
    snapshots = service_of(request).engine.snapshots
    await edit(
        request,
        lambda: snapshots.get(ref, name),
        lambda found: snapshots.remove(found.spec.id, name),
        key=lambda found: f"snapshot/{found.id}",
    )
    return Response(status_code=204)
