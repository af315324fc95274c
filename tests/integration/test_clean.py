"""Clean rooms: nothing of one run is there in the next, and nothing stays behind, however a run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon

SIZE = ("--memory", "64M", "--cpus", "0.5", "--disk", "64M")
LEVELS = ("chroot", "container")
PATIENT = "trap 'exit 9' TERM; while :; do sleep 0.05; done"


@pytest.fixture
def rooms(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon with an image."""
    if "busybox" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", busybox_tar, "busybox")
    return shared_daemon


def gone(daemon: Daemon) -> bool:
    """Whether no instance is left, running or not."""
    return daemon.json("ps", "-a", "--format", "json") == []


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.parametrize("level", LEVELS)
def test_a_room_is_pristine_each_time(rooms: Daemon, level: str) -> None:
    script = "cat /etc/mark 2>/dev/null; echo used > /etc/mark; rm /etc/os-release; exit 3"
    for _ in range(2):
        done = rooms.cli("clean", *SIZE, "--isolation", level, "busybox", "--", "sh", "-c", script, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert "started in" in done.stderr
        assert "1 file changed (5), 1 removed, thrown away" in done.stderr
        assert gone(rooms)


def test_the_report_has_the_figures(rooms: Daemon, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = ("sh", "-c", "head -c 100000 /dev/zero > /root/zeros; ln /root/zeros /root/again; cat")
    done = rooms.cli("clean", "-q", "-i", *SIZE, "--report", report, "busybox", *command, stdin="said")
    assert (done.stdout, done.stderr) == ("said", "")
    found = json.loads(report.read_text())
    assert found["changes"] == {"files": 2, "removed": 0, "size": 100_000}
    assert (found["code"], found["isolation"]) == (0, "container")
    assert found["start_seconds"] > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_room_goes_with_the_client(rooms: Daemon, number: int) -> None:
    client = subprocess.Popen(
        [str(BULKHEAD), "clean", *SIZE, "busybox", "sh", "-c", PATIENT],
        env=rooms.environment(),
        stderr=subprocess.DEVNULL,
    )
    until(lambda: [item["state"] for item in rooms.json("ps", "-a", "--format", "json")] == ["running"])
    os.kill(client.pid, number)
    client.wait(60)
    until(lambda: gone(rooms))


def test_a_room_does_not_outlive_the_daemon(rooms: Daemon) -> None:
    def run() -> subprocess.Popen[bytes]:
        argv = [str(BULKHEAD), "clean", *SIZE, "busybox", "sleep", "1000"]
        started = subprocess.Popen(argv, env=rooms.environment(), stderr=subprocess.PIPE)
        until(lambda: [item["state"] for item in rooms.json("ps", "-a", "--format", "json")] == ["running"])
        return started

    client = run()
    rooms.kill9()
    assert client.wait(60) == 125
    assert b"connection to the daemon was lost" in client.communicate()[1]
    rooms.start()
    assert gone(rooms)
    client = run()
    rooms.restart()
    assert client.wait(60) != 0
    client.communicate()
    assert gone(rooms)


def test_what_makes_no_sense_for_a_room_is_refused_at_once(rooms: Daemon, tmp_path: Path) -> None:
    done = rooms.cli("clean", "--restart", "always", "--rm", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "--restart always" in done.stderr
    assert "--rm says nothing of a room" in done.stderr
    done = rooms.cli("clean", "--report", tmp_path / "no" / "report", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "--report" in done.stderr
    done = rooms.cli("clean", "busybox", "/no/such/program", check=False)
    assert done.returncode == 127
    assert gone(rooms)


def test_changes_of_a_running_instance_are_not_counted(rooms: Daemon) -> None:
    rooms.cli("run", "-d", "--name", "busy", *SIZE, "busybox", "sleep", "1000")
    answer = rooms.api("GET", "/v1/instances/busy/changes")
    assert answer.status == 409
    rooms.cli("stop", "-t", "0", "busy")
    assert rooms.api("GET", "/v1/instances/busy/changes").body == {"files": 0, "removed": 0, "size": 0}


MAKE = (
    "mkdir /srv; echo kept > /srv/kept; ln -s kept /srv/link; rm /etc/os-release; rm -r /home; mkdir /home;"
    " chown 1000:1000 /srv/kept; chmod 600 /srv/kept"
)


@pytest.mark.parametrize("level", LEVELS)
def test_what_was_changed_is_kept_as_a_layer(rooms: Daemon, tmp_path: Path, level: str) -> None:
    layer = tmp_path / "layer.tar"
    rooms.cli("clean", *SIZE, "--isolation", level, "--keep-changes", layer, "busybox", "sh", "-c", MAKE)
    check_layer(layer)
    assert list(tmp_path.iterdir()) == [layer]


def check_layer(path: Path, *, emptied: str = "home/.wh..wh..opq") -> None:
    """Whether a layer holds what MAKE does, and nothing else. `emptied`: how it says that a directory was."""
    with tarfile.open(path) as archive:
        found = {member.name: member for member in archive}
        assert {*found} == {"etc", "etc/.wh.os-release", "home", emptied, "srv", "srv/kept", "srv/link"}
        kept = archive.extractfile("srv/kept")
        assert kept
        assert kept.read() == b"kept\n"
    assert (found["srv/kept"].uid, found["srv/kept"].mode) == (1000, 0o600)
    assert found["srv/link"].linkname == "kept"


def test_a_layer_is_packed_as_its_name_says(rooms: Daemon, tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar.gz"
    rooms.cli("clean", *SIZE, "--keep-changes", layer, "busybox", "sh", "-c", MAKE)
    assert layer.read_bytes()[:2] == b"\x1f\x8b"
    check_layer(layer)


def test_what_cannot_be_in_a_layer_is_told(rooms: Daemon, tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    command = ("sh", "-c", "touch /root/.wh.passwd")
    done = rooms.cli("clean", *SIZE, "--keep-changes", layer, "busybox", *command, check=False)
    assert done.returncode == 125
    assert "/root/.wh.passwd cannot be in a layer" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert gone(rooms)
