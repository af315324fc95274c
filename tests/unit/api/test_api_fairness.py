"""A tenant that opens as much as it is let keeps nobody else from being answered."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from bulkhead.api import rates, shares, tcp
from bulkhead.api.app import create_app
from bulkhead.api.auth import SocketDoor
from bulkhead.api.service import CALL_THREADS, LONG_THREADS
from bulkhead.model import Exit
from bulkhead.tenancy.records import Tenant
from bulkhead.tenancy.roles import Role
from tests.unit.api.fakes import FakeEngine

SECONDS = 60.0
"""Within which somebody who is not kept waiting is answered, on any host."""


class Busy(FakeEngine):
    """An engine in which much takes until it is let go."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.go = threading.Event()
        self.blocked = Counter[str]()
        self._counting = threading.Lock()

    def _block(self, what: str) -> None:
        with self._counting:
            self.blocked[what] += 1
        self.go.wait(300)

    def describe(self, ref: str) -> Any:
        """A short call that is not short."""
        self._block("call")
        return {"ref": ref}

    def stop(self, ref: str, **_: Any) -> Any:
        """A long one."""
        self._block("long")
        return {"ref": ref}

    def wait(self, ref: str) -> Future[Exit]:
        """Nothing ends."""
        with self._counting:
            self.blocked["wait"] += 1
        return Future()


@pytest.fixture
def engine(tmp_path: Path) -> Busy:
    """With two tenants; ann is of one, bob of the other."""
    made = Busy(tmp_path)
    for tenant, user in (("acme", "ann"), ("beta", "bob")):
        made.access.create_tenant(Tenant(name=tenant, created=1.0))
        made.users.create(user, role=Role.TENANT, tenant=tenant)
    return made


@pytest.fixture
def app(engine: Busy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """Behind a door that does not count how often somebody comes: patience would do the same."""
    monkeypatch.setattr(rates, "BURST", 1e9)
    made = create_app(engine)
    yield made
    engine.go.set()
    made.state.service.close()


class Visit:
    """One request that is open until it is answered, or given up."""

    def __init__(self, app: ASGIApp, method: str, path: str, user: str | None = None) -> None:
        self.status, self.headers = 0, dict[bytes, bytes]()
        self._gone = asyncio.Event()
        self._asked = False
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "https",
            "query_string": b"",
            "headers": [],
            "client": ("192.0.2.7", 5),
            **({"bulkhead.certificate": user} if user else {}),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._asked:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])

    def leave(self) -> None:
        """The client goes."""
        self._gone.set()

    async def answered(self) -> int:
        """The status, once it is all there."""
        await asyncio.wait_for(self.task, SECONDS)
        return self.status


async def reached(condition: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def test_the_others_are_answered_while_one_has_all_that_it_is_let(app: FastAPI, engine: Busy) -> None:
    async def main() -> None:
        service = app.state.service
        door, root = tcp.NetworkDoor(app, service), SocketDoor(app)
        open_ones = [Visit(door, "GET", f"/v1/instances/{n}/describe", "ann") for n in range(300)]
        await reached(lambda: sum(visit.status == 429 for visit in open_ones) == 300 - shares.MOST_WAITING)
        assert engine.blocked["call"] == shares.CALL_SHARE
        longs = [Visit(door, "POST", f"/v1/instances/{n}/stop", "ann") for n in range(shares.LONG_SHARE + 20)]
        await reached(lambda: engine.blocked["long"] + sum(visit.status == 429 for visit in longs) == len(longs))
        # The trail of a stop is kept by a short call, of which ann has no more.
        assert engine.blocked["long"] <= shares.LONG_SHARE
        assert engine.blocked["call"] < CALL_THREADS // 2 and engine.blocked["long"] < LONG_THREADS // 2
        for method, path in (("GET", "/v1/instances"), ("GET", "/v1/whoami"), ("GET", "/v1/volumes")):
            assert await Visit(door, method, path, "bob").answered() == 200
            assert await Visit(root, method, path).answered() == 200
        engine.go.set()
        statuses = [await visit.answered() for visit in (*open_ones, *longs)]
        assert statuses.count(200) == shares.MOST_WAITING + engine.blocked["long"]
        assert await Visit(door, "GET", "/v1/instances", "ann").answered() == 200, "what was ended is free again"

    asyncio.run(main())


def test_waits_take_no_thread_and_no_more_connections_than_a_share(app: FastAPI, engine: Busy) -> None:
    async def main() -> None:
        door, root = tcp.NetworkDoor(app, app.state.service), SocketDoor(app)
        waits = list[Visit]()

        def all_wait() -> bool:
            return engine.blocked["wait"] == len(waits)

        for begin in range(0, tcp.OPEN_SHARE, 128):  # no more at once than calls of one tenant may wait
            waits += [Visit(door, "GET", f"/v1/instances/{begin + n}/wait", "ann") for n in range(128)]
            await reached(all_wait)
        more = [Visit(door, "GET", "/v1/instances/x/wait", "ann") for _ in range(50)]
        assert {await visit.answered() for visit in more} == {429}
        assert all(visit.headers[b"connection"] == b"close" for visit in more), "a refusal keeps no connection"
        assert await Visit(door, "GET", "/v1/instances", "bob").answered() == 200
        assert await Visit(root, "GET", "/v1/instances").answered() == 200
        for visit in waits:
            visit.leave()
        assert {await visit.answered() for visit in waits} == {204}
        assert await Visit(door, "GET", "/v1/instances", "ann").answered() == 200

    asyncio.run(main())


def test_the_shares_leave_room_for_others() -> None:
    assert shares.CALL_SHARE * 4 <= CALL_THREADS and shares.LONG_SHARE * 4 <= LONG_THREADS
    assert tcp.OPEN_SHARE * 4 <= tcp.MOST_CONNECTIONS
