"""The API over TCP: TLS, and everybody shows a token or a certificate."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.api import problems
from bulkhead.api.auth import KEY, REFUSED
from bulkhead.api.browsers import BrowserGuard
from bulkhead.api.lasting import watched
from bulkhead.api.rates import Rates
from bulkhead.api.service import Service
from bulkhead.api.wire import CERTIFICATE, MAX_MESSAGE, SocketWire, Wire
from bulkhead.config import Listen
from bulkhead.errors import BulkheadError, HostError, Refused, TooMany, Unauthorized
from bulkhead.tenancy.principal import Principal

KEEP_ALIVE_SECONDS = 30
GUARDED = "/v1/"
"""What is behind the door. The rest is the page's files, which hold nothing of anybody's."""
BACKLOG = 256
MOST_CONNECTIONS = 2048
OPEN_SHARE = MOST_CONNECTIONS // 4
"""Requests of one tenant that may be open at the same time. Waits and terminals take no thread, but a connection."""
SHOW = "send a token: Authorization: Bearer TOKEN, or a client certificate"


class NetworkDoor:
    """Lets in whoever shows a good token or certificate, so often and no more."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service, self._rates = app, service, Rates()
        self._open = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] != "http" or scope["path"].startswith(GUARDED)
        if guarded:
            try:
                scope[KEY] = principal = await self._identify(scope)
                self._check_share(principal)
            except BulkheadError as error:
                await deny(error, scope, receive, send)
                return
            with self._counted(principal):
                async with watched(scope, partial(self._find, scope)):
                    await self._app(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_share(self, principal: Principal) -> None:
        if principal.tenant is not None and self._open[principal.tenant] >= OPEN_SHARE:
            raise TooMany(f"{OPEN_SHARE} requests of this tenant are open already", hint="end some of them")

    @contextmanager
    def _counted(self, principal: Principal) -> Iterator[None]:
        """While a tenant's request is open."""
        tenant = principal.tenant
        if tenant is None:
            yield
            return
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _identify(self, scope: Scope) -> Principal:
        """Who it is. Raises Unauthorized, TooMany."""
        address = _address(scope)
        self._rates.check_address(address)
        try:
            found = await self._find(scope)
        except Unauthorized:
            self._rates.failed(address)
            raise
        self._rates.check_user(found.user)
        return found

    async def _find(self, scope: Scope) -> Principal:
        """The same without counting. Raises Unauthorized."""
        users, kind = self._service.engine.users, Headers(scope=scope).get("authorization", "")
        certificate, address = str(scope.get(CERTIFICATE, "")), _address(scope)
        if kind:
            scheme, _, text = kind.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized(f"authorization {scheme[:16]!r} is not served here", hint=SHOW)
            return await self._service.call(users.authenticate, text.strip(), source=address)
        if certificate:
            return await self._service.call(users.by_certificate, certificate, source=address)
        raise Unauthorized("nobody knows who makes this request", hint=SHOW)


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


async def deny(error: BulkheadError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or close a WebSocket, that does not come in."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": REFUSED + error.http_status})
        return
    answer = problems.response(error)
    answer.headers["connection"] = "close"  # connections are few, and whoever is let in pays for its own alone
    await answer(scope, receive, send)


class NetworkServer(uvicorn.Server):
    """One listener of the daemon's. The daemon's own server starts and ends it."""

    def __init__(self, app: FastAPI, listen: Listen, listener: socket.socket, *, door: ASGIApp | None = None) -> None:
        context = tls_context(listen)

        def factory(_: uvicorn.Config, __: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
            assert context is not None
            return context

        super().__init__(
            uvicorn.Config(
                BrowserGuard(door or NetworkDoor(app, app.state.service)),
                http=Wire,
                ws=SocketWire,
                ws_max_size=MAX_MESSAGE,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,
                ssl_context_factory=factory if context else None,
            )
        )
        self._listener = listener

    async def open(self) -> None:
        """Serve from here on."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[self._listener])

    async def end(self) -> None:
        """Serve no more."""
        await self.shutdown(sockets=[self._listener])


def tls_context(listen: Listen) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the listener's certificate; None for plain TCP. Raises Refused for files that do not do."""
    if listen.plain:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(str(listen.cert), str(listen.key))
        if listen.client_ca:
            context.load_verify_locations(str(listen.client_ca))
            context.verify_mode = ssl.CERT_REQUIRED if listen.require_certificate else ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(file) for file in (listen.cert, listen.key, listen.client_ca) if file)
        raise Refused(f"the certificates for {listen.where} cannot be used ({files}): {error}", hint=_CA) from error
    return context


_CA = "bulkhead ca init, then bulkhead ca issue --server NAME, makes some"


@contextmanager
def bound(listens: Sequence[Listen]) -> Iterator[list[tuple[Listen, socket.socket]]]:
    """A listening socket for each. Raises Refused, HostError where an address cannot be had."""
    with ExitStack() as stack:
        found = []
        for listen in listens:
            tls_context(listen)  # before anything is open
            family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((listen.address, listen.port))
                listener.listen(BACKLOG)
            except OSError as error:
                raise HostError(
                    f"cannot listen at {listen.where}: {error.strerror}", hint="see listen in the config"
                ) from error
            found.append((listen, listener))
        yield found
