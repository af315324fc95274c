"""Who may use which route, for every route that there is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute

from bulkhead.api import lasting, rates
from bulkhead.api.app import create_app
from bulkhead.api.auth import KEY, REFUSED
from bulkhead.api.rates import Buckets, network_of
from bulkhead.api.rules import NO_CHANGE, PUBLIC, RULES, changes
from bulkhead.api.tcp import NetworkDoor
from bulkhead.client import Client
from bulkhead.errors import BulkheadError, HostError, TooMany
from bulkhead.model import NamedPlan, Plan
from bulkhead.tenancy.principal import ROOT, Principal
from bulkhead.tenancy.records import Tenant
from bulkhead.tenancy.roles import PERMISSIONS, Permission, Role
from tests.unit.api.fakes import FakeEngine, served

PLAN = Plan(memory=1 << 29, cpus=1, disk=1 << 30)
Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """The engine behind the API."""
    return FakeEngine(tmp_path)


@pytest.fixture
def app(engine: FakeEngine) -> Iterator[FastAPI]:
    """The application without a door."""
    made = create_app(engine)
    yield made
    made.state.service.close()


def ask(app: Any, method: str, path: str, *, principal: Principal | None = None, **scope: Any) -> Any:
    """One request straight into an ASGI application: (status, headers, body)."""
    headers = [(name.encode(), value.encode()) for name, value in scope.pop("headers", {}).items()]
    said: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": headers,
        "client": ("192.0.2.7", 5),
        "server": ("127.0.0.1", 1),
        **scope,
    }
    if principal:
        said[KEY] = principal
    got: dict[str, Any] = {"body": b""}

    async def receive() -> dict[str, Any]:
        if got.setdefault("asked", 0):
            await asyncio.sleep(3600)
        got["asked"] = 1
        if said["type"] == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got["status"] = message["status"]
            got["headers"] = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["type"] == "websocket.close":
            got["status"], got["headers"] = message["code"] - REFUSED, {}
        else:
            got["body"] += message.get("body", b"")

    async def main() -> None:
        await asyncio.wait_for(app(said, receive, send), 20)

    asyncio.run(main())
    return got["status"], got["headers"], got["body"]


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of every route that is not a mere file."""
    found = []
    pending: list[Any] = list(app.routes)
    while pending:
        route = pending.pop()
        inner = getattr(route, "original_router", None)  # FastAPI keeps included routers as they are
        pending += inner.routes if inner is not None else []
        if isinstance(route, APIRoute):
            found += [(method, route.path) for method in sorted(route.methods or ())]
        if isinstance(route, APIWebSocketRoute):
            found.append(("WS", route.path))
    assert len(found) > 50, "FastAPI keeps its routes elsewhere now"
    return sorted({each for each in found if f"{each[0]} {each[1]}" not in PUBLIC})


def rule_of(method: str, path: str) -> str:
    """The key of a route's rule: a WebSocket begins as a GET."""
    return f"{'GET' if method == 'WS' else method} {path}"


def status_of(app: Any, method: str, path: str, principal: Principal | None = None) -> int:
    """How a request is answered that names what is not there."""
    path = path.replace("{", "").replace("}", "")
    if method != "WS":
        return int(ask(app, method, path, principal=principal)[0])
    return int(ask(app, "GET", path, principal=principal, type="websocket", subprotocols=[])[0])


def test_every_route_has_a_rule_and_every_rule_a_route(app: FastAPI) -> None:
    there = {rule_of(method, path) for method, path in routes(app)}
    assert there, "no routes were found"
    documented = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
    assert documented <= there, "a route that is documented was not found"
    assert there - set(RULES) == set(), "a route without a rule is nobody's: add it to api/rules.py"
    assert set(RULES) - there == set(), "a rule for what is not there"
    assert set(RULES) >= NO_CHANGE


def test_a_route_without_a_rule_is_nobodys(app: FastAPI) -> None:
    @app.get("/v1/forgotten")
    async def forgotten() -> str:
        return "secret"

    status, _, body = ask(app, "GET", "/v1/forgotten", principal=ROOT)
    assert status == 403 and b"has no rule" in body


