"""Routes of audits: of an instance that runs, and of a level by an instance that is made for it and thrown away."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bulkhead.api.progress import with_progress
from bulkhead.api.service import service_of
from bulkhead.audit.report import AuditReport
from bulkhead.events import Progress
from bulkhead.model import Isolation, Model

router = APIRouter(prefix="/v1", tags=["audits"], max_body_size=1 << 16)


class AuditRequest(Model):
    """Which level; `image` None: the smallest that is there and fits."""

    level: Isolation
    image: str | None = None


@router.post("/audit", responses={200: {"model": AuditReport}})
async def audit_level(request: Request, body: AuditRequest) -> Response:
    """Audit a level: progress and the report as NDJSON. The instance that is made for it is gone afterwards."""
    engine = service_of(request).engine

    def work(progress: Progress) -> object:
        return engine.audits.audit_level(body.level, image=body.image, progress=progress)

    return with_progress(request, work, target=str(body.level))


@router.post("/instances/{ref}/audit", responses={200: {"model": AuditReport}})
async def audit_instance(request: Request, ref: str) -> Response:
    """Audit a running instance: progress and the report as NDJSON. Nothing is left behind in it."""
    engine = service_of(request).engine

    def work(progress: Progress) -> object:
        return engine.audits.audit(engine.get(ref), progress=progress)

    return with_progress(request, work)
