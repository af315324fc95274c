"""The daemon's socket, lock, pid file and end."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkhead.api import server
from bulkhead.client import Client
from bulkhead.config import Config
from bulkhead.errors import Conflict, Refused, Unavailable

SERVE = """
import sys, logging
from pathlib import Path
from bulkhead.api.server import serve
from bulkhead.config import load
from tests.unit.api.fakes import FakeEngine
logging.basicConfig(level="INFO", format="%(message)s")
engines = []
def build(config):
    engines.append(FakeEngine(config.run_dir))
    return engines[0]
serve(load(Path(sys.argv[1])), build)
print(engines[0].calls, flush=True)
"""
SECONDS = 30.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Directories of the test's own."""
    return Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run", cache_dir=tmp_path / "cache")


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def reach(config: Config) -> None:
    """Connect once."""
    with Client(str(config.socket_path)) as client:
        client.connect()


def test_socket_and_directories(config: Config) -> None:
    with server.listening(config) as listener:
        assert mode(config.socket_path) == 0o660
        assert mode(config.run_dir) == 0o750
        assert mode(config.state_dir) == mode(config.cache_dir) == 0o700
        assert (config.run_dir / "daemon.pid").read_text() == f"{os.getpid()}\n"
        reach(config)
        assert not os.get_inheritable(listener.fileno())
    assert not config.socket_path.exists()
    assert not (config.run_dir / "daemon.pid").exists()


def test_group(config: Config) -> None:
    grouped = config.model_copy(update={"socket_group": "daemon"})
    with server.listening(grouped):
        assert config.socket_path.group() == config.run_dir.group() == "daemon"
    with (
        pytest.raises(Refused, match="socket_group 'nobody-has-this'"),
        server.listening(config.model_copy(update={"socket_group": "nobody-has-this"})),
    ):
        pass


def test_second_daemon_is_refused(config: Config) -> None:
    with server.listening(config):
        with pytest.raises(Conflict, match="another daemon uses"), server.listening(config):
            pass
        other = config.model_copy(update={"state_dir": config.state_dir.with_name("other")})
        with pytest.raises(Conflict, match="answers at"), server.listening(other):
            pass
        reach(config)


def test_stale_socket_is_replaced(config: Config) -> None:
    config.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(config.socket_path))
    with server.listening(config):
        reach(config)


def test_what_is_no_socket_is_left_alone(config: Config) -> None:
    config.run_dir.mkdir()
    config.socket_path.write_text("precious")
    with pytest.raises(Conflict, match="not a socket"), server.listening(config):
        pass
    assert config.socket_path.read_text() == "precious"


def test_long_paths(config: Config) -> None:
    far = config.run_dir / ("x" * 100) / ("y" * 60)
    distant = config.model_copy(update={"socket": far / "api.sock"})
    with server.listening(distant):
        assert (far / "api.sock").is_socket()
        reach(distant)
    with pytest.raises(Unavailable, match="no daemon answers"):
        reach(distant)


@contextmanager
def serving(config: Config, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon with a fake engine as a process."""
    file = config.run_dir.parent / "config.toml"
    file.write_text(
        f'run_dir = "{config.run_dir}"\nstate_dir = "{config.state_dir}"\ncache_dir = "{config.cache_dir}"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        cwd=Path(__file__).parents[3],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def connected(config: Config) -> Client:
    """A client of the daemon once it answers."""
    client, deadline = Client(str(config.socket_path)), time.monotonic() + SECONDS
    while True:
        try:
            client.connect()
            return client
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_life_of_a_daemon(number: signal.Signals, config: Config, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SECONDS)
        with serving(config, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            with connected(config) as client:
                assert client.call("GET", "/v1/ping") == {"pid": process.pid}
                assert manager.recv(100) == b"READY=1"
                with client.stream("GET", "/v1/events", query={"follow": True}) as followed:
                    process.send_signal(number)
                    assert followed.read() == b""
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
            assert manager.recv(100) == b"STOPPING=1"
    assert out == "[('recover',), ('close',)]\n"
    assert err.splitlines() == ["serving", "stopping; instances run on"]
    assert not config.socket_path.exists()


def test_daemon_that_was_killed_is_replaced(config: Config) -> None:
    with serving(config) as first:
        connected(config).close()
        first.kill()
        first.wait()
        assert config.socket_path.exists()
        with serving(config) as second, connected(config) as client:
            assert client.call("GET", "/v1/ping") == {"pid": second.pid}
