"""What comes in bodies and queries is as the API's description has it, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import HTTPConnection
from socket import AF_UNIX, socket
from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.api.audits import AuditRequest
from bulkhead.client import Client
from bulkhead.metering.prices import NewPrice
from bulkhead.model import Plan

Talk = Callable[..., Any]


@pytest.fixture
def talk(client: Client) -> Talk:
    """Sends a request as it is written; `status` and `body`."""

    def ask(method: str, path: str, body: object = None) -> Any:
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = socket(AF_UNIX)
        connection.sock.connect(client.path)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        is_json = "json" in answer.getheader("content-type", "") and b"\n" not in data
        return SimpleNamespace(status=answer.status, body=json.loads(data) if data and is_json else data)

    return ask


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/v1/instances/web/stop", {"timeout": False}, "timeout"),
        ("/v1/instances/web/stop", {"timeout": "5"}, "timeout"),
        ("/v1/images/remove", {"reference": "x", "force": 1}, "force"),
        ("/v1/images/remove", {"reference": "x", "force": "on"}, "force"),
        ("/v1/volumes", {"name": "v", "size": "16777216"}, "size"),
        ("/v1/volumes", {"name": "v", "size": True}, "size"),
        ("/v1/tenants", {"name": "acme", "quota": {"volumes": False}}, "quota.volumes"),
        ("/v1/plans", {"name": "p", "plan": {"cpus": "2"}}, "plan.cpus"),
    ],
)
def test_a_body_of_other_types_is_refused(talk: Talk, path: str, body: dict[str, object], word: str) -> None:
    answer = talk("POST", path, body)
    assert (answer.status, answer.body["type"]) == (422, "refused")
    assert word in answer.body["detail"]


def test_numbers_that_json_does_not_have_are_refused(talk: Talk) -> None:
    answer = talk("POST", "/v1/tokens", {"expires": float("nan")})
    assert answer.status == 422
    assert talk("POST", "/v1/tokens", {"expires": float("inf")}).status == 422


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("forse=true", "'forse' is not known"),
        ("force=on", "not true or false"),
        ("force=True", "not true or false"),
        ("force=1", "not true or false"),
        ("force=", "not true or false"),
        ("force=true&force=false", "given twice"),
        ("detach=true&detach=true", "given twice"),
    ],
)
def test_a_query_of_other_words_is_refused(talk: Talk, query: str, words: str) -> None:
    answer = talk("DELETE", f"/v1/instances/web?{query}")
    assert (answer.status, answer.body["type"]) == (422, "refused")
    assert words in answer.body["detail"]


@pytest.mark.parametrize("value", ["1_0", " 1", "+1", "1.0", "0x1", "01", "1e1", ""])
def test_whole_numbers_are_written_in_one_way(talk: Talk, value: str) -> None:
    quoted = value.replace(" ", "%20").replace("+", "%2B")
    answer = talk("GET", f"/v1/trail?most={quoted}")
    assert answer.status == 422
    assert "not a whole number" in answer.body["detail"]


@pytest.mark.parametrize("value", ["nan", "inf", "1_0", ".5", "5.", "1e"])
def test_numbers_are_written_as_json_has_them(talk: Talk, value: str) -> None:
    answer = talk("GET", f"/v1/instances/web/logs?since={value}")
    assert answer.status == 422
    assert "not a number" in answer.body["detail"]


def test_everything_that_is_wrong_is_told_at_once(talk: Talk) -> None:
    answer = talk("GET", "/v1/instances/web/logs?follow=yes&tail=x&until=y&" + "n" * 500 + "=1")
    assert answer.status == 422
    assert len(answer.body["problems"]) == 4
    assert all(len(problem["what"]) < 200 for problem in answer.body["problems"])


def test_lists_and_names_in_the_query_of_a_model_are_known(talk: Talk) -> None:
    assert talk("GET", "/v1/stats?ref=a&ref=b").status in (200, 404)
    assert talk("GET", "/v1/usage?from=1.5e3&to=2000&by=tenant&by=plan&ref=a").status != 422
    assert talk("GET", "/v1/usage?begin=1").status == 422


def test_a_whole_number_is_a_number_and_lists_are_tuples() -> None:
    assert Plan.model_validate({"memory": 1 << 29, "cpus": 2, "disk": 1 << 30}).cpus == 2.0
    assert AuditRequest.model_validate({"level": "vm"}).level == "vm"


@pytest.mark.parametrize("day", [0, 1767225600, "1767225600", "2026-1-1", "2026-01-01T00:00:00", True])
def test_a_day_is_written_as_one(day: object) -> None:
    given = {"unit": "hour", "amount": "1", "currency": "EUR"}
    assert NewPrice.model_validate({**given, "valid_from": "2026-01-01"}).valid_from.year == 2026
    with pytest.raises(ValueError, match="valid_from"):
        NewPrice.model_validate({**given, "valid_from": day})


def test_wrong_changes_are_refused_before_anything_is_read(talk: Talk) -> None:
    answer = talk("POST", "/v1/images/import?change=false&change=CMD+x&change=NOPE+y")
    assert (answer.status, len(answer.body["problems"])) == (422, 2)
