"""Errors on the wire: RFC 9457 problem details, the same shape for every kind of error."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bulkhead.errors import BulkheadError, NotFound, Problem, Refused, TooMany, Unauthorized

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
MAX_VALUE = 80
LOG_HINT = "the daemon's log has the details"
_PLACES = ("body", "query", "path", "header")


class ProblemItem(BaseModel):
    """One thing that is wrong."""

    what: str
    hint: str = ""


class ProblemDetails(BaseModel):
    """An error (RFC 9457): `type` is a kind of error as in the error tree, `problems` has everything that is wrong."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    problems: list[ProblemItem] = Field(min_length=1)


def details(error: BulkheadError, status: int | None = None) -> dict[str, object]:
    """The error as it goes over the wire; with another status than its kind's."""
    return {
        "type": error.kind,
        "title": error.kind.replace("-", " "),
        "status": status or error.http_status,
        "detail": error.what,
        "hint": error.hint,
        "problems": [{"what": problem.what, "hint": problem.hint} for problem in error.problems],
    }


def encode(error: BulkheadError, status: int | None = None) -> bytes:
    """The error as JSON."""
    return json.dumps(details(error, status)).encode()


def of_status(status: int, request: str) -> bytes:
    """What the framework refuses by a status alone: a route that is not there, a body that is too large."""
    kind = NotFound if status == HTTPStatus.NOT_FOUND else Refused
    what = f"{request}: {HTTPStatus(status).phrase.lower()}"
    return encode(kind(what, hint="the routes are in docs/reference/http-api.md"), status)


def from_validation(errors: Sequence[Mapping[str, Any]], *, hidden: bool = False) -> Refused:
    """What pydantic found, all of it, in words; with `hidden` without what was sent."""
    return Refused(Problem(_words(item, hidden=hidden), "see docs/reference/http-api.md") for item in errors)


def validate(model: type[BaseModel], body: bytes) -> Any:
    """A JSON document as `model`. Raises Refused with everything that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False)) from None


def _words(item: Mapping[str, Any], *, hidden: bool) -> str:
    location = [str(part) for part in item["loc"]]
    if location and location[0] in _PLACES:
        location = location[1:]
    if item["type"] == "json_invalid":
        return f"the body is not JSON: {item.get('ctx', {}).get('error', item['msg'])}"
    message = item["msg"][:1].lower() + item["msg"][1:]
    if item["type"] == "missing":
        return f"{'.'.join(location) or 'the body'}: {message}"
    secret = hidden or {"user_data", "secrets", "auth", "data"} & set(location)
    value = "..." if secret else repr(item.get("input"))
    shown = value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 3] + "..."
    return f"{'.'.join(location) or 'the body'} {shown}: {message}"


def response(error: BulkheadError) -> Response:
    """The error as an answer."""
    headers = {}
    if isinstance(error, TooMany):
        headers["retry-after"] = str(math.ceil(error.after))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="bulkhead"'
    return Response(encode(error), status_code=error.http_status, media_type=MEDIA_TYPE, headers=headers)


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, BulkheadError)
    return response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Whatever a value was put into by mistake, it is not said again.
    hidden = request.url.path.startswith("/v1/secrets")
    return response(from_validation(error.errors(), hidden=hidden))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = of_status(error.status_code, f"{request.method} {request.url.path}")
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(allowed(request.app, request.url.path))
    return Response(body, status_code=error.status_code, media_type=MEDIA_TYPE, headers=headers)


def allowed(app: FastAPI, path: str) -> list[str]:
    """The methods that there are for a path. The framework knows those of one of its routers alone."""
    found: set[str] = set()
    for template, methods in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"{[^}]*}", "[^/]+", template), path):
            found |= {method.upper() for method in methods}
    return sorted(found)


async def _unknown(request: Request, error: Exception) -> Response:
    what = f"{request.method} {request.url.path} failed: {type(error).__name__}"
    return response(BulkheadError(what, hint=LOG_HINT))


def install(app: FastAPI) -> None:
    """Make every error that leaves a route a problem document."""
    app.add_exception_handler(BulkheadError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)
