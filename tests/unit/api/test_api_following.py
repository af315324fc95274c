"""A request follows an instance that moves: asked again where it is by then, with its body, and answered once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.api import following, problems
from bulkhead.api.auth import KEY
from bulkhead.api.following import SMALL, follow, serve_here
from bulkhead.errors import BulkheadError, Conflict, NoInstance, NotFound
from bulkhead.tenancy.principal import ROOT

GONE, OTHER = NoInstance("no such instance: web"), NotFound("no such file: /x")
BETA, GAMMA = SimpleNamespace(id="b" * 32), SimpleNamespace(id="c" * 32)


class Places:
    """Answers one after the other, from wherever; notes who was asked with which body."""

    def __init__(self, *answers: BulkheadError | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes]] = []
        self.waited = 0
        self.where_now: list[Any] = []

    async def serve(self, host: Any, receive: Any, send: Any) -> None:
        self.asked.append((host.id[:1] if host else "here", (await receive())["body"]))
        error = self.answers.pop(0)
        status = error.http_status if error else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": problems.encode(error) if error else b"done"})

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.serve(None, receive, send)

    def where(self, reference: str, *, tenant: str | None) -> Any:
        return self.where_now.pop(0)

    def await_arrival(self, reference: str, *, tenant: str | None) -> None:
        self.waited += 1


Ask = Callable[..., list[Any]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Have a request served; what the client got."""

    def asked(places: Places, found: Any, work: Any = follow, **fields: Any) -> list[Any]:
        async def passed(host: Any, fleet: Any, scope: Any, receive: Any, send: Any) -> None:
            await places.serve(host, receive, send)

        async def call(*_: Any) -> Any:
            return found

        async def receive() -> Any:
            return {"type": "http.request", "body": b"body", "more_body": False}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        monkeypatch.setattr(following, "pass_to", passed)
        state = SimpleNamespace(service=SimpleNamespace(call=call))
        headers = fields.pop("headers", [(b"content-length", b"4")])
        scope = {"type": "http", "method": "POST", "headers": headers, "app": SimpleNamespace(state=state), KEY: ROOT}
        asyncio.run(work(places.app, places, "web", (scope, receive, send)))
        return sent

    return asked


def test_what_has_moved_meanwhile_is_asked_for_there(ask: Ask) -> None:
    places = Places(GONE, None)
    places.where_now = [BETA]
    sent = ask(places, None)
    assert [each.get("status") for each in sent] == [200, None]
    assert places.asked == [("here", b"body"), ("b", b"body")]
    assert places.waited == 1


def test_it_is_followed_from_host_to_host(ask: Ask) -> None:
    places = Places(GONE, GONE, None)
    places.where_now = [GAMMA, None]
    assert ask(places, BETA)[0]["status"] == 200
    assert [host for host, _ in places.asked] == ["b", "c", "here"]


def test_what_is_nowhere_is_said_to_be_so_once(ask: Ask) -> None:
    places = Places(GONE, GONE)
    places.where_now = [None, None]
    sent = ask(places, None)
    assert [each.get("status") for each in sent] == [404, None]
    assert len(places.asked) == 2


@pytest.mark.parametrize("error", [OTHER, Conflict("it is stopped")])
def test_any_other_answer_is_the_answer(ask: Ask, error: BulkheadError) -> None:
    places = Places(error)
    assert ask(places, None)[0]["status"] == error.http_status
    assert len(places.asked) == 1


def test_it_is_not_followed_for_ever(ask: Ask) -> None:
    places = Places(*[GONE] * following.MOST_ASKED)
    places.where_now = [GAMMA, BETA] * following.MOST_ASKED
    assert ask(places, BETA)[0]["status"] == 404


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", str(SMALL + 1).encode())],
        [(b"transfer-encoding", b"chunked")],
        [(b"upgrade", b"x")],
        [(b"content-length", b"-1")],
    ],
)
def test_what_cannot_be_sent_again_is_asked_once(ask: Ask, headers: list[tuple[bytes, bytes]]) -> None:
    places = Places(GONE)
    assert ask(places, BETA, headers=headers)[0]["status"] == 404
    assert len(places.asked) == 1


def test_what_was_passed_on_is_looked_for_here_again(ask: Ask) -> None:
    places = Places(GONE, None)
    sent = ask(places, None, work=serve_here)
    assert [each.get("status") for each in sent] == [200, None]
    assert places.waited == 1
    assert ask(Places(OTHER), None, work=serve_here)[0]["status"] == 404