def test_nothing_is_reached_without_a_principal(app: FastAPI) -> None:
    for method, path in routes(app):
        assert status_of(app, method, path) == 401, f"{method} {path}"
    assert ask(app, "GET", "/v1/info")[1]["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("role", Role)
def test_each_role_reaches_what_the_table_says(app: FastAPI, role: Role) -> None:
    tenant = "acme" if role in (Role.TENANT, Role.VIEWER) else None
    for method, path in routes(app):
        rule = RULES[rule_of(method, path)]
        if rule in PERMISSIONS[role]:
            continue  # what it sees there is the engine's view
        principal = Principal("ann", role, tenant)
        status = status_of(app, method, path, principal)
        assert status == 403, f"{role} reached {method} {path}: {status}"


@pytest.mark.parametrize("scope", Permission)
def test_a_token_reaches_no_more_than_its_scope(app: FastAPI, scope: Permission) -> None:
    principal = Principal("ann", Role.ADMIN, scopes=frozenset({scope}))
    for method, path in routes(app):
        if RULES[rule_of(method, path)] is not scope:
            assert status_of(app, method, path, principal) == 403, f"{scope} reached {method} {path}"


def test_every_change_leaves_a_trace_and_no_look_does(app: FastAPI, engine: FakeEngine) -> None:
    ask(app, "GET", "/v1/instances", principal=ROOT)
    assert engine.access.trail(keep=lambda _: True, most=10) == []
    ann = Principal("ann", Role.VIEWER, "acme", token_id="0123456789ab", source="192.0.2.7")
    ask(app, "DELETE", "/v1/volumes/data", principal=ann)
    ask(app, "DELETE", "/v1/volumes/nope", principal=ROOT)
    first, second = engine.access.trail(keep=lambda _: True, most=10)
    assert (first.user, first.tenant, first.action, first.targets, first.result) == (
        "ann",
        "acme",
        "DELETE /v1/volumes/{name}",
        ("data",),
        "forbidden",
    )
    assert (first.source, first.token) == ("192.0.2.7", "0123456789ab")
    assert (second.user, second.result) == ("root", "not-found")


def test_a_terminal_over_a_websocket_leaves_a_trace(app: FastAPI, engine: FakeEngine) -> None:
    vic = Principal("vic", Role.VIEWER, "acme", source="192.0.2.7")
    assert status_of(app, "WS", "/v1/instances/web/exec", vic) == 403
    (trace,) = engine.access.trail(keep=lambda _: True, most=10)
    assert (trace.user, trace.action, trace.targets) == ("vic", "WebSocket /v1/instances/{ref}/exec", ("web",))
    assert trace.result == "forbidden"


def test_the_trail_is_bounded_and_each_tenant_sees_its_own(engine: FakeEngine, monkeypatch: Any) -> None:
    monkeypatch.setattr("bulkhead.store.access.MOST_TRAIL", 300)
    from bulkhead.store.access import Trace

    for number in range(1024):
        tenant = ("acme", "beta")[number % 2]
        trace = Trace(float(number), f"{tenant}-user", "tenant", tenant, "POST /v1/run", (), "ok", "192.0.2.7")
        engine.access.begin_trace(trace)
    kept = engine.access.trail(keep=lambda _: True, most=10_000)
    assert len(kept) == 300 and kept[-1].when == 1023.0
    acme = Principal("ann", Role.TENANT, "acme")
    assert {trace.tenant for trace in engine.users.trail(acme, most=1000, user=None, since=0.0)} == {"acme"}
    assert engine.users.trail(acme, most=1000, user="beta-user", since=0.0) == []


# --- the door


@pytest.fixture
def token(engine: FakeEngine) -> str:
    """A tenant's token."""
    engine.access.create_tenant(Tenant(name="acme"))
    engine.users.create("ann", role=Role.TENANT, tenant="acme")
    return engine.users.create_token(ROOT, user="ann", scopes=(), expires=None, label="").token


def bearer(text: str) -> dict[str, str]:
    """The header."""
    return {"authorization": f"Bearer {text}"}


def test_a_token_opens_the_door_and_nothing_else_does(app: FastAPI, token: str) -> None:
    door = NetworkDoor(app, app.state.service)
    status, _, body = ask(door, "GET", "/v1/whoami", headers=bearer(token))
    assert status == 200 and json.loads(body)["user"] == "ann" and json.loads(body)["tenant"] == "acme"
    wrong = (token[:-1] + ("A" if token[-1] != "A" else "B"), token[:-1], "", "bhd_", "x" * 10_000)
    said = set()
    for text in wrong:
        status, _, body = ask(door, "GET", "/v1/whoami", headers=bearer(text), client=(f"192.0.2.{len(text) % 200}", 1))
        said.add(json.loads(body)["detail"])
        assert status == 401
    assert len(said) == 1, "no answer tells which ids there are"
    for headers in ({}, {"authorization": "Basic cm9vdDpyb290"}):
        assert ask(door, "GET", "/v1/whoami", headers=headers)[0] == 401


def test_a_token_that_expired_or_was_removed_is_good_for_nothing(app: FastAPI, engine: FakeEngine, token: str) -> None:
    door = NetworkDoor(app, app.state.service)
    short = engine.users.create_token(ROOT, user="ann", scopes=(), expires=time.time() + 0.2, label="")
    assert ask(door, "GET", "/v1/whoami", headers=bearer(short.token))[0] == 200
    while time.time() < (short.expires or 0):
        time.sleep(0.05)
    assert ask(door, "GET", "/v1/whoami", headers=bearer(short.token))[0] == 401
    engine.users.remove("ann")
    assert ask(door, "GET", "/v1/whoami", headers=bearer(token))[0] == 401


@pytest.mark.parametrize("good", [True, False])
def test_what_lasts_ends_with_its_token(
    app: FastAPI, engine: FakeEngine, token: str, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    """It is cut when the token is gone; while that is good it goes on, however often it is asked."""
    monkeypatch.setattr(lasting, "EVERY", 0.02)
    cut, asked = list[bool](), list[str]()
    authenticate = engine.users.authenticate

    def counted(text: str, *, source: str) -> Principal:
        asked.append(source)
        return authenticate(text, source=source)

    monkeypatch.setattr(engine.users, "authenticate", counted)

    async def lasts(scope: Any, receive: Any, send: Any) -> None:
        if not good:
            engine.users.remove("ann")
        while not cut and (not good or len(asked) < 5):
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    door = NetworkDoor(lasts, app.state.service)
    assert ask(door, "GET", "/v1/events", headers=bearer(token), **{lasting.CUT: lambda: cut.append(True)})[0] == 200
    assert cut == ([] if good else [True])


def test_a_certificate_is_its_user(app: FastAPI, token: str) -> None:
    door = NetworkDoor(app, app.state.service)
    status, _, body = ask(door, "GET", "/v1/whoami", **{"bulkhead.certificate": "ann"})
    assert status == 200 and json.loads(body)["user"] == "ann"
    assert ask(door, "GET", "/v1/whoami", **{"bulkhead.certificate": "root"})[0] == 401


def test_what_a_client_says_of_itself_opens_nothing(app: FastAPI) -> None:
    door = NetworkDoor(app, app.state.service)
    for name in ("x-forwarded-for", "bulkhead.principal", "x-bulkhead-user", "bulkhead.certificate"):
        assert ask(door, "GET", "/v1/whoami", headers={name: "root"})[0] == 401


def test_failed_sign_ins_of_an_address_are_counted(app: FastAPI, token: str) -> None:
    door = NetworkDoor(app, app.state.service)
    for _ in range(int(rates.FAILURES)):
        assert ask(door, "GET", "/v1/whoami", headers=bearer("no"))[0] == 401
    status, headers, _ = ask(door, "GET", "/v1/whoami", headers=bearer(token))
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert ask(door, "GET", "/v1/whoami", headers=bearer(token), client=("192.0.2.8", 1))[0] == 200


def test_buckets_fill_again_and_are_bounded() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 4.0, clock=lambda: now[0])
    for _ in range(4):
        assert buckets.wait("ann") == 0.0
        buckets.take("ann")
    assert buckets.wait("ann") == pytest.approx(0.5)
    assert buckets.wait("bob") == 0.0
    now[0] = 0.5
    assert buckets.wait("ann") == 0.0
    for number in range(rates.MOST_KNOWN * 2):
        buckets.take(str(number))
    assert len(buckets._left) == rates.MOST_KNOWN


def test_requests_of_a_user_are_counted() -> None:
    found = rates.Rates()
    with pytest.raises(TooMany, match="too many requests of ann"):
        for _ in range(int(rates.BURST) * 2):
            found.check_user("ann")
    found.check_user("bob")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_address_is_counted_with_those_that_come_for_free(address: str, network: str) -> None:
    assert network_of(address) == network


def test_changes_are_told_from_looks() -> None:
    assert changes("POST /v1/run") and changes("DELETE /v1/volumes/{name}") and not changes("GET /v1/instances")
    assert not changes("POST /v1/dry-run")


# --- tokens and their scopes


def test_a_token_makes_no_stronger_one(engine: FakeEngine, token: str) -> None:
    weak = Principal("ann", Role.TENANT, "acme", scopes=frozenset({Permission.READ, Permission.TOKENS}))
    made = engine.users.create_token(weak, user=None, scopes=(), expires=None, label="")
    assert engine.access.token(made.id).scopes == weak.scopes
    for scopes, user in (((Permission.EXEC,), None), ((), "root")):
        with pytest.raises(Exception, match=r"may make tokens|limited to no more"):
            engine.users.create_token(weak, user=user, scopes=scopes, expires=None, label="")
    with pytest.raises(Exception, match="role tenant has no host"):
        engine.users.create_token(ROOT, user="ann", scopes=(Permission.HOST,), expires=None, label="")


def test_a_tokens_secret_is_in_no_list_and_no_record(engine: FakeEngine, token: str) -> None:
    secret = token.split("_", 2)[2]  # it may hold underscores itself
    assert secret not in repr(engine.users.tokens(ROOT))
    assert secret not in engine.directory.joinpath("state.db").read_bytes().decode("latin-1")


def test_the_trail_has_a_change_before_it_is_made_and_its_end_soon_after(app: FastAPI, engine: FakeEngine) -> None:
    seen: list[Any] = []

    def remove(name: str) -> None:
        with engine.state.reading() as reader:  # what a crash would leave
            seen.extend(json.loads(text) for _, text in reader.list("trail"))

    engine.plans.remove = remove  # type: ignore[method-assign]
    engine.plans.get = lambda name: NamedPlan(name=name, plan=PLAN)  # type: ignore[method-assign]
    assert ask(app, "DELETE", "/v1/plans/small", principal=ROOT)[0] == 204
    assert [(trace["action"], trace["result"]) for trace in seen] == [("DELETE /v1/plans/{name}", "begun")]
    assert seen[0]["targets"] == ["small"] and seen[0]["user"] == "root"
    found = engine.access.trail(keep=lambda _: True, most=10)
    assert [(trace.action, trace.result) for trace in found] == [("DELETE /v1/plans/{name}", "ok")]


def test_what_was_refused_before_anything_was_done_is_in_the_trail_as_well(app: FastAPI, engine: FakeEngine) -> None:
    viewer = Principal("vic", Role.VIEWER, "acme")
    assert ask(app, "DELETE", "/v1/plans/small", principal=viewer)[0] == 403
    found = engine.access.trail(keep=lambda _: True, most=10)
    assert [(trace.user, trace.result) for trace in found] == [("vic", "forbidden")]


def test_nothing_is_changed_where_the_trail_cannot_be_kept(app: FastAPI, engine: FakeEngine) -> None:
    def full(_: object) -> int:
        raise HostError("the disk is full")

    removed: list[str] = []
    engine.access.begin_trace = full  # type: ignore[method-assign]
    engine.plans.remove = removed.append  # type: ignore[method-assign]
    assert ask(app, "DELETE", "/v1/plans/small", principal=ROOT)[0] == 500
    assert removed == []


def test_ends_are_written_by_themselves(engine: FakeEngine, tmp_path: Path) -> None:
    with served(engine, tmp_path / "api.sock"), Client(str(tmp_path / "api.sock")) as client:
        with pytest.raises(BulkheadError):
            client.call("DELETE", "/v1/plans/none")
        deadline = time.monotonic() + 60
        results: list[str] = []
        while results != ["not-found"]:
            assert time.monotonic() < deadline, results
            time.sleep(0.05)
            with engine.state.reading() as reader:
                results = [json.loads(text)["result"] for _, text in reader.list("trail")]
