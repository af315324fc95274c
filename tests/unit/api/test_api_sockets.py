"""Exec and attach over WebSockets: the same frames, and no other site's page may open one."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from bulkhead import client as wire
from bulkhead.agent.frames import Frame, Type, encode
from bulkhead.api.browsers import TERMINAL, TOKEN, _with_token
from bulkhead.api.relay import REQUEST, api_frame
from bulkhead.client import Client
from tests.unit.api.fakes import FakeAgent, FakeEngine, Talk
from tests.unit.api.test_api_streams import echo, hello, running

Make = Callable[[Callable[[Talk], int]], FakeAgent]
Found = tuple[int, int, bytes]
EXEC = {"command": ["cat"], "stdin": True, "tty": True, "rows": 24, "columns": 80}


@contextmanager
def opened(client: Client, path: str, request: object | None, **options: object) -> Iterator[ClientConnection]:
    """A WebSocket whose request has been sent."""
    where = f"ws://localhost{path}"
    with unix_connect(client.path, uri=where, open_timeout=10, close_timeout=5, **options) as socket:  # type: ignore[arg-type]
        if request is not None:
            socket.send(api_frame(REQUEST, json.dumps(request).encode()))
        yield socket


def frames_of(socket: ClientConnection) -> list[Found]:
    """Type, channel and payload of all that comes, to the end of the connection."""
    data = bytearray()
    try:
        while True:
            message = socket.recv(timeout=20)
            assert isinstance(message, bytes)
            data += message
    except ConnectionClosed as closed:
        assert closed.rcvd and closed.rcvd.code == 1000
    found = []
    while data:
        length, _, kind, channel, _, _ = struct.unpack_from("<IBBBBI", data)
        found.append((kind, channel, bytes(data[12 : 12 + length])))
        del data[: 12 + length]
    return found


def test_a_command_over_a_websocket(client: Client, engine: FakeEngine, workload: Make) -> None:
    agent = workload(echo)
    running(engine, client)
    with opened(client, "/v1/instances/web/exec", EXEC, subprotocols=[TERMINAL]) as socket:
        assert socket.subprotocol == TERMINAL
        # However a client splits its frames, they arrive.
        data = encode(Frame(Type.RESIZE, 1, struct.pack("<HH", 50, 132))) + encode(Frame(Type.DATA, 1, b"hello", 0))
        socket.send(data[:7])
        socket.send(data[7:])
        socket.send(encode(Frame(Type.EOF, 1)))
        found = frames_of(socket)
    assert json.loads(found[0][2]) == {"pid": 77, "tty": True, "stdin": True}
    assert b"".join(payload for kind, _, payload in found if kind == wire.DATA) == b"hello"
    assert found[-1] == (wire.EXIT, 0, struct.pack("<II", 0, 0))
    assert Frame(Type.RESIZE, 1, struct.pack("<HH", 50, 132)) in agent.seen


def test_attach_over_a_websocket(client: Client, engine: FakeEngine, workload: Make) -> None:
    workload(hello)
    running(engine, client)
    with opened(client, "/v1/instances/web/attach", {"output": True}) as socket:
        found = frames_of(socket)
    assert (wire.DATA, 1, b"hello\n") in found
    assert found[-1] == (wire.EXIT, 0, struct.pack("<II", 3, 0))


def test_a_detached_command_is_answered_and_over(client: Client, engine: FakeEngine, workload: Make) -> None:
    workload(hello)
    running(engine, client)
    with opened(client, "/v1/instances/web/exec", {"command": ["true"], "detach": True}) as socket:
        found = frames_of(socket)
    assert [kind for kind, _, _ in found] == [wire.RESPONSE]


@pytest.mark.parametrize(
    "asked",
    [
        ("/v1/instances/none/exec", EXEC, "none"),
        ("/v1/instances/web/exec", {"command": []}, "command"),
        ("/v1/instances/web/exec", {"command": ["a"], "colour": "red"}, "colour"),
    ],
)
def test_problems_come_as_frames(
    client: Client, engine: FakeEngine, workload: Make, asked: tuple[str, object, str]
) -> None:
    path, request, words = asked
    workload(hello)
    running(engine, client)
    with opened(client, path, request) as socket:
        found = frames_of(socket)
    assert [kind for kind, _, _ in found] == [wire.PROBLEM]
    assert words in json.loads(found[0][2])["detail"]


@pytest.mark.parametrize("message", ["text", b"\xff" * 12, encode(Frame(Type.QUIT, 1)), b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_request_is_refused(
    client: Client, engine: FakeEngine, workload: Make, message: str | bytes
) -> None:
    agent = workload(hello)
    running(engine, client)
    with opened(client, "/v1/instances/web/exec", None) as socket:
        socket.send(message)
        # A request that is not whole yet is waited for: more of the same makes it wrong. Others are refused by now.
        with suppress(ConnectionClosed):
            socket.send(b"\xff" * 24)
        found = frames_of(socket)
    assert [kind for kind, _, _ in found] == [wire.PROBLEM]
    assert not agent.seen


def test_a_client_that_goes_ends_the_command(client: Client, engine: FakeEngine, workload: Make) -> None:
    gone = threading.Event()

    def until_gone(talk: Talk) -> int:
        while talk.next():
            pass
        gone.set()
        return -1

    workload(until_gone)
    running(engine, client)
    with opened(client, "/v1/instances/web/exec", EXEC) as socket:
        assert socket.recv(timeout=10)
    assert gone.wait(10)


@pytest.mark.parametrize("path", ["/v1/instances/web/exec", "/v1/instances/web/attach"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:81"])
def test_another_sites_page_cannot_open_one(
    client: Client, engine: FakeEngine, workload: Make, path: str, origin: str
) -> None:
    """Cross-site WebSocket hijacking: browsers ask no permission before they open one, so the origin is looked at."""
    agent = workload(hello)
    running(engine, client)
    with pytest.raises(InvalidStatus) as caught, opened(client, path, EXEC, origin=origin):
        pass
    assert caught.value.response.status_code == 403
    assert not agent.seen


def test_a_foreign_name_of_the_socket_opens_none(client: Client) -> None:
    with (
        pytest.raises(InvalidStatus) as caught,
        unix_connect(client.path, uri="ws://evil.example/v1/instances/web/exec", open_timeout=10),
    ):
        pass
    assert caught.value.response.status_code == 403


def test_the_token_of_a_websocket_becomes_a_header() -> None:
    headers = [(b"host", b"a"), (b"authorization", b"Bearer other"), (b"sec-websocket-protocol", b"x")]
    found = _with_token([TERMINAL, f"{TOKEN}abc-_."], headers)
    assert found["subprotocols"] == [TERMINAL]
    assert found["headers"] == [(b"host", b"a"), (b"authorization", b"Bearer abc-_.")]
    assert _with_token([TERMINAL], headers) == {}


def test_no_websocket_elsewhere(client: Client) -> None:
    with pytest.raises(InvalidStatus) as caught, opened(client, "/v1/instances", None):
        pass
    assert caught.value.response.status_code in (403, 404)
