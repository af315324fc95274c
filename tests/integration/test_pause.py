"""Pausing: nothing of an instance runs until it is told to go on, whoever looks after it meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from bulkhead.host import cgroups
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, state, until, with_image

WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])
COUNT = "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def counting(daemon: Daemon, name: str, *options: str) -> None:
    """Run what counts, and wait until it does."""
    daemon.cli("run", "-d", "--name", name, *PLAN, *options, "busybox", "sh", "-c", COUNT)
    until("it counts", lambda: count(daemon, name) > 1)


def count(daemon: Daemon, name: str) -> int:
    """How far it has counted."""
    return len(daemon.cli("logs", name).stdout.splitlines())


def refused(daemon: Daemon, *words: str) -> str:
    """What a command that is refused says."""
    done = daemon.cli(*words, check=False)
    assert done.returncode == 125, done
    return done.stderr


@WALLS
def test_pause_and_unpause(bulkhead: Daemon, wall: str) -> None:
    name = f"still-{wall}"
    counting(bulkhead, name, "--isolation", wall)
    assert bulkhead.cli("pause", name).stdout == f"{name}\n"
    before = count(bulkhead, name)
    assert (state(bulkhead, name), bulkhead.json("inspect", name)[0]["state"]) == ("paused", "paused")
    assert "(paused)" in bulkhead.cli("ps").stdout
    assert bulkhead.cli("ps", "-q", "-f", "state=paused").stdout
    for words in (["exec", name, "true"], ["attach", name], ["cp", f"{name}:/etc/passwd", "-"], ["pause", name]):
        said = refused(bulkhead, *words)
        assert "is paused" in said and "hint: " in said
    assert bulkhead.json("stats", "--no-stream", "--format", "json", name)[0]["pids"] > 0
    bulkhead.cli("update", "--pids", "77", name)
    time.sleep(0.2)
    assert count(bulkhead, name) == before
    bulkhead.cli("unpause", name)
    until("it goes on", lambda: count(bulkhead, name) > before)
    assert "not paused" in refused(bulkhead, "unpause", name)
    assert bulkhead.cli("exec", name, "echo", "well").stdout == "well\n"
    bulkhead.cli("stop", name)
    lines = map(json.loads, bulkhead.cli("events", "--format", "json").stdout.splitlines())
    actions = [event["action"] for event in lines if event["name"] == name]
    assert actions == ["create", "start", "pause", "update", "unpause", "exit"]


@WALLS
@pytest.mark.parametrize(
    ("words", "code"), [(["stop"], 3), (["stop", "-t", "0"], None), (["kill"], 137), (["kill", "-s", "TERM"], 3)]
)
def test_what_is_paused_is_ended_in_order(bulkhead: Daemon, wall: str, words: list[str], code: int | None) -> None:
    counting(bulkhead, "still", "--isolation", wall)
    bulkhead.cli("pause", "still")
    bulkhead.cli(*words, "still")
    until("it has ended", lambda: state(bulkhead, "still") == "exited")
    if code is not None:
        assert bulkhead.json("inspect", "still")[0]["exit"]["code"] == code
    bulkhead.cli("start", "still")
    until("it counts again", lambda: count(bulkhead, "still") > 1)


@WALLS
def test_what_is_paused_is_removed_by_force_alone(bulkhead: Daemon, wall: str) -> None:
    counting(bulkhead, "still", "--isolation", wall)
    bulkhead.cli("pause", "still")
    assert "still is paused" in refused(bulkhead, "rm", "still")
    bulkhead.cli("rm", "-f", "still")
    assert state(bulkhead, "still") == ""


@WALLS
@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_new_daemon_finds_it_paused(bulkhead: Daemon, wall: str, end: str) -> None:
    name = f"kept-{wall}-{end}"
    counting(bulkhead, name, "--isolation", wall, "--health-cmd", "true", "--health-interval", "50ms")
    bulkhead.cli("pause", name)
    before = count(bulkhead, name)
    getattr(bulkhead, end)()
    bulkhead.start()
    assert (state(bulkhead, name), count(bulkhead, name)) == ("paused", before)
    bulkhead.cli("unpause", name)
    until("it goes on", lambda: count(bulkhead, name) > before)
    until("it is healthy", lambda: bulkhead.json("inspect", name)[0]["health"] == "healthy")
    bulkhead.cli("rm", "-f", name)


def test_one_whose_supervisor_is_killed(bulkhead: Daemon) -> None:
    """Frozen processes do not die on v1: recovery thaws them, and nothing of it stays."""
    counting(bulkhead, "orphan")
    told = bulkhead.json("inspect", "orphan")[0]
    handle = json.loads((Path(told["bundle"]) / "handle.json").read_text())
    bulkhead.cli("pause", "orphan")
    os.kill(handle["supervisor_pid"], signal.SIGKILL)
    until("it has ended", lambda: state(bulkhead, "orphan") == "exited")
    layout, cgroup = cgroups.detect(), bulkhead.config.cgroup
    until("nothing of it is left", lambda: cgroups.list_instances(layout, cgroup) == [])
