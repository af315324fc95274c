"""Where the other hosts of a fleet ask this one: TLS with certificates of the fleet's authority on both sides.

A host asks for itself, or passes on what somebody asked there: then it says who that was, which is believed of a host
alone. One that has no certificate yet may ask who the authority is, and join with a token.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from contextlib import suppress

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkhead.api.auth import KEY
from bulkhead.api.fleet import AUTHORITY, JOIN
from bulkhead.api.rates import Rates
from bulkhead.api.tcp import BACKLOG, NetworkServer, deny
from bulkhead.api.wire import CERTIFICATE
from bulkhead.config import Listen
from bulkhead.engine.fleet.identity import Identity
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import BulkheadError, HostError, Unauthorized
from bulkhead.fleet import CERTIFICATE_PREFIX
from bulkhead.tenancy.passing import HEADER, decode
from bulkhead.tenancy.principal import Principal
from bulkhead.tenancy.roles import Role

log = logging.getLogger(__name__)
PASSED_ON = "bulkhead-passed-on"
"""In a scope: this request was passed on once, and is not passed on again."""
_OPEN = frozenset({("GET", AUTHORITY), ("POST", JOIN)})


class PeerDoor:
    """Lets in the fleet's hosts, and for two routes whoever would like to be one."""

    def __init__(self, app: ASGIApp, fleet: Member) -> None:
        self._app, self._fleet, self._rates = app, fleet, Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["client"][0] if scope.get("client") else ""
        try:
            if scope["type"] == "http" and (scope["method"], scope["path"]) in _OPEN:
                self._rates.check_user(address)
                scope[KEY] = Principal("a host that joins", Role.VIEWER, source=address)
            else:
                scope[KEY] = await self._identify(scope, address)
                scope[PASSED_ON] = True
        except BulkheadError as error:
            await deny(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope, address: str) -> Principal:
        name = str(scope.get(CERTIFICATE, ""))
        host = name.removeprefix(CERTIFICATE_PREFIX)
        if host == name or not await asyncio.to_thread(self._fleet.knows, host):
            raise Unauthorized("only hosts of the fleet are served here", hint="bulkhead cluster join TOKEN")
        told = Headers(scope=scope).get(HEADER)
        if told is None:
            return Principal(f"host {host[:12]}", Role.ADMIN, source=address)
        return decode(told)


class Peers:
    """The listener for other hosts, there while this host is a member."""

    def __init__(self, app: FastAPI, fleet: Member) -> None:
        self._app, self._fleet = app, fleet
        self._server: NetworkServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def begin(self) -> None:
        """Serve from here on, also a fleet that this host joins later."""
        self._loop = asyncio.get_running_loop()
        self._fleet.changed = self._changed
        if self._fleet.identity:
            try:
                await self._open(self._fleet.identity)
            except HostError as error:  # the host runs on: it asks others, and is not asked
                log.error("other hosts of the fleet cannot reach this one: %s", error.what)

    async def end(self) -> None:
        """Serve no more."""
        server, self._server = self._server, None
        if server is not None:
            await server.end()

    def _changed(self, identity: Identity | None) -> None:
        """From the thread in which the fleet is joined or left."""
        assert self._loop is not None
        work = self._open(identity) if identity else self.end()
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self, identity: Identity) -> None:
        await self.end()
        files = self._fleet.membership.files
        address, _, port = identity.address.rpartition(":")
        listen = Listen(
            address=address.strip("[]"),
            port=int(port),
            cert=files.certificate,
            key=files.key,
            client_ca=files.authority,
        )
        listener = bind(identity.address)
        try:
            self._server = NetworkServer(self._app, listen, listener, door=PeerDoor(self._app, self._fleet))
            await self._server.open()
        except BaseException:
            listener.close()
            raise


def bind(address: str) -> socket.socket:
    """A socket that listens at IP:PORT. Raises HostError."""
    host, _, port = address.rpartition(":")
    ip = ipaddress.ip_address(host.strip("[]"))
    listener = socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(ip), int(port)))
        listener.listen(BACKLOG)
    except OSError as error:
        with suppress(OSError):
            listener.close()
        raise HostError(
            f"cannot listen at {address}: {error.strerror}", hint="is it an address of this host?"
        ) from error
    return listener
