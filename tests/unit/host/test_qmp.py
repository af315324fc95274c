"""The monitor's client against a QEMU that answers, refuses, is silent, floods, or is not there."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkhead.errors import Unavailable
from bulkhead.host.qmp import Qmp, QmpError, connect_below

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}
Answers = Callable[[dict[str, object]], list[dict[str, object]]]


def serve(directory: Path, answers: Answers) -> threading.Thread:
    """A QEMU for one connection, at `qmp.sock`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "qmp.sock"))
    listener.listen(1)

    def say(connection: socket.socket, *items: object) -> None:
        connection.sendall(b"".join(json.dumps(item).encode() + b"\r\n" for item in items))

    def work() -> None:
        with listener, listener.accept()[0] as connection:
            say(connection, GREETING)
            # The client's commands end without a newline; each comes alone, since it waits for the answer.
            while data := connection.recv(1 << 16):
                request = json.loads(data)
                said = [{"return": {}}] if request["execute"] == "qmp_capabilities" else answers(request)
                known = {"id": request["id"]} if "id" in request else {}
                say(connection, *(item if "event" in item else {**item, **known} for item in said))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_an_answer(tmp_path: Path) -> None:
    thread = serve(tmp_path, lambda request: [{"return": {"asked": request["execute"]}}])
    with Qmp.open(tmp_path, "qmp.sock") as monitor:
        assert monitor.execute("query-status") == {"asked": "query-status"}
    thread.join(10)


def test_a_refusal_is_told_in_its_words(tmp_path: Path) -> None:
    serve(tmp_path, lambda _: [{"error": {"class": "GenericError", "desc": "no such thing\x1b[0m"}}])
    with Qmp.open(tmp_path, "qmp.sock") as monitor, pytest.raises(QmpError, match="no such thing") as caught:
        monitor.execute("cont")
    assert "\x1b" not in caught.value.what


def test_events_do_not_pile_up(tmp_path: Path) -> None:
    event = {"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}
    serve(tmp_path, lambda _: [*[event] * 10_000, {"return": {}}])
    with Qmp.open(tmp_path, "qmp.sock") as monitor:
        assert monitor.execute("cont") == {}
        assert monitor._client.events.empty()


def test_silence_ends(tmp_path: Path) -> None:
    serve(tmp_path, lambda _: [])
    with Qmp.open(tmp_path, "qmp.sock", timeout=0.3) as monitor, pytest.raises(Unavailable, match="did not answer"):
        monitor.execute("cont")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"qmp\.sock"):
        Qmp.open(tmp_path, "qmp.sock", timeout=0.0)


@pytest.mark.parametrize("what", ["link", "file", "directory link"])
def test_a_link_of_a_stranger_leads_nowhere(tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(elsewhere / "qmp.sock"))
        listener.listen(1)
        directory = tmp_path / "vm"
        if what == "directory link":
            directory.symlink_to(elsewhere)
        else:
            directory.mkdir()
            if what == "link":
                (directory / "qmp.sock").symlink_to(elsewhere / "qmp.sock")
            else:
                (directory / "qmp.sock").touch()
        with pytest.raises(Unavailable):
            connect_below(directory, "qmp.sock")
