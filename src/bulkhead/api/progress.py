"""Answers to what takes longer than a second: NDJSON, `{"step": ...}` lines, then a result or a problem."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response

from bulkhead.api.responses import NDJSON, Pipe, ThreadResponse, Upload, problem_line
from bulkhead.api.service import service_of
from bulkhead.events import Progress, Step

STEP_SECONDS = 0.1
"""Progress of one step is told at most this often."""


def with_progress(request: Request, work: Callable[[Progress], object], *, upload: Upload | None = None) -> Response:
    """Do `work` in a thread of its own. A client that goes ends it: its next step raises BrokenPipeError."""

    def produce(pipe: Pipe) -> None:
        result = work(_teller(pipe))
        pipe.write(b'{"result":' + to_json(result) + b"}\n")

    return ThreadResponse(service_of(request), produce, media_type=NDJSON, late=problem_line, upload=upload)


def _teller(pipe: Pipe) -> Progress:
    """A progress sink that writes lines: every new step, the end of a step, and now and then what is between."""
    label, told = "", 0.0

    def tell(step: Step) -> None:
        nonlocal label, told
        now = time.monotonic()
        if step.label != label or (step.total and step.done >= step.total) or now - told >= STEP_SECONDS:
            label, told = step.label, now
            pipe.write(b'{"step":' + to_json(step) + b"}\n")

    return tell
