"""Run, attach and exec: frames through the real server between the real client and a fake agent."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkhead import client as wire
from bulkhead.agent.frames import CREDIT, Frame, Type, encode
from bulkhead.api import relay
from bulkhead.client import Client, Duplex
from bulkhead.client.http import answered
from bulkhead.errors import AgentError, BulkheadError, CommandNotFound, Conflict, NotFound, Refused
from bulkhead.model import Exit, State
from tests.unit.api.fakes import FakeAgent, FakeEngine, Talk, command_not_found, served

Make = Callable[[Callable[[Talk], int]], FakeAgent]
REQUEST = {"image": "debian:bookworm", "name": "web"}
EXEC = {"command": ["cat"], "stdin": True}


def collect(stream: Duplex) -> tuple[dict[str, object], bytes, bytes, tuple[int, int] | None]:
    """RESPONSE, stdout, stderr and EXIT of a stream, with credit given back at once."""
    response: dict[str, object] = {}
    output = {1: bytearray(), 2: bytearray()}
    with stream:
        frames = stream.waiting()
        while True:
            for kind, channel, payload in frames:
                if kind == wire.RESPONSE:
                    response = json.loads(payload)
                elif kind == wire.DATA:
                    output[channel] += payload
                    stream.send(wire.CREDIT, struct.pack("<I", len(payload)), channel)
                elif kind == wire.EXIT:
                    return response, bytes(output[1]), bytes(output[2]), struct.unpack("<II", payload)
                elif kind == wire.PROBLEM:
                    raise wire.problem(payload)
            frames = stream.receive()


def hello(talk: Talk) -> int:
    talk.out(b"hello\n")
    talk.out(b"trouble\n", channel=2)
    return 3


def echo(talk: Talk) -> int:
    """Sends stdin back, giving credit, until its end."""
    while (frame := talk.next()) is not None:
        if frame.type is Type.DATA:
            talk.out(frame.payload)
            talk.send(Frame(Type.CREDIT, 1, struct.pack("<I", len(frame.payload)), 0))
        elif frame.type is Type.EOF:
            return 0
    return -1


def running(engine: FakeEngine, client: Client) -> str:
    """An instance that runs; its id."""
    client.call("POST", "/v1/instances", body=REQUEST)
    instance = next(iter(engine.instances.values()))
    engine._change(instance, state=State.RUNNING)
    if engine.agent:
        engine.agent.started.set()
    return instance.spec.id


def opened(client: Client, path: str, request: object) -> Duplex:
    """A stream whose RESPONSE has been read."""
    stream = client.duplex(path, request)
    while not (frames := stream.waiting() or stream.receive()):
        pass
    assert frames[0][0] == wire.RESPONSE
    return stream


# --- run


def test_run(client: Client, engine: FakeEngine, workload: Make) -> None:
    agent = workload(hello)
    response, out, err, ended = collect(client.duplex("/v1/run", REQUEST))
    assert response == {"id": f"{1:032x}", "name": "web", "tty": False, "stdin": False}
    assert (out, err, ended) == (b"hello\n", b"trouble\n", (3, 0))
    assert agent.seen[0] == Frame(Type.ATTACH, 1, struct.pack("<I", 2))
    assert engine.get("web").exit == Exit(code=3)


def test_run_with_auto_remove_answers_when_it_is_gone(client: Client, engine: FakeEngine, workload: Make) -> None:
    workload(hello)
    collect(client.duplex("/v1/run", {**REQUEST, "auto_remove": True}))
    assert not engine.instances


def test_run_as_plain_json(client: Client, workload: Make) -> None:
    total = 3 * CREDIT

    def writer(talk: Talk) -> int:
        left, credit = total, CREDIT
        while left:
            if not credit:
                frame = talk.next()
                assert frame and frame.type is Type.CREDIT and frame.channel == 1
                credit += int.from_bytes(frame.payload, "little")
            count = min(left, credit, 65536)
            talk.out(b"x" * count)
            left, credit = left - count, credit - count
        return 0

    workload(writer)
    with client.stream("POST", "/v1/run", body={**REQUEST, "stdin": True}) as response:
        body = response.read()
    assert body.count(b"x") >= total
    assert body.endswith(encode(Frame(Type.EXIT, 1, struct.pack("<II", 0, 0))))


def test_plain_requests_follow_one_another_on_a_connection(client: Client, workload: Make) -> None:
    workload(hello)
    body = json.dumps(REQUEST).encode()
    head = b"POST /v1/run HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with sent(client, b"") as connection:
        for _ in range(3):
            connection.sendall(head % len(body) + body)
            assert wire.Response(connection).read().endswith(struct.pack("<II", 3, 0))


def test_run_detached(client: Client, engine: FakeEngine) -> None:
    assert client.call("POST", "/v1/run", body={**REQUEST, "detach": True})["state"] == "running"


def test_run_that_cannot_start(client: Client, engine: FakeEngine, workload: Make) -> None:
    workload(lambda talk: -1)
    engine.start_error = command_not_found()
    with pytest.raises(CommandNotFound, match="nope"):
        client.duplex("/v1/run", REQUEST)
    assert not engine.instances


def test_run_refusals(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        client.duplex("/v1/run", {"image": "", "colour": 1})
    assert len(caught.value.problems) == 2
    with pytest.raises(NotFound, match="missing"):
        client.duplex("/v1/run", {"image": "missing"})


def test_agent_that_goes_without_a_word(client: Client, engine: FakeEngine, workload: Make) -> None:
    def workload_lost(talk: Talk) -> int:
        threading.Timer(0.05, lambda: engine.end(f"{1:032x}", Exit(code=137, signal=9))).start()
        return -1

    workload(workload_lost)
    assert collect(client.duplex("/v1/run", REQUEST))[3] == (137, 9)


# --- exec


def test_exec_echo(client: Client, engine: FakeEngine, workload: Make) -> None:
    agent = workload(echo)
    running(engine, client)
    data = bytes(range(256)) * 4096
    stream = client.duplex(
        "/v1/instances/web/exec", {**EXEC, "rows": 50, "columns": 132, "env": ["A=b"], "user": "www"}
    )
    got, credit, sent, done = bytearray(), CREDIT, 0, False
    while not done:
        for kind, channel, payload in stream.waiting() or stream.receive():
            if kind == wire.DATA:
                got += payload
                stream.send(wire.CREDIT, struct.pack("<I", len(payload)), channel)
            elif kind == wire.CREDIT:
                credit += int.from_bytes(payload, "little")
            done = done or kind == wire.EXIT
        while sent < len(data) and (count := min(credit, 65536, len(data) - sent)):
            stream.send(wire.DATA, data[sent : sent + count])
            sent, credit = sent + count, credit - count
            if sent == len(data):
                stream.send(wire.EOF)
    stream.close()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert agent.seen[0].type is Type.EXEC
    flags, _, rows, columns = struct.unpack_from("<IIHH", agent.seen[0].payload)
    assert (flags, rows, columns) == (2, 50, 132)
    assert engine.calls[-1] == ("exec", ("cat",), ("A=b",), "www", None)


def test_exec_errors_are_explained(client: Client, engine: FakeEngine, workload: Make) -> None:
    agent = workload(hello)
    running(engine, client)
    agent.error = struct.pack("<BBHII", 2, 0, 50, 0, errno.ENOENT)
    with pytest.raises(CommandNotFound, match="command not found: cat"):
        client.duplex("/v1/instances/web/exec", EXEC)
    with pytest.raises(NotFound):
        client.duplex("/v1/instances/none/exec", EXEC)
    with pytest.raises(Refused, match="command"):
        client.duplex("/v1/instances/web/exec", {"command": []})


def test_exec_detached(client: Client, engine: FakeEngine, workload: Make) -> None:
    closed = threading.Event()

    def until_closed(talk: Talk) -> int:
        frame = talk.next()
        if frame and frame.type is Type.CLOSE:
            closed.set()
        return -1

    workload(until_closed)
    running(engine, client)
    answer = client.call("POST", "/v1/instances/web/exec", body={"command": ["true"], "detach": True})
    assert answer["pid"] == 77
    assert closed.wait(5)


def test_signals_and_sizes(client: Client, engine: FakeEngine, workload: Make) -> None:
    def watcher(talk: Talk) -> int:
        while frame := talk.next():
            if frame.type is Type.EOF:
                return 0
        return -1

    agent = workload(watcher)
    running(engine, client)
    for path, target in (("exec", 1), ("attach", 0xFFFFFFFF)):
        agent.seen.clear()
        stream = opened(client, f"/v1/instances/web/{path}", EXEC if path == "exec" else {"stdin": True})
        stream.send(wire.SIGNAL, struct.pack("<II", 15, 0))
        stream.send(wire.RESIZE, struct.pack("<HH", 24, 80))
        stream.send(wire.EOF)
        assert collect(stream)[3] == (0, 0)
        assert agent.seen[1:] == [
            Frame(Type.SIGNAL, target, struct.pack("<II", 15, 0)),
            Frame(Type.RESIZE, 1, struct.pack("<HH", 24, 80)),
            Frame(Type.EOF, 1),
        ]


# --- attach


def test_attach(client: Client, engine: FakeEngine, workload: Make) -> None:
    agent = workload(echo)
    running(engine, client)
    stream = opened(client, "/v1/instances/web/attach", {"stdin": True})
    stream.send(wire.DATA, b"abc")
    stream.send(wire.EOF)
    assert collect(stream)[1:] == (b"abc", b"", (0, 0))
    assert agent.seen[0] == Frame(Type.ATTACH, 1, struct.pack("<I", 3))


def test_attach_needs_a_running_instance(client: Client) -> None:
    client.call("POST", "/v1/instances", body=REQUEST)
    with pytest.raises(Conflict, match="not running"):
        client.duplex("/v1/instances/web/attach", {})


def test_detaching(client: Client, engine: FakeEngine, workload: Make) -> None:
    gone = threading.Event()

    def until_gone(talk: Talk) -> int:
        while talk.next():
            pass
        gone.set()
        return -1

    agent = workload(until_gone)
    running(engine, client)
    with opened(client, "/v1/instances/web/attach", {}) as stream:
        stream.send(wire.CLOSE)
        assert gone.wait(5)
    assert agent.seen[-1].type is Type.CLOSE
    gone.clear()
    opened(client, "/v1/instances/web/attach", {}).close()
    assert gone.wait(5)


# --- what breaks the rules


@pytest.mark.parametrize(
    "bad",
    [
        encode(Frame(Type.DATA, 2, b"x", 0)),
        encode(Frame(Type.DATA, 1, b"x", 1)),
        encode(Frame(Type.SIGNAL, 1, struct.pack("<II", 9, 1))),
        encode(Frame(Type.SIGNAL, 1, struct.pack("<II", 65, 0))),
        encode(Frame(Type.SIGNAL, 1, b"")),
        encode(Frame(Type.SIGNAL, 0xFFFFFFFF, struct.pack("<II", 9, 0))),
        encode(Frame(Type.RESIZE, 1, b"123")),
        encode(Frame(Type.CREDIT, 1, b"1234", 0)),
        encode(Frame(Type.RUN, 1, b"")),
        encode(Frame(Type.QUIT, 1)),
        encode(Frame(Type.START, 1)),
        encode(Frame(Type.FILES, 1)),
        b"\xff" * 12,
        b"\x00\x00\x00\x00\x02\x20\x00\x00\x01\x00\x00\x00",
    ],
)
def test_frames_that_a_client_may_not_send(bad: bytes, client: Client, engine: FakeEngine, workload: Make) -> None:
    agent = workload(echo)
    running(engine, client)
    stream = opened(client, "/v1/instances/web/exec", EXEC)
    stream._response.connection.sendall(b"%x\r\n%b\r\n" % (len(bad), bad))
    with pytest.raises(Refused):
        collect(stream)
    assert [frame.type for frame in agent.seen] == [Type.EXEC]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01\x00",
        encode(Frame(Type.DATA, 1, b"x")),
        relay._HEADER.pack(relay.MAX_REQUEST + 1, 1, relay.REQUEST, 0, 0, 1),
        relay._HEADER.pack(2, 1, relay.REQUEST, 0, 0, 2) + b"{}",
        relay._HEADER.pack(2, 2, relay.REQUEST, 0, 0, 1) + b"{}",
        relay._HEADER.pack(20, 1, relay.REQUEST, 0, 0, 1) + b"{}",
    ],
)
def test_bodies_that_are_no_request(body: bytes, client: Client) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(client.path)
        head = f"POST /v1/run HTTP/1.1\r\nhost: x\r\ncontent-type: {wire.FRAMES}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        response = wire.Response(connection)
        assert response.status == 422
        assert isinstance(wire.problem(response.read()), Refused)


def test_other_content_types(client: Client) -> None:
    with pytest.raises(Refused, match="text/plain"):
        answered(sent(client, b"POST /v1/run HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n\r\n"), "POST")


def sent(client: Client, data: bytes) -> socket.socket:
    """A connection on which `data` was sent."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(client.path)
    connection.sendall(data)
    return connection


