"""Operations, entity tags and server-sent events, over the real server."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bulkhead.client import Client
from bulkhead.engine import operations as engine_operations
from bulkhead.engine.operations import Operations
from bulkhead.errors import Conflict, ImageError, NotFound, Refused
from bulkhead.events import Event, Progress, Step
from bulkhead.operation import OperationState
from tests.unit.api.fakes import FakeEngine

PULLED = {"release": "debian:bookworm"}


class Raw:
    """A client that says which headers it sends and shows those that come."""

    def __init__(self, path: str) -> None:
        self._path = path

    @contextmanager
    def open(self, method: str, path: str, *, body: bytes = b"", **headers: str) -> Iterator[http.client.HTTPResponse]:
        """One request."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(self._path)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, {"content-type": "application/json", **sent})
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers (names in lower case), the JSON that came."""
        payload = b"" if body is None else json.dumps(body).encode()
        with self.open(method, path, body=payload, **headers) as answer:
            text = answer.read()
            shown = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, shown, json.loads(text) if text else None


@pytest.fixture
def raw(client: Client) -> Raw:
    """It, at the daemon's socket."""
    return Raw(client.path)


class Slow:
    """A bootstrap that goes on step by step, as the test says."""

    def __init__(self, engine: FakeEngine) -> None:
        self.go, self.begun, self.ended = threading.Semaphore(0), threading.Event(), threading.Event()
        engine.images.bootstrap = self  # type: ignore[assignment,method-assign]

    def __call__(self, release: str, *, progress: Progress, **_: object) -> object:
        try:
            for number in range(1, 4):
                self.begun.set()
                assert self.go.acquire(timeout=20)
                progress(Step(f"step {number}", number, 3, "files"))
        finally:
            self.ended.set()
        return {"references": [release]}


def finished(raw: Raw, where: str) -> dict[str, Any]:
    """The operation once it has ended."""
    with raw.open("GET", f"{where}/events", accept="text/event-stream") as answer:
        events = list(sse(answer))
    assert events[-1]["event"] == "end"
    record: dict[str, Any] = raw.ask("GET", where)[2]
    assert events[-1]["data"] == record
    return record


