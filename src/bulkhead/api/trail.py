"""The trail's entry of a request: begun before anything is done, ended with how it went."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkhead.api.auth import REFUSED
from bulkhead.errors import BulkheadError
from bulkhead.store.access import Trace
from bulkhead.tenancy import acting
from bulkhead.tenancy.acting import Acting
from bulkhead.tenancy.principal import ROOT, Principal

log = logging.getLogger(__name__)
_ENTRY = "bulkhead.trail"
BEGUN, OK = "begun", "ok"
FLUSH_SECONDS = 0.25
"""How long the ends of entries wait for one another. A crash within it leaves that they were begun."""
_RESULTS = {401: "unauthorized", 403: "forbidden", 404: "not-found", 409: "conflict", 422: "refused", 429: "too-many"}


def begin(connection: HTTPConnection, principal: Principal) -> None:
    """Begin the entry of the trail. It is kept by the thread that does the first thing, before it does."""
    entry = connection.scope.get(_ENTRY)
    if not isinstance(entry, Entry):
        return
    access = connection.app.state.service.engine.access
    entry.acting.principal = principal
    verb = connection.scope["method"] if connection.scope["type"] == "http" else "WebSocket"
    entry.trace = trace = Trace(
        when=time.time(),
        user=principal.user,
        role=principal.role,
        tenant=principal.tenant or "",
        action=f"{verb} {connection.scope['route'].path}",
        targets=tuple(str(value) for value in connection.path_params.values()),
        result=BEGUN,
        source=principal.source,
        token=principal.token_id,
    )

    def keep() -> None:
        entry.number = access.begin_trace(trace)

    entry.acting.before = keep


class Entry:
    """One request's entry of the trail, as far as it is known."""

    def __init__(self) -> None:
        self.acting = Acting(ROOT)
        self.trace: Trace | None = None
        self.number = 0
        self.result = OK

    def saw(self, message: Message) -> None:
        """Look at a message of the answer for how it went."""
        if message["type"] == "http.response.start":
            status = int(message["status"])
            self.result = _RESULTS.get(status, "error") if status >= 400 else OK
        elif message["type"] == "websocket.close":
            status = int(message.get("code") or 1000) - REFUSED
            self.result = _RESULTS.get(status, "error") if status >= 400 else OK
        elif bytes(message.get("body", b"")[:11]) == b'{"problem":':
            self.result = "error"  # the last line of NDJSON

    def ended(self) -> Trace | None:
        """The entry as it is to be kept; None where nothing was begun."""
        if self.trace is None:
            return None
        targets = tuple(dict.fromkeys((*self.trace.targets, *self.acting.targets)))
        return Trace(**{**_fields(self.trace), "targets": targets, "result": self.result})


class Trailed:
    """The middleware that ends the entry which `authorize` has begun, with how it went."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._due = False
        """Ends are about to be written."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        looks = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if looks or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        entry = scope[_ENTRY] = Entry()
        acting.begin(entry.acting)

        async def seen(message: Message) -> None:
            entry.saw(message)
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except BaseException:
            entry.result = "error"
            raise
        finally:
            self._end(scope, entry)

    def _end(self, scope: Scope, entry: Entry) -> None:
        trace = entry.ended()
        if trace is None:
            return
        service = scope["app"].state.service
        entry.acting.ended()
        service.engine.access.end_trace(entry.number, trace)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush, service)

    def _flush(self, service: Any) -> None:
        self._due = False
        if not service.stopping.is_set():  # else the daemon does it at its end
            asyncio.get_running_loop().run_in_executor(None, flush, service.engine.access)


def flush(access: Any) -> None:
    """Write the ends of the trail's entries."""
    try:
        access.flush()
    except BulkheadError as error:
        # It is answered, and the trail has that it was begun: a full disk takes nothing but the end from it.
        log.error("the trail does not have how some requests ended: %s", error)


def _fields(trace: Trace) -> dict[str, Any]:
    return {name: getattr(trace, name) for name in Trace.__dataclass_fields__}
