"""Streams between hosts: how fast they go, and what is made of an answer that is none."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from bulkhead.errors import BulkheadError, Conflict, Unavailable
from bulkhead.host import peers, pipes
from bulkhead.host.pipes import Rate


def test_what_is_not_limited_waits_for_nothing() -> None:
    rate = Rate(None)
    assert [rate.take(1 << 30) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_rate_is_shared() -> None:
    rate = Rate(1000)
    assert rate.take(500) == 0.0
    assert 0.4 < rate.take(500) <= 0.5
    assert 0.9 < rate.take(1) <= 1.0


def accepted(answer: bytes) -> None:
    async def work() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(answer)
        reader.feed_eof()
        await pipes._accepted(reader, "10.0.0.1:8444")

    asyncio.run(work())


def test_a_good_answer_is_streamed() -> None:
    accepted(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(Unavailable, match="does not answer as a daemon does"):
        accepted(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes")


def test_a_refusal_is_told_as_it_was() -> None:
    problem = {"type": "conflict", "detail": "no machine waits here", "problems": []}
    body = json.dumps(problem).encode()
    with pytest.raises(Conflict, match="no machine waits here"):
        accepted(b"HTTP/1.1 409 Conflict\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"what\r\n\r\n",
        b"HTTP/1.1 409 x\r\ncontent-length: 99999999999\r\n\r\nshort",
        b"HTTP/1.1 x y\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_an_error_and_no_more(answer: bytes) -> None:
    with pytest.raises((BulkheadError, EOFError, ValueError, IndexError)):
        accepted(answer)


@pytest.mark.parametrize(
    "line", [b"-5\r\n", b"+5\r\n", b"1_0\r\n", b"\r\n", b"5", b" 5\r\n", b"f" * 9 + b"\r\n", b"5;x\r\n"]
)
def test_a_chunk_has_a_size(line: bytes) -> None:
    """Of one below zero all that is sent would be held."""
    assert pipes._size(b"00fF\r\n") == 255
    with pytest.raises(ValueError, match="no size"):
        pipes._size(line)


def test_a_link_that_carries_nothing_does_not_hold_what_waits_for_an_answer() -> None:
    with socket.socket() as connection:
        peers.watch(connection)
        asked = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        idle, every, times = (connection.getsockopt(socket.IPPROTO_TCP, option) for option in asked)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert idle + every * times < 20
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == peers.LOST_MILLISECONDS