def sse(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The events of a stream."""
    event: dict[str, Any] = {}
    for line in iter(answer.readline, b""):
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "data":
            event["data"] = json.loads(value)
        elif field:
            event[field] = value
        elif "data" in event:
            yield event
            event = {}


@pytest.mark.parametrize(("query", "headers"), [("?detach=true", {}), ("", {"prefer": "respond-async, wait=5"})])
def test_what_lasts_can_be_left_alone(raw: Raw, engine: FakeEngine, query: str, headers: dict[str, str]) -> None:
    slow = Slow(engine)
    status, shown, record = raw.ask("POST", f"/v1/images/bootstrap{query}", PULLED, **headers)
    where = shown["location"]
    assert (status, where) == (202, f"/v1/operations/{record['id']}")
    assert (record["state"], record["kind"], record["target"]) == ("running", "bootstrap_image", "debian:bookworm")
    assert raw.ask("GET", "/v1/operations?state=running")[2][0]["id"] == record["id"]
    slow.go.release(3)
    done = finished(raw, where)
    assert (done["state"], done["result"]) == ("succeeded", {"references": ["debian:bookworm"]})
    assert done["progress"] == {"label": "step 3", "done": 3, "total": 3, "unit": "files"}
    assert raw.ask("DELETE", where)[0] == 204
    assert raw.ask("GET", where)[0] == 404
    assert raw.ask("GET", "/v1/operations")[2] == []


def test_detach_is_yes_or_no(raw: Raw, engine: FakeEngine) -> None:
    status, _, problem = raw.ask("POST", "/v1/images/bootstrap?detach=maybe", PULLED)
    assert (status, problem["type"]) == (422, "refused")
    assert engine.operations.list() == []


def test_who_waits_is_told_where_else_to_look(raw: Raw, engine: FakeEngine) -> None:
    with raw.open("POST", "/v1/images/bootstrap", body=json.dumps(PULLED).encode()) as answer:
        link = str(answer.getheader("link"))
        lines = [json.loads(line) for line in answer.read().splitlines()]
    assert lines[-1]["result"] == {"references": ["debian:bookworm"]}
    record = raw.ask("GET", link.partition(">")[0].removeprefix("<"))[2]
    assert (record["state"], record["result"]) == ("succeeded", lines[-1]["result"])


def test_cancelled(raw: Raw, engine: FakeEngine) -> None:
    slow = Slow(engine)
    _, shown, _ = raw.ask("POST", "/v1/images/bootstrap?detach=true", PULLED)
    assert slow.begun.wait(20)
    status, _, record = raw.ask("DELETE", shown["location"])
    assert (status, record["state"]) == (202, "running")
    slow.go.release()
    assert finished(raw, shown["location"])["state"] == "cancelled"
    assert slow.ended.is_set()


def test_a_client_that_goes_cancels(raw: Raw, engine: FakeEngine) -> None:
    slow = Slow(engine)
    with raw.open("POST", "/v1/images/bootstrap", body=json.dumps(PULLED).encode()):
        assert slow.begun.wait(20)
    [record] = engine.operations.list()
    while engine.operations.get(record.id).running:
        slow.go.release()
        threading.Event().wait(0.01)
    assert engine.operations.get(record.id).state in (OperationState.CANCELLED, OperationState.SUCCEEDED)


def test_what_fails_keeps_its_problem(raw: Raw, engine: FakeEngine) -> None:
    engine.images.error = ImageError("the archive ends in the middle", hint="get it again")
    status, shown, _ = raw.ask("POST", "/v1/images/import?name=x&detach=true", {"a": 1})
    assert status == 202
    done = finished(raw, shown["location"])
    assert (done["state"], done["problem"]["type"], done["problem"]["hint"]) == ("failed", "image", "get it again")
    assert (done["problem"]["status"], done["target"]) == (422, "x")
    engine.images.error = RuntimeError("secret words")
    done = finished(raw, raw.ask("POST", "/v1/images/import?detach=true", {"a": 1})[1]["location"])
    assert "secret words" not in json.dumps(done)
    assert done["problem"]["type"] == "error"


def test_an_upload_is_read_before_it_is_left_alone(raw: Raw, engine: FakeEngine) -> None:
    with raw.open("POST", "/v1/images/import?detach=true&name=big", body=b"x" * 3_000_000) as answer:
        assert answer.status == 202
        where = str(answer.getheader("location"))
    assert finished(raw, where)["result"]["size"] == 3_000_000


def test_builds(raw: Raw, engine: FakeEngine) -> None:
    order = json.dumps({"containerfile": "FROM x", "names": ["made"]}).encode() + b"\n"
    with raw.open("POST", "/v1/build?detach=true", body=order + b"context") as answer:
        where = str(answer.getheader("location"))
    done = finished(raw, where)
    assert (done["state"], done["progress"]["label"]) == ("succeeded", "FROM x")
    assert engine.uploaded == b"context"
    with raw.open("POST", "/v1/build?detach=true", body=b"no order") as answer:
        where = str(answer.getheader("location"))
    assert finished(raw, where)["problem"]["type"] == "refused"


def test_a_stop_is_an_operation_where_it_is_asked_for(raw: Raw, client: Client, engine: FakeEngine) -> None:
    client.call("POST", "/v1/instances", body={"image": "x", "name": "web"})
    held = threading.Event()
    stop = engine.stop

    def slow(ref: str, **how: Any) -> object:
        assert held.wait(20)
        return stop(ref, **how)

    engine.stop = slow  # type: ignore[assignment,method-assign]
    status, shown, record = raw.ask("POST", "/v1/instances/web/stop?detach=true", {"timeout": 9})
    assert (status, record["kind"], record["target"], record["cancellable"]) == (202, "stop_instance", "web", False)
    with pytest.raises(Conflict, match="cannot be cancelled"):
        client.call("DELETE", shown["location"])
    held.set()
    assert finished(raw, shown["location"])["result"]["exit"]["code"] == 143
    assert raw.ask("POST", "/v1/instances/web/stop", {"timeout": 9})[0] == 200
    assert len(engine.operations.list()) == 1
    for path in ("start", "restart"):
        where = raw.ask("POST", f"/v1/instances/web/{path}?detach=true")[1]["location"]
        assert finished(raw, where)["result"]["state"] == "running"
    where = raw.ask("DELETE", "/v1/instances/web?force=true&detach=true")[1]["location"]
    assert finished(raw, where)["result"] == {"id": f"{1:032x}"}


def test_reports_can_be_taken_up_again(raw: Raw, engine: FakeEngine) -> None:
    slow = Slow(engine)
    where = raw.ask("POST", "/v1/images/bootstrap?detach=true", PULLED)[1]["location"]
    slow.go.release(1)
    with raw.open("GET", f"{where}/events", accept="text/event-stream") as answer:
        first = next(sse(answer))
    assert (first["id"], first["event"], first["data"]["label"]) == ("1", "progress", "step 1")
    slow.go.release(2)
    with raw.open("GET", f"{where}/events", accept="text/event-stream", last_event_id="1") as answer:
        labels = [event["data"].get("label") for event in sse(answer)]
    # It may have ended by then: what came of it is the record's to say.
    assert labels in (["step 2", "step 3", None], [None])
    with raw.open("GET", f"{where}/events") as answer:
        assert answer.getheader("content-type") == "application/x-ndjson"
        assert json.loads(answer.read().splitlines()[-1])["operation"]["state"] == "succeeded"
    for wrong in ("-1", "x", "9" * 30):
        with raw.open("GET", f"{where}/events", accept="text/event-stream", last_event_id=wrong) as answer:
            assert answer.status == 422
    assert raw.ask("GET", "/v1/operations/none/events", accept="text/event-stream")[0] == 404


# --- the book itself


def test_an_earlier_daemons_operations_were_interrupted(engine: FakeEngine) -> None:
    begun = engine.operations.begin("pull_image", "debian", tenant="default", cancellable=True)
    after = Operations(engine.state)
    assert after.recover() == [f"operation {begun.id[:12]} (pull_image debian) was interrupted"]
    found = after.get(begun.id)
    assert found.state is OperationState.INTERRUPTED
    assert found.ended
    assert after.recover() == []
    assert list(after.follow(begun.id, after=0, alive=lambda: True)) == [found]


def test_memory_is_bounded(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_operations, "MOST_KEPT", 5)
    book = engine.operations
    for number in range(20):
        one = book.begin("pull_image", str(number), tenant="default", cancellable=True)
        for step in range(1000):
            book.tell(one.id, Step(f"step {step}"))
        assert len(book._live[one.id].reports) == engine_operations.MOST_REPORTS
        book.end(one.id, OperationState.SUCCEEDED, result="x" * (1 << 20))
        assert book.get(one.id).result is None
    assert not book._live
    book.begin("pull_image", "last", tenant="default", cancellable=True)
    assert [one.target for one in book.list()] == ["last", "19", "18", "17", "16", "15"]
    with pytest.raises(NotFound, match="no such operation"):
        book.get("0" * 32)


# --- entity tags


def test_what_is_known_is_not_sent_again(raw: Raw, client: Client) -> None:
    client.call("POST", "/v1/instances", body={"image": "x", "name": "web"})
    for path in ("/v1/instances", "/v1/instances/web", "/v1/plans", "/v1/plans/default", "/v1/networks"):
        status, shown, record = raw.ask("GET", path)
        assert (status, shown["etag"][0], shown["etag"][-1]) == (200, '"', '"')
        status, again, nothing = raw.ask("GET", path, if_none_match=f'"other", W/{shown["etag"]}')
        assert (status, again["etag"], nothing) == (304, shown["etag"], None)
        assert "content-length" not in again
        assert raw.ask("GET", path, if_none_match='"other"')[2] == record
        assert raw.ask("GET", path, if_none_match="*")[0] == 304


def test_an_edit_of_an_old_copy_is_refused(raw: Raw, client: Client, engine: FakeEngine) -> None:
    made = raw.ask("POST", "/v1/instances", {"image": "x", "name": "web"})
    tag = made[1]["etag"]
    assert raw.ask("GET", "/v1/instances/web")[1]["etag"] == tag
    change = {"plan": {"memory": 64 << 20}}
    assert raw.ask("PATCH", "/v1/instances/web", change, if_match=tag)[0] == 200
    client.call("POST", "/v1/instances/web/start")
    calls = list(engine.calls)
    status, _, problem = raw.ask("PATCH", "/v1/instances/web", change, if_match=tag)
    assert (status, problem["type"], problem["status"]) == (412, "changed", 412)
    assert raw.ask("DELETE", "/v1/instances/web?force=true", if_match=tag)[0] == 412
    assert raw.ask("DELETE", "/v1/instances/gone", if_match="*")[0] == 412
    assert engine.calls == calls
    fresh = raw.ask("GET", "/v1/instances/web")[1]["etag"]
    assert raw.ask("DELETE", "/v1/instances/web?force=true", if_match=f'"x", {fresh}')[0] == 200


def test_of_many_edits_of_one_copy_one_is_made(raw: Raw, client: Client, engine: FakeEngine) -> None:
    client.call("POST", "/v1/plans", body={"name": "p", "plan": {"memory": 64 << 20, "cpus": 1, "disk": 1 << 30}})
    tag = raw.ask("GET", "/v1/plans/p")[1]["etag"]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(raw.ask("DELETE", "/v1/plans/p", if_match=tag)[0]))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204] + [412] * 11


def test_a_condition_is_never_passed_over(raw: Raw, client: Client) -> None:
    client.call("POST", "/v1/instances", body={"image": "x", "name": "web"})
    status, _, problem = raw.ask("POST", "/v1/instances/web/start", if_match='"x"')
    assert (status, problem["type"]) == (422, "refused")
    assert client.call("GET", "/v1/instances/web")["state"] == "created"


# --- events of the daemon


def test_events_can_be_followed_by_browsers(raw: Raw, engine: FakeEngine) -> None:
    happened = [Event(when=float(number), kind="instance", id=f"{number}", action="start") for number in range(1, 4)]
    engine.happened = happened
    with raw.open("GET", "/v1/events?since=0&until=10", accept="text/event-stream") as answer:
        assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert answer.getheader("cache-control") == "no-store"
        stream = sse(answer)
        first = next(stream)
        assert (first["retry"], first["id"], first["event"]) == ("2000", "1", "instance")
        assert first["data"]["number"] == 1
        assert [next(stream)["id"] for _ in range(2)] == ["2", "3"]
    with raw.open("GET", "/v1/events", accept="text/event-stream", last_event_id="2") as answer:
        assert next(sse(answer))["id"] == "3"
    with raw.open("GET", "/v1/events", accept="text/event-stream") as answer:
        # Nothing of what was: it goes on with what is next.
        assert engine.watched.wait(20)
        assert answer.readline() == b"retry: 2000\n"
    with raw.open("GET", "/v1/events?after=1") as answer:
        assert [json.loads(line)["number"] for line in answer.read().splitlines()] == [2, 3]


def test_a_quiet_stream_beats(raw: Raw, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.api.sse.BEAT_SECONDS", 0.05)
    with raw.open("GET", "/v1/events", accept="text/event-stream") as answer:
        lines = iter(answer.readline, b"")
        assert next(line for line in lines if line.startswith(b":")) == b": still here\n"
    assert engine.forgotten.wait(20)


# --- what is no request


def test_what_is_no_http_gets_a_problem(client: Client) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(client.path)
        connection.sendall(b"this is no request\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/nowhere", None, 404),
        ("PUT", "/v1/instances", None, 405),
        ("POST", "/v1/instances", b"{", 422),
        ("POST", "/v1/instances", b"\xff\xfe", 422),
        ("POST", "/v1/instances", b"[1, 2]", 422),
        ("POST", "/v1/plans", b" " * (1 << 17), 413),
        ("GET", "/v1/instances/web/wait?timeout=x", None, 422),
        ("GET", "/v1/instances/none", None, 404),
    ],
)
def test_every_error_is_a_problem(raw: Raw, method: str, path: str, body: bytes | None, status: int) -> None:
    with raw.open(method, path, body=body or b"") as answer:
        problem = json.loads(answer.read())
        assert answer.status == status == problem["status"]
        assert answer.getheader("content-type") == "application/problem+json"
        assert problem["problems"][0]["what"]


def test_all_methods_of_a_path_are_allowed(raw: Raw) -> None:
    status, shown, _ = raw.ask("PUT", "/v1/instances/web")
    assert (status, shown["allow"]) == (405, "DELETE, GET, PATCH")


def test_refusals_are_refusals(client: Client) -> None:
    with pytest.raises(Refused):
        client.call("GET", "/v1/events", query={"after": -1})