@pytest.mark.parametrize(
    "bad",
    [b"\xff" * 64, encode(Frame(Type.START, 1)), b"\x00\x00\x02\x00\x01\x20\x01\x00\x01\x00\x00\x00"],
)
def test_agents_that_break_the_protocol(bad: bytes, client: Client, engine: FakeEngine, workload: Make) -> None:
    def rude(talk: Talk) -> int:
        talk.raw(bad)
        talk.next()
        return -1

    workload(rude)
    running(engine, client)
    with pytest.raises(AgentError):
        collect(client.duplex("/v1/instances/web/exec", EXEC))
    assert client.call("GET", "/v1/ping")


def test_frames_of_other_streams_are_dropped(client: Client, engine: FakeEngine, workload: Make) -> None:
    def chatty(talk: Talk) -> int:
        talk.send(Frame(Type.OK, 0xFFFFFFFF))
        talk.send(Frame(Type.DATA, 9, b"other", 1))
        talk.out(b"mine")
        return 0

    workload(chatty)
    running(engine, client)
    assert collect(client.duplex("/v1/instances/web/exec", EXEC))[1] == b"mine"


def test_slow_reader_holds_the_writer_up(client: Client, engine: FakeEngine, workload: Make) -> None:
    """A client that reads nothing gets no more than the window and the buffers on the way, and loses nothing."""
    sent_bytes = [0]

    def firehose(talk: Talk) -> int:
        credit = CREDIT
        for _ in range(64):
            while credit < 65536:
                frame = talk.next()
                assert frame and frame.type is Type.CREDIT
                credit += int.from_bytes(frame.payload, "little")
            talk.out(b"y" * 65536)
            credit -= 65536
            sent_bytes[0] += 65536
        return 0

    workload(firehose)
    running(engine, client)
    stream = client.duplex("/v1/instances/web/exec", EXEC)
    threading.Event().wait(0.3)
    assert sent_bytes[0] <= CREDIT
    assert collect(stream)[1] == b"y" * (64 * 65536)


def test_many_at_once(client: Client, engine: FakeEngine, workload: Make) -> None:
    workload(hello)
    running(engine, client)
    results: list[object] = []

    def one() -> None:
        results.append(collect(client.duplex("/v1/instances/web/exec", EXEC))[1:])

    threads = [threading.Thread(target=one) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [(b"hello\n", b"trouble\n", (3, 0))] * 40


def test_daemon_that_stops_says_so(client: Client, engine: FakeEngine, workload: Make, tmp_path: Path) -> None:
    workload(echo)
    running(engine, client)
    path = tmp_path / "second.sock"
    with served(engine, path):
        stream = opened(Client(str(path)), "/v1/instances/web/attach", {"stdin": True})
    with pytest.raises(BulkheadError, match="the daemon stops"):
        collect(stream)
