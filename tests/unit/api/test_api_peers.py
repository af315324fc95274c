"""Who is let in where hosts ask one another, and for whom a request is believed to be passed on."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send

from bulkhead.api.auth import KEY, PEER, SocketDoor
from bulkhead.api.elsewhere import Elsewhere
from bulkhead.api.peers import PASSED_ON, PeerDoor
from bulkhead.api.wire import CERTIFICATE
from bulkhead.engine.fleet.member import Member
from bulkhead.fleet import CERTIFICATE_PREFIX
from bulkhead.tenancy.passing import HEADER, encode
from bulkhead.tenancy.principal import ROOT, Principal
from bulkhead.tenancy.roles import Role

MEMBER = "a" * 32
TENANT = Principal("ann", Role.TENANT, "acme")


class Inside:
    """The application behind a door: remembers with what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(asked: Any, path: str = "/v1/instances", method: str = "GET", **scope: Any) -> tuple[int, dict[str, Any]]:
    """Status and problem of a request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("10.0.0.9", 1),
        **scope,
    }
    asyncio.run(asked(whole, receive, send))
    if whole["type"] == "websocket":
        return sent[0]["code"], {}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(body) if body else {}


def header(text: str) -> list[tuple[bytes, bytes]]:
    return [(HEADER.encode(), text.encode())]


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def door(inside: Inside) -> PeerDoor:
    return PeerDoor(inside, cast(Member, SimpleNamespace(knows=lambda host: host == MEMBER)))


def test_a_host_asks_for_itself_or_for_somebody(door: PeerDoor, inside: Inside) -> None:
    certificate = {CERTIFICATE: CERTIFICATE_PREFIX + MEMBER}
    assert ask(door, **certificate)[0] == 200
    assert ask(door, headers=header(encode(TENANT)), **certificate)[0] == 200
    first, second = (scope[KEY] for scope in inside.scopes)
    assert (first.role, first.tenant) == (Role.ADMIN, None)
    assert second == TENANT
    assert all(scope[PASSED_ON] for scope in inside.scopes)


@pytest.mark.parametrize("name", ["", "root", MEMBER, CERTIFICATE_PREFIX, CERTIFICATE_PREFIX + "b" * 32, "host"])
def test_whoever_is_no_host_is_not_let_in_whatever_it_says(door: PeerDoor, inside: Inside, name: str) -> None:
    for scope in ({}, {"headers": header(encode(ROOT))}):
        assert ask(door, **{CERTIFICATE: name}, **scope)[0] == 401
    assert ask(door, type="websocket", **{CERTIFICATE: name}) == (4401, {})
    assert inside.scopes == []


@pytest.mark.parametrize("said", ["", "{}", "[]", '{"user": "root", "role": "king"}', '{"user": 7, "role": "admin"}'])
def test_what_a_host_says_of_whom_it_asks_for_has_to_make_sense(door: PeerDoor, inside: Inside, said: str) -> None:
    assert ask(door, headers=header(said), **{CERTIFICATE: CERTIFICATE_PREFIX + MEMBER})[0] == 401
    assert inside.scopes == []


def test_who_would_like_to_join_may_ask_two_things(door: PeerDoor, inside: Inside) -> None:
    for method, path in (("GET", "/v1/fleet/authority"), ("POST", "/v1/fleet/join")):
        assert ask(door, path, method)[0] == 200
    for method, path in (("POST", "/v1/fleet/authority"), ("GET", "/v1/fleet/join"), ("POST", "/v1/fleet/join/")):
        assert ask(door, path, method)[0] == 401
    assert {scope[KEY].role for scope in inside.scopes} == {Role.VIEWER}
    assert not any(scope.get(PASSED_ON) for scope in inside.scopes)


def test_the_header_is_nobody_s_at_another_door(inside: Inside) -> None:
    ask(SocketDoor(inside), headers=header(encode(ROOT)), **{PEER: TENANT})
    assert inside.scopes[0][KEY] == TENANT


def test_on_which_host_something_runs_is_not_a_tenant_s_to_say(inside: Inside) -> None:
    fleet = SimpleNamespace(identity=SimpleNamespace(id=MEMBER))
    scope = {"app": SimpleNamespace(state=SimpleNamespace(fleet=fleet)), KEY: TENANT, "query_string": b"host=beta"}
    status, problem = ask(Elsewhere(inside), "/v1/run", "POST", **scope)
    assert (status, problem["type"]) == (403, "forbidden")
    assert inside.scopes == []


def test_a_host_in_no_fleet_knows_no_other(inside: Inside) -> None:
    app = SimpleNamespace(state=SimpleNamespace(fleet=SimpleNamespace(identity=None)))
    status, problem = ask(Elsewhere(inside), "/v1/run", "POST", app=app, query_string=b"host=beta", **{KEY: ROOT})
    assert (status, problem["type"]) == (404, "not-found")
    assert ask(Elsewhere(inside), app=app, **{KEY: ROOT})[0] == 200
