"""The client's HTTP, against bytes of our own choice."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead import client as wire
from bulkhead.agent import frames
from bulkhead.api import problems, relay
from bulkhead.client import Client, Response, quote, target
from bulkhead.errors import ERRORS, BulkheadError, Problem, Refused, Unavailable


def answered(*portions: bytes) -> Response:
    """The response that arrives in these portions."""
    near, far = socket.socketpair()

    def send() -> None:
        with far, suppress(OSError):
            for portion in portions:
                far.sendall(portion)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return Response(near)
    finally:
        thread.join()


@settings(deadline=None)
@given(chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=8), cut=st.integers(1, 97))
def test_chunks_however_they_arrive(chunks: list[bytes], cut: int) -> None:
    body = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    with answered(*(whole[start : start + cut] for start in range(0, len(whole), cut))) as response:
        assert response.read() == b"".join(chunks)
        assert response.ended


@settings(deadline=None)
@given(body=st.binary(max_size=500), cut=st.integers(1, 97))
def test_lengths_however_they_arrive(body: bytes, cut: int) -> None:
    whole = b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with answered(*(whole[start : start + cut] for start in range(0, len(whole), cut))) as response:
        assert (response.status, response.read()) == (201, body)


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=6), cut=st.integers(1, 9)
)
def test_lines(lines: list[bytes], cut: int) -> None:
    text = b"".join(line + b"\n" for line in lines)
    body = b"".join(
        b"%x\r\n%b\r\n" % (len(text[start : start + cut]), text[start : start + cut])
        for start in range(0, len(text), cut)
    )
    with answered(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n") as response:
        assert list(response.lines()) == lines


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    ],
)
def test_answers_that_are_cut(whole: bytes) -> None:
    with answered(whole) as response, pytest.raises(Unavailable, match="lost"):
        response.read()


def test_quoting() -> None:
    assert quote("a/b c?ü\udcff") == "a%2Fb%20c%3F%C3%BC%FF"
    assert target("/x", None) == "/x"
    assert target("/x", {"a": None, "b": True, "c": ["1", "2&"], "d": 0}) == "/x?b=true&c=1&c=2%26&d=0"


@contextmanager
def daemon(path: Path, *conversations: Callable[[socket.socket], None]) -> Iterator[Client]:
    """A daemon that treats each connection as told."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for conversation in conversations:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    conversation(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(str(path)) as client:
            yield client
        thread.join()


def say(body: bytes, *, times: int = 1) -> Callable[[socket.socket], None]:
    """Answer so many requests with a body."""

    def conversation(connection: socket.socket) -> None:
        for _ in range(times):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    return conversation


def test_a_connection_is_kept(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", say(b"[1]", times=3)) as client:
        assert [client.call("GET", "/") for _ in range(3)] == [[1]] * 3


def test_a_kept_connection_that_the_daemon_closed_is_replaced(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", say(b"1"), say(b"2")) as client:
        assert client.call("GET", "/") == 1
        assert client.call("GET", "/") == 2


def test_a_daemon_that_closes_without_an_answer(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", lambda connection: None) as client, pytest.raises(Unavailable, match="lost"):
        client.call("GET", "/")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no daemon answers at") as caught:
        Client(str(tmp_path / "none")).call("GET", "/")
    assert "bulkhead serve" in caught.value.hint


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_crosses_the_wire(kind: str) -> None:
    error = ERRORS[kind]("what is wrong", hint="what helps")
    told = wire.problem(problems.encode(error), error.http_status)
    assert type(told) is ERRORS[kind]
    assert (told.what, told.hint, told.exit_code) == ("what is wrong", "what helps", error.exit_code)
    assert told.problems == error.problems


def test_several_problems_cross_the_wire() -> None:
    error = Refused([Problem("one", "first"), Problem("two")])
    assert wire.problem(problems.encode(error)).problems == error.problems


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"x"', json.dumps({"type": "x"}).encode()])
def test_what_is_no_problem_document(body: bytes) -> None:
    assert type(wire.problem(body, 502)) is BulkheadError
    assert "502" in wire.problem(body, 502).what


def test_the_frames_are_the_protocol_s() -> None:
    for name in ("SIGNAL", "RESIZE", "DATA", "EOF", "CREDIT", "EXIT", "CLOSE"):
        assert getattr(wire, name) == frames.Type[name]
    assert (wire.REQUEST, wire.RESPONSE, wire.PROBLEM) == (relay.REQUEST, relay.RESPONSE, relay.PROBLEM)
    assert wire.WINDOW == frames.CREDIT
    assert wire.FRAMES == relay.MEDIA_TYPE
    frame = frames.Frame(frames.Type.DATA, 1, b"abc", 1)
    assert wire.frame(wire.DATA, b"abc", 1) == frames.encode(frame)
