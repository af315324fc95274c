"""The daemon itself: it starts, answers, ends, starts again in the same place, and leaves nothing."""

from __future__ import annotations

import stat
from collections.abc import Callable

from tests.harness.daemon import BULKHEAD, Daemon


def test_it_answers_the_command_line_and_the_api(daemon: Daemon) -> None:
    assert daemon.json("ps", "--format", "json") == []
    assert daemon.cli("ps", "-q").stdout == ""
    assert daemon.api("GET", "/no/such/route").status == 404


def test_only_root_reaches_it(daemon: Daemon) -> None:
    socket = daemon.config.socket_path.stat()
    assert stat.S_IMODE(socket.st_mode) & 0o007 == 0
    assert socket.st_uid == 0


def test_it_ends_when_asked_and_leaves_no_socket(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    assert not daemon.config.socket_path.exists()
    daemon.start()


def test_what_it_knows_survives_a_restart_and_a_kill(daemon: Daemon) -> None:
    daemon.cli("plan", "create", "small", "--memory", "64M", "--cpus", "1", "--disk", "64M")
    daemon.restart()
    assert "small" in daemon.cli("plan", "ls").stdout
    daemon.kill9()
    daemon.start()
    assert "small" in daemon.cli("plan", "ls").stdout


def test_a_command_without_a_daemon_says_so(daemon: Daemon) -> None:
    daemon.stop()
    done = daemon.cli("ps", check=False)
    assert done.returncode == 125
    assert str(daemon.config.socket_path) in done.stderr


def test_two_daemons_share_nothing(make_daemon: Callable[..., Daemon]) -> None:
    first, second = make_daemon(), make_daemon()
    first.cli("network", "create", "blue")
    assert "blue" not in second.cli("network", "ls").stdout


def test_a_second_daemon_with_the_same_configuration_is_refused(daemon: Daemon) -> None:
    log = daemon.directory / "second.log"
    argv = [str(BULKHEAD), "serve"]
    pid = daemon.sandbox.spawn(argv, env=daemon.environment(), output=log)
    assert daemon.sandbox.wait(pid) == 125
    assert "hint" in log.read_text()
    assert daemon.json("ps", "--format", "json") == []


def test_a_bad_configuration_is_refused_with_every_problem(daemon: Daemon) -> None:
    file = daemon.directory / "bad.toml"
    file.write_text('log_files = 0\ncolour = "red"\n')
    done = daemon.cli("--config", file, "serve", check=False)
    assert done.returncode == 125
    assert "log_files" in done.stderr
    assert "colour" in done.stderr
