"""Lists of a fleet, of what other hosts answer: whatever that is, the rest of the list is there."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bulkhead.api import gathering
from bulkhead.engine.fleet.member import Member
from bulkhead.errors import BulkheadError, Conflict, Unavailable
from bulkhead.host import peers
from bulkhead.tenancy.principal import ROOT

HOST = cast(Any, SimpleNamespace(name="beta", address="10.0.0.2:1"))
FLEET = cast(Member, SimpleNamespace(tls=lambda: None, hears=lambda _: True))


@pytest.mark.parametrize("answer", [None, {}, "x", 5, [5], [None], [[]], [{}, 5]])
def test_what_are_no_lines_is_missing(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "call", lambda *_, **__: answer)
    assert gathering._ask(HOST, gathering.INSTANCES, FLEET, ROOT) is None


@pytest.mark.parametrize("error", [Unavailable("it is away"), Conflict("not now")])
def test_who_refuses_is_missing(error: BulkheadError, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(peers, "call", call)
    assert gathering._ask(HOST, gathering.INSTANCES, FLEET, ROOT) is None


def test_lines_of_strangers_stand_somewhere() -> None:
    strange = [
        {},
        {"spec": 5},
        {"spec": None},
        {"spec": {}},
        {"spec": {"created": "x"}},
        {"spec": {"created": math.nan}},
    ]
    good = [{"spec": {"created": 1.0}}, {"spec": {"created": 3}}]
    found = gathering._newest_first([*strange, *good])
    assert found[:2] == [good[1], good[0]] and len(found) == 8
