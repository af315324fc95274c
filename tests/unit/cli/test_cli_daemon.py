"""The daemon that is started on first use, and what is said when it does not come up."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from bulkhead.cli import daemon
from bulkhead.cli.app import App
from bulkhead.cli.places import Places
from bulkhead.client import Client
from bulkhead.errors import Unavailable

STAND_IN = """
import socket, sys, time
with open(sys.argv[1], "a") as starts:
    starts.write("started\\n")
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen()
time.sleep(30)
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Of a daemon that is not there yet."""
    run_dir = tmp_path / "run"
    (tmp_path / "config.toml").write_text(f'run_dir = "{run_dir}"\n')
    return Places(str(run_dir / "bulkhead.sock"), str(run_dir), str(tmp_path / "config.toml"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[subprocess.Popen[bytes]]:
    """Starts a stand-in for the daemon; what was started ends with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], *, log: Path) -> subprocess.Popen[bytes]:
        assert argv[1:] == ["-m", "bulkhead", "--config", str(tmp_path / "config.toml"), "serve"]
        code = os.environ.get("STAND_IN", STAND_IN)
        with log.open("ab") as output:
            words = [sys.executable, "-c", code, str(tmp_path / "starts"), str(tmp_path / "run/bulkhead.sock")]
            processes.append(subprocess.Popen(words, stdout=output, stderr=output))
        return processes[-1]

    monkeypatch.setattr(daemon, "start_detached", start)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield processes  # type: ignore[misc]
    for process in processes:
        process.kill()
        process.wait()


def test_first_use(places: Places, started: list[subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]) -> None:
    with App(places.file) as app:
        app.client.connect()
    assert len(started) == 1
    assert capsys.readouterr().err == "starting the daemon\n"
    with App(places.file) as app:
        app.client.connect()
    assert len(started) == 1


def test_several_first_users_start_one(places: Places, started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    def use() -> None:
        with App(places.file) as app:
            app.client.connect()

    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "starts").read_text() == "started\n"


def test_daemon_that_fails(
    places: Places, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", textwrap.dedent("import sys; sys.exit('Error: the disk is full')"))
    with (
        pytest.raises(Unavailable, match="ended with 1 instead of starting: Error: the disk is full") as caught,
        App(places.file) as app,
    ):
        app.client.connect()
    assert "daemon.log" in caught.value.hint


def test_daemon_that_hangs(
    places: Places, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "import time; time.sleep(60)")
    monkeypatch.setattr(daemon, "START_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="does not answer after"), App(places.file) as app:
        app.client.connect()


def test_others_than_root_are_told(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="no daemon answers at"), App(places.file) as app:
        app.client.connect()
    assert not Path(places.run_dir).exists()


def test_a_service_manager_s_daemon_is_not_started(
    places: Places, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(daemon, "UNITS", (tmp_path / "bulkhead.service",))
    monkeypatch.setattr(daemon, "SYSTEMD", tmp_path)
    (tmp_path / "bulkhead.service").touch()
    default = places._replace(file="")
    with pytest.raises(Unavailable) as caught:
        daemon.start_daemon(Client(places.socket), default, Unavailable("no daemon answers"))
    assert caught.value.hint == "systemctl start bulkhead"
    assert not started
