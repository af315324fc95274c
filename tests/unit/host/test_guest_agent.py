"""The guest agent's word: taken where it is in order, and never trusted."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bulkhead.errors import AgentError, CommandNotFound, Unavailable
from bulkhead.host import guest_agent
from bulkhead.host.guest_agent import GuestAgent

Answer = Callable[[str, dict[str, Any]], object]
"""What a guest says to a command: bytes as they are, anything else as the value of `return`."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "SYNC_SECONDS", 0.3)
    monkeypatch.setattr(guest_agent, "ANSWER_SECONDS", 0.3)


@contextmanager
def guest(answer: Answer, *, before: bytes = b"") -> Iterator[socket.socket]:
    """A guest's end of the port, which says `before` to begin with."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, theirs.makefile("rb") as lines:
            theirs.sendall(before)
            for line in lines:
                asked = json.loads(line.lstrip(b"\xff"))
                said = answer(asked["execute"], asked["arguments"])
                reply = said if isinstance(said, bytes) else json.dumps({"return": said}).encode() + b"\n"
                try:
                    theirs.sendall(reply)
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join()


def sync(asked: dict[str, Any]) -> bytes:
    return b"\xff" + json.dumps({"return": asked["id"]}).encode() + b"\n"


def telling(**answers: object) -> Answer:
    """In sync, and with these answers; "_" stands for "-" in commands."""

    def answer(command: str, asked: dict[str, Any]) -> object:
        return sync(asked) if command == "guest-sync-delimited" else answers[command.replace("-", "_")]

    return answer


def run(connection: socket.socket, *argv: str, alive: Callable[[], bool] = lambda: True) -> guest_agent.Finished:
    with GuestAgent(connection) as agent:
        return agent.run(argv or ("true",), alive=alive)


def test_a_command_with_what_it_said() -> None:
    ended = {"exited": True, "exitcode": 3, "out-data": base64.b64encode(b"out").decode(), "out-truncated": True}
    stale = b'{"return": {"pid": 1}}\n{"half'
    with guest(telling(guest_exec={"pid": 7}, guest_exec_status=ended), before=stale) as connection:
        assert run(connection) == guest_agent.Finished(3, b"out", b"", truncated=True)
    killed = {"exited": True, "signal": 9}
    with guest(telling(guest_exec={"pid": 7}, guest_exec_status=killed)) as connection:
        assert run(connection).code == 137


def test_it_is_asked_until_the_command_has_ended() -> None:
    left = [3]

    def answer(command: str, asked: dict[str, Any]) -> object:
        if command == "guest-exec-status":
            left[0] -= 1
            return {"exited": left[0] == 0, "exitcode": 0}
        return telling(guest_exec={"pid": 7})(command, asked)

    with guest(answer) as connection:
        assert run(connection).code == 0


def test_nobody_waits_any_more() -> None:
    with (
        guest(telling(guest_exec={"pid": 7}, guest_exec_status={"exited": False})) as connection,
        pytest.raises(AgentError, match="nobody waits"),
    ):
        run(connection, alive=lambda: False)


def test_no_agent_no_program() -> None:
    with (
        guest(lambda command, asked: b"") as connection,
        pytest.raises(Unavailable, match="no guest agent answers") as no,
    ):
        run(connection)
    assert "qemu-guest-agent" in no.value.hint
    missing = b'{"error": {"class": "GenericError", "desc": "Failed to execute: No such file or directory"}}\n'
    with guest(telling(guest_exec=missing)) as connection, pytest.raises(CommandNotFound, match="/no/such"):
        run(connection, "/no/such")
    refused = b'{"error": {"class": "CommandNotFound", "desc": "disabled"}}\n'
    with guest(telling(guest_exec=refused)) as connection, pytest.raises(AgentError, match="disabled"):
        run(connection)


@pytest.mark.parametrize(
    "said",
    [
        *(b"nonsense\n", b"[]\n", b'{"return": 1}\n', b'{"return": {}}\n', b"[" * 5000 + b"\n", b"\xff\n"),
        *({"pid": "7"}, {"pid": -1}, {"pid": True}, {"pid": 1 << 70}),
    ],
)
def test_lies_about_a_start(said: object) -> None:
    with guest(telling(guest_exec=said)) as connection, pytest.raises(AgentError):
        run(connection)


@pytest.mark.parametrize(
    "said",
    [
        {"exited": True},
        {"exited": True, "exitcode": "0"},
        {"exited": True, "signal": 200},
        {"exited": True, "exitcode": 0, "out-data": "not base64!"},
        {"exited": True, "exitcode": 0, "out-data": 5},
    ],
)
def test_lies_about_an_end(said: object) -> None:
    with guest(telling(guest_exec={"pid": 7}, guest_exec_status=said)) as connection, pytest.raises(AgentError):
        run(connection)


def test_floods_and_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "MAX_ANSWER", 1 << 16)
    with guest(telling(guest_exec=b"x" * (1 << 20))) as connection, pytest.raises(AgentError, match="more than"):
        run(connection)
    monkeypatch.setattr(guest_agent, "_STALE", 1 << 16)
    with guest(lambda *_: b"x" * (1 << 20)) as connection, pytest.raises(AgentError, match="more than"):
        run(connection)
    with guest(lambda *_: b'\xff{"return": 1}\n') as connection, pytest.raises(AgentError, match="not asked"):
        run(connection)
