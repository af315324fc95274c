"""Entity tags: what has not changed is not sent again, and an edit made from an old copy is refused.

A tag stands for the very bytes of a record. It is put onto every JSON answer to a GET by the middleware here, so that
no route can lack it. Edits compare by `edit`, one at a time for each thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

from fastapi import Request
from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.api import problems
from bulkhead.api.service import service_of
from bulkhead.errors import Changed, NotFound, Refused

T = TypeVar("T")
R = TypeVar("R")
_EDITS = (
    ("PATCH", re.compile(r"/v1/instances/[^/]+")),
    ("DELETE", re.compile(r"/v1/(instances|plans|networks|volumes|secrets)/[^/]+")),
    ("DELETE", re.compile(r"/v1/instances/[^/]+/snapshots/[^/]+")),
)
"""What `If-Match` is honoured by; anywhere else it is refused."""
HONOURED = (
    *("update_instance", "delete_instance", "remove_plan", "remove_network", "remove_volume"),
    *("remove_secret", "remove_snapshot"),
)
"""The same by the names of their routes."""
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')


def tag_of(body: bytes) -> str:
    """The entity tag of a record's JSON."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def matches(header: str, tag: str) -> bool:
    """Whether a list of tags, or `*`, has this one. Weak tags stand for the same."""
    return header.strip() == "*" or tag in [each.removeprefix("W/") for each in _TAG.findall(header)]


async def edit(request: Request, read: Callable[[], T], change: Callable[[T], R], *, key: Callable[[T], str]) -> R:
    """Change what `read` gives, in a thread. Raises Changed where `If-Match` names another state of it.

    `key`: what edits of the same thing have in common, however the requests have called it.
    """
    service, wanted = service_of(request), request.headers.get("if-match")

    def work() -> R:
        try:
            with service.editing.hold(key(read())):
                record = read()
                if wanted is not None and not matches(wanted, tag := tag_of(to_json(record))):
                    raise Changed(
                        f"{request.url.path} is not as If-Match says: its entity tag is {tag}",
                        hint="get it again, and see whether the change is still wanted",
                    )
                return change(record)
        except NotFound as error:
            if wanted is None:
                raise
            raise Changed(error.what, hint=error.hint) from error

    return await service.call(work)


class Conditional:
    """The middleware: tags on answers, 304 where the client has what it asks for, problems alone as errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method, path = scope["method"], scope["path"]
        if "if-match" in headers and not any(method == verb and shape.fullmatch(path) for verb, shape in _EDITS):
            error = Refused(
                f"If-Match is not honoured by {method} {path}", hint="PATCH and DELETE of single records compare it"
            )
            await problems.response(error)(scope, receive, send)
            return
        known = headers.get("if-none-match", "") if method == "GET" else ""
        await self._app(scope, receive, Answer(send, f"{method} {path}", known))


class Answer:
    """Sends on: with a tag where the answer is a record, as a problem where the framework said something else."""

    def __init__(self, send: Send, request: str, known: str) -> None:
        self._send, self._request, self._known = send, request, known
        self._statuses = (201,) if request.startswith("POST ") else (200, 201)
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        """One message of the answer."""
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "")
            if message["status"] >= 400 and kind != problems.MEDIA_TYPE:
                message = {**message, "headers": list(message["headers"])}
                self._start = message
                return
            if message["status"] in self._statuses and kind == "application/json":
                self._start = message  # until its body is known
                return
        start, self._start = self._start, None
        if start is None:
            await self._send(message)
            return
        if message.get("more_body"):
            await self._send(start)
            await self._send(message)
            return
        headers = MutableHeaders(raw=start["headers"])
        if start["status"] >= 400:
            body = problems.of_status(start["status"], self._request)
            headers["content-type"], headers["content-length"] = problems.MEDIA_TYPE, str(len(body))
            await self._send(start)
            await self._send({**message, "body": body})
            return
        tag = tag_of(message.get("body", b""))
        headers["etag"] = tag
        if self._known and matches(self._known, tag):
            del headers["content-length"], headers["content-type"]
            start, message = {**start, "status": 304}, {**message, "body": b""}
        await self._send(start)
        await self._send(message)
