"""Every route over the real server and the real client, with a fake engine."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from bulkhead.client import Client
from bulkhead.errors import BuildFailed, BulkheadError, CommandNotFound, Conflict, ImageError, NotFound, Refused
from bulkhead.events import Event, Progress, Step
from bulkhead.model import Exit
from tests.unit.api.fakes import FakeEngine, Line, command_not_found

REQUEST = {"image": "debian:bookworm", "name": "web", "command": ["sleep", "1"]}


def create(client: Client, *, start: bool = False, **changes: object) -> dict[str, object]:
    made: dict[str, object] = client.call("POST", "/v1/instances", query={"start": start}, body={**REQUEST, **changes})
    return made


def test_life(client: Client, engine: FakeEngine) -> None:
    made = create(client)
    assert made["state"] == "created"
    assert client.call("POST", "/v1/instances/web/start")["state"] == "running"
    assert [item["spec"]["name"] for item in client.call("GET", "/v1/instances")] == ["web"]
    assert client.call("GET", "/v1/instances/web")["spec"]["argv"] == ["sleep", "1"]
    assert client.call("GET", f"/v1/instances/{str(made['spec']['id'])[:12]}/describe")["name"] == "web"  # type: ignore[index]
    client.call("POST", "/v1/instances/web/kill", body={"signal": "SIGHUP"})
    client.call("POST", "/v1/instances/web/stop", body={"timeout": 3})
    client.call("POST", "/v1/instances/web/restart", body={"timeout": 1.5})
    with pytest.raises(Conflict, match="running"):
        client.call("DELETE", "/v1/instances/web")
    client.call("DELETE", "/v1/instances/web", query={"force": True})
    assert client.call("GET", "/v1/instances") == []
    assert engine.calls == [
        ("start", "web"),
        ("kill", "web", "SIGHUP"),
        ("stop", "web", 3.0, None),
        ("stop", "web", 1.5, None),
        ("start", "web"),
        ("delete", "web", False),
        ("delete", "web", True),
    ]


def test_create_and_start(client: Client) -> None:
    assert create(client, start=True)["state"] == "running"


def test_failed_start_leaves_nothing(client: Client, engine: FakeEngine) -> None:
    engine.start_error = command_not_found()
    with pytest.raises(CommandNotFound) as caught:
        create(client, start=True)
    assert caught.value.exit_code == 127
    assert caught.value.hint == "check the command"
    assert not engine.instances


def test_what_somebody_else_has_started_meanwhile_is_left_alone(
    client: Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = engine.start

    def late(ref: str, **fields: object) -> None:
        start(ref)
        raise Conflict("instance web is running, it cannot be started")

    monkeypatch.setattr(engine, "start", late)
    assert create(client, start=True)["state"] == "running"
    assert [each["state"] for each in client.call("GET", "/v1/instances")] == ["running"]


def test_wait(client: Client, engine: FakeEngine) -> None:
    made = create(client, start=True)
    assert client.call("GET", "/v1/instances/web/wait", query={"timeout": 0}) is None
    threading.Timer(0.05, lambda: engine.end(made["spec"]["id"], Exit(code=3))).start()  # type: ignore[index]
    assert client.call("GET", "/v1/instances/web/wait")["code"] == 3
    assert client.call("GET", "/v1/instances/web/wait")["code"] == 3


def test_waiting_client_goes(client: Client, engine: FakeEngine) -> None:
    create(client, start=True)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(client.path)
    connection.sendall(b"GET /v1/instances/web/wait HTTP/1.1\r\nhost: x\r\n\r\n")
    while not engine.futures:
        threading.Event().wait(0.01)
    connection.close()
    engine.end(next(iter(engine.instances)), Exit(code=0))
    assert client.call("GET", "/v1/instances/web/wait")["code"] == 0


def test_update(client: Client, engine: FakeEngine) -> None:
    create(client)
    client.call("PATCH", "/v1/instances/web", body={"plan": {"memory": 1 << 30}, "restart": {"kind": "always"}})
    name, instance, plan, restart = engine.calls[-1]
    assert (name, instance, plan, restart.kind) == ("update", "web", {"memory": 1 << 30}, "always")


def test_dry_run_stats_info_doctor_ping(client: Client) -> None:
    create(client, start=True)
    assert client.call("POST", "/v1/dry-run", body=REQUEST) == {"text": "mount debian:bookworm"}
    assert client.call("GET", "/v1/stats")[0]["memory"] == 10 << 20
    assert client.call("GET", "/v1/stats", query={"ref": ["web", "web"]})[1]["name"] == "web"
    assert client.call("GET", "/v1/info")["version"] == "0.1.0"
    assert client.call("GET", "/v1/doctor")[1] == {
        "name": "lxcfs",
        "works": False,
        "reason": "not installed",
        "hint": "apt install lxcfs",
    }
    assert client.call("GET", "/v1/ping")["pid"] > 0


def test_plans_networks_volumes(client: Client) -> None:
    plan = {"name": "small", "plan": {"memory": 64 << 20, "cpus": 0.5, "disk": 1 << 30}}
    assert client.call("POST", "/v1/plans", body=plan)["plan"]["pids"] == 512
    with pytest.raises(Conflict):
        client.call("POST", "/v1/plans", body=plan)
    assert len(client.call("GET", "/v1/plans")) == 2
    assert client.call("GET", "/v1/plans/small")["plan"]["cpus"] == 0.5
    assert client.call("DELETE", "/v1/plans/small") is None
    with pytest.raises(NotFound, match="small"):
        client.call("GET", "/v1/plans/small")
    assert client.call("POST", "/v1/networks", body={"name": "n", "subnet4": "10.9.0.0/24"})["subnet4"] == "10.9.0.0/24"
    assert client.call("GET", "/v1/networks")[0]["name"] == "n"
    assert client.call("GET", "/v1/networks/n")["subnet6"] == "fd00::/64"
    client.call("DELETE", "/v1/networks/n")
    assert client.call("POST", "/v1/volumes", body={"name": "v", "size": 32 << 20})["size"] == 32 << 20
    assert client.call("GET", "/v1/volumes/v")["name"] == "v"
    client.call("DELETE", "/v1/volumes/v")
    assert client.call("GET", "/v1/volumes") == []


def test_snapshots(client: Client, engine: FakeEngine) -> None:
    create(client, image="debian", name="web")
    with client.stream("POST", "/v1/instances/web/snapshots", body={"name": "before"}) as response:
        lines = list(response.json_lines())
    assert lines[0]["step"]["label"] == "copying the disk"
    assert lines[1]["result"]["name"] == "before"
    assert client.call("GET", "/v1/snapshots")[0]["spec"]["name"] == "web"
    assert len(client.call("GET", "/v1/snapshots", query={"instance": "web"})) == 1
    assert client.call("GET", "/v1/instances/web/snapshots/before")["size"] == 1 << 20
    with client.stream("POST", "/v1/instances/web/snapshots/before/restore", body={"force": True}) as response:
        assert list(response.json_lines())[-1]["result"]["spec"]["name"] == "web"
    assert engine.calls[-1] == ("restore", "web/before", True, True)
    client.call("DELETE", "/v1/instances/web/snapshots/before")
    with pytest.raises(NotFound, match="before"):
        client.call("GET", "/v1/instances/web/snapshots/before")
    for body in ({"name": "a/b"}, {"name": ".."}, {"name": ""}, {"nam": "x"}):
        with pytest.raises(Refused):
            client.call("POST", "/v1/instances/web/snapshots", body=body)


def test_an_image_or_a_snapshot(client: Client, engine: FakeEngine) -> None:
    client.call("POST", "/v1/instances", body={"snapshot": "web/before"})
    assert engine.requests[-1].snapshot == "web/before"
    for body, said in (
        ({}, "or a snapshot"),
        ({"image": "debian", "snapshot": "web/before"}, "has its image"),
        ({"image": ""}, "or a snapshot"),
    ):
        with pytest.raises(Refused, match=said):
            client.call("POST", "/v1/instances", body=body)


# --- errors


def test_all_problems_at_once(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        create(client, image="wrong")
    assert [(p.what, p.hint) for p in caught.value.problems] == [
        ("memory is too much", "less"),
        ("cpus are too many", "fewer"),
    ]


def test_invalid_body_names_every_field(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        client.call("POST", "/v1/instances", body={"name": "-", "isolation": "jail", "colour": 1})
    said = " / ".join(problem.what for problem in caught.value.problems)
    for word in ("image: field required", "isolation 'jail'", "name '-'", "colour 1: extra inputs"):
        assert word in said


def raw(client: Client, text: bytes) -> tuple[int, dict[str, object]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(client.path)
        connection.sendall(text)
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


def test_problem_document(client: Client) -> None:
    status, body = raw(client, b"GET /v1/instances/none HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == body["status"] == 404
    assert body["type"] == "not-found"
    assert body["detail"] == "no instance answers to 'none'"
    assert body["hint"] == "bulkhead ps -a shows all"
    assert body["problems"] == [{"what": body["detail"], "hint": body["hint"]}]


def test_not_json(client: Client) -> None:
    head = b"POST /v1/instances HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n"
    status, body = raw(client, head + b"{ba")
    assert status == 422
    assert "not JSON" in str(body["detail"])


def test_unknown_route_and_method(client: Client) -> None:
    assert raw(client, b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n")[0] == 404
    status, body = raw(client, b"PUT /v1/instances HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    assert (status, body["type"]) == (405, "refused")


def test_body_too_large(client: Client) -> None:
    with pytest.raises(BulkheadError):
        create(client, labels={"a": "x" * (2 << 20)})
    assert client.call("GET", "/v1/ping")


def test_unexpected_error(client: Client, engine: FakeEngine) -> None:
    engine.list = lambda: 1 // 0  # type: ignore[assignment]
    with pytest.raises(BulkheadError, match="ZeroDivisionError") as caught:
        client.call("GET", "/v1/instances")
    assert type(caught.value) is BulkheadError
    assert "log" in caught.value.hint


def test_names_with_odd_characters(client: Client) -> None:
    with pytest.raises(NotFound, match="a b/ü"):
        from bulkhead.client import quote

        client.call("GET", "/v1/plans/" + quote("a b/ü").replace("%2F", "/"), query={"x": "ü&="})


# --- streams of lines and files


def test_logs(client: Client, engine: FakeEngine) -> None:
    create(client)
    engine.lines = [Line(1.0, "stdout", b"one"), Line(2.0, "stderr", b"tw\xff", partial=True), Line(3.0, "stdout", b"")]
    with client.stream("GET", "/v1/instances/web/logs", query={"since": 1.5}) as response:
        lines = list(response.json_lines())
    assert [line["when"] for line in lines] == [2.0, 3.0]
    assert lines[0] == {"when": 2.0, "stream": "stderr", "text": "tw\udcff", "partial": True}
    with client.stream("GET", "/v1/instances/web/logs", query={"tail": 1}) as response:
        assert [line["when"] for line in response.json_lines()] == [3.0]
    with pytest.raises(NotFound):
        client.stream("GET", "/v1/instances/none/logs")


def test_many_lines(client: Client, engine: FakeEngine) -> None:
    create(client)
    engine.lines = [Line(float(number), "stdout", b"x" * 200) for number in range(20_000)]
    with client.stream("GET", "/v1/instances/web/logs") as response:
        assert [line["when"] for line in response.json_lines()] == [float(number) for number in range(20_000)]


def test_followed_logs_end_with_the_client(client: Client, engine: FakeEngine) -> None:
    create(client)
    engine.lines = [Line(1.0, "stdout", b"one")]
    with client.stream("GET", "/v1/instances/web/logs", query={"follow": True}) as response:
        lines = response.json_lines()
        assert next(lines)["text"] == "one"
        assert engine.watched.wait(5)
        engine.lines.append(Line(2.0, "stdout", b"two"))
        assert next(lines)["text"] == "two"
        assert not engine.forgotten.is_set()
    assert engine.forgotten.wait(5)


def test_events(client: Client, engine: FakeEngine) -> None:
    engine.happened = [Event(float(n), "instance", f"{n:032x}", "start", "web", {"n": str(n)}) for n in range(3)]
    with client.stream("GET", "/v1/events", query={"since": 1, "until": 2}) as response:
        assert list(response.json_lines()) == [
            {
                "when": 1.0,
                "kind": "instance",
                "id": f"{1:032x}",
                "action": "start",
                "name": "web",
                "attributes": {"n": "1"},
                "number": 2,
                "tenant": "default",
                "by": "",
            }
        ]


def test_copy_out(client: Client, engine: FakeEngine) -> None:
    create(client)
    with client.stream("GET", "/v1/instances/web/files", query={"path": "/etc/file"}) as response:
        data = response.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["file"]
    for missing in ("/none", "/slow/none"):
        with pytest.raises(NotFound, match=missing):
            client.stream("GET", "/v1/instances/web/files", query={"path": missing})


def test_copy_that_breaks_in_the_middle_is_noticed(client: Client) -> None:
    create(client)
    response = client.stream("GET", "/v1/instances/web/files", query={"path": "/broken"})
    with response, pytest.raises(BulkheadError, match="connection to the daemon was lost"):
        response.read()


def test_copy_in(client: Client, engine: FakeEngine) -> None:
    create(client)
    chunks = [bytes([number]) * 70_000 for number in range(50)]
    query: dict[str, str] = {"path": "/srv/a b"}
    with client.upload("PUT", "/v1/instances/web/files", iter(chunks), query=query) as response:
        assert response.status == 204
    assert engine.uploaded == b"".join(chunks)
    assert engine.calls[-1] == ("copy_in", "web", "/srv/a b")


def test_upload_that_is_refused(client: Client) -> None:
    with pytest.raises(NotFound, match="none"):
        client.upload("PUT", "/v1/instances/none/files", (b"x" * 65536 for _ in range(200)), query={"path": "/"})


# --- images


def test_images(client: Client) -> None:
    assert client.call("GET", "/v1/images")[0]["references"] == ["debian:bookworm"]
    assert client.call("GET", "/v1/images/inspect", query={"reference": "debian:bookworm"})["config"] == {}
    with pytest.raises(NotFound):
        client.call("POST", "/v1/images/remove", body={"reference": "none"})
    removed = client.call("POST", "/v1/images/remove", body={"reference": "debian:bookworm", "force": True})
    assert removed == ["removed debian:bookworm", "force True"]
    assert client.call("POST", "/v1/images/prune", body={"everything": True})["freed"] == 1 << 20


def test_bootstrap(client: Client, engine: FakeEngine) -> None:
    body = {"release": "debian:bookworm", "packages": ["nginx-light"], "config": {"command": ["nginx"]}}
    with client.stream("POST", "/v1/images/bootstrap", body=body) as response:
        lines = list(response.json_lines())
    assert lines[0]["step"]["label"] == "packages of debian:bookworm"
    assert lines[-1] == {"result": {"references": ["debian:bookworm"]}}
    assert engine.images.seen == [("debian:bookworm", ("nginx-light",), None, None, {"command": ("nginx",)})]


def test_disk(client: Client, engine: FakeEngine) -> None:
    body = {"release": "debian:bookworm", "size": 3 << 30, "firmware": "uefi"}
    with client.stream("POST", "/v1/images/disk", body=body) as response:
        lines = list(response.json_lines())
    assert lines[-1] == {"result": {"references": ["disk/debian:bookworm"]}}
    assert engine.images.seen == [("debian:bookworm", (), None, 3 << 30, "uefi")]


def test_kernel(client: Client, engine: FakeEngine) -> None:
    with client.stream("POST", "/v1/images/kernel", body={"distribution": "debian", "version": "6.1.0-1"}) as response:
        lines = list(response.json_lines())
    assert lines[0]["step"]["label"] == "kernel of debian"
    assert lines[-1] == {"result": {"references": ["kernel/debian:latest"]}}
    with client.stream("POST", "/v1/images/kernel", body={"trim": True}) as response:
        list(response.json_lines())
    assert engine.images.seen == [("debian", False, "6.1.0-1", None), ("debian", True, None, None)]


def test_import_of_a_path(client: Client, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(b"12345")
    with client.stream(
        "POST",
        "/v1/images/import",
        query={"path": str(tmp_path / "root.tar"), "name": "x", "change": ["CMD a", "USER b"]},
    ) as response:
        lines = list(response.json_lines())
    assert [line["step"]["done"] for line in lines[:-1]] == [0, 10]
    assert engine.images.seen == [("CMD a", "USER b")]
    assert lines[-1]["result"]["size"] == 5
    with pytest.raises(Refused, match="not absolute"):
        client.stream("POST", "/v1/images/import", query={"path": "root.tar"})


def test_import_of_an_upload(client: Client) -> None:
    chunks = (b"x" * 100_000 for _ in range(30))
    with client.upload("POST", "/v1/images/import", chunks, query={"name": "x"}) as response:
        assert list(response.json_lines())[-1]["result"]["size"] == 3_000_000


def test_import_that_fails_late(client: Client, engine: FakeEngine) -> None:
    engine.images.error = ImageError("layer 2 lies about its digest", hint="get it again")
    response = client.upload("POST", "/v1/images/import", [b"x"])
    with response, pytest.raises(ImageError, match="layer 2") as caught:
        list(response.json_lines())
    assert caught.value.hint == "get it again"


def test_openapi(client: Client) -> None:
    document = client.call("GET", "/v1/openapi.json")
    assert "/v1/instances/{ref}/exec" in document["paths"]
    assert "CreateRequest" in document["components"]["schemas"]
    assert "ProblemDetails" in document["components"]["schemas"]


def test_every_route_is_documented(client: Client) -> None:
    text = (Path(__file__).parents[3] / "docs/reference/http-api.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z]+ /v1/[^?`]*)", text, re.MULTILINE))
    paths = client.call("GET", "/v1/openapi.json")["paths"]
    assert documented == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_import_ends_with_the_client_also_after_the_upload(client: Client, engine: FakeEngine) -> None:
    ended = threading.Event()

    def endless(source: object, *, name: str | None, changes: object = (), progress: Progress) -> object:
        source.read()  # type: ignore[attr-defined]
        try:
            while True:
                progress(Step("converting"))
                time.sleep(0.02)
        except BrokenPipeError:
            ended.set()
            raise

    engine.images.import_file = endless  # type: ignore[assignment]
    response = client.upload("POST", "/v1/images/import", [b"x" * 1000])
    assert next(response.json_lines())["step"]["label"] == "converting"
    response.close()
    assert ended.wait(10)


# --- builds


def build(client: Client, order: object, context: bytes = b"a tar") -> list[object]:
    body = [json.dumps(order).encode() + b"\n", context]
    with client.upload("POST", "/v1/build", iter(body)) as response:
        return list(response.json_lines())


def test_a_build(client: Client, engine: FakeEngine) -> None:
    step, result = build(client, {"containerfile": "FROM a\n", "names": ["b"]})
    assert step["build"]["text"] == "FROM a\n" and step["build"]["kind"] == "begin"  # type: ignore[index]
    assert result == {"result": {"digest": "sha256:" + "3" * 64, "names": ["b"], "alive": True}}
    assert engine.uploaded == b"a tar"


def test_a_build_that_fails(client: Client) -> None:
    with pytest.raises(BuildFailed, match="line 1"):
        build(client, {"containerfile": "fail"})


def test_orders_that_are_none(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        build(client, {"isolation": "jail", "colour": "red", "secrets": {"a": 7}})
    told = str(caught.value)
    assert "containerfile" in told and "isolation" in told and "colour" in told
    with pytest.raises(Refused) as caught:
        build(client, {"containerfile": "", "secrets": {"a": "hidden" * 1_000_000}})
    assert "hidden" not in str(caught.value)
    for body in (b"", b"{", b"no line"):
        with pytest.raises(Refused), client.upload("POST", "/v1/build", iter([body])) as response:
            list(response.json_lines())
