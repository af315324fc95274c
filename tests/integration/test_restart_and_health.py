"""Restart policies and health checks, also over restarts and kills of the daemon."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, state, until, with_image

WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])
LOOP = "trap 'exit 5' TERM; echo begun; while :; do sleep 0.05; done"
CHECK = ("--health-cmd", "test -e /tmp/well", "--health-interval", "0.1", "--health-retries", "2")


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def run(daemon: Daemon, name: str, script: str, *options: str) -> None:
    """Run a shell script detached."""
    daemon.cli("run", "-d", "--name", name, *PLAN, *options, "busybox", "sh", "-c", script)


def begun(daemon: Daemon, name: str) -> int:
    """How often the script began."""
    return daemon.cli("logs", name).stdout.count("begun")


def record(daemon: Daemon, name: str) -> dict[str, object]:
    """What inspect tells."""
    told: dict[str, object] = daemon.json("inspect", name)[0]
    return told


def actions(daemon: Daemon, name: str) -> list[str]:
    """What the events tell."""
    lines = map(json.loads, daemon.cli("events", "--format", "json").stdout.splitlines())
    return [event["action"] for event in lines if event["name"] == name]


# --- restart policies


@WALLS
def test_on_failure_tries_so_often_and_no_more(bulkhead: Daemon, wall: str) -> None:
    name = f"failing-{wall}"
    run(bulkhead, name, "echo begun; exit 3", "--restart", "on-failure:2", "--isolation", wall)
    until("three ends", lambda: actions(bulkhead, name).count("exit") == 3)
    bulkhead.restart()
    told = record(bulkhead, name)
    assert (told["state"], told["restarts"], begun(bulkhead, name)) == ("exited", 2, 3)
    assert actions(bulkhead, name) == ["create", *["start", "exit"] * 3]


def test_on_failure_is_content_with_0(bulkhead: Daemon) -> None:
    run(bulkhead, "content", "echo begun; exit 0", "--restart", "on-failure")
    assert bulkhead.cli("wait", "content").stdout == "0\n"
    bulkhead.restart()
    assert (state(bulkhead, "content"), begun(bulkhead, "content")) == ("exited", 1)


@WALLS
def test_always_restarts_until_it_is_stopped(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, "again", "echo begun; sleep 0.1", "--restart", "always", "--isolation", wall)
    until("it began three times", lambda: begun(bulkhead, "again") >= 3)
    # Either it runs now, or it waits for its next start: both are ended.
    bulkhead.cli("stop", "-t", "0", "again")
    times = begun(bulkhead, "again")
    bulkhead.restart()
    assert (state(bulkhead, "again"), begun(bulkhead, "again")) == ("exited", times)


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_what_was_ended_by_hand_stays_ended(bulkhead: Daemon, verb: str) -> None:
    name = f"ended-{verb}"
    run(bulkhead, name, LOOP, "--restart", "always")
    bulkhead.cli(verb, name)
    bulkhead.restart()
    assert (state(bulkhead, name), actions(bulkhead, name)[-1]) == ("exited", "exit")
    bulkhead.cli("start", name)
    os.kill(int(str(record(bulkhead, name)["pid"])), signal.SIGKILL)
    until("the policy holds again", lambda: actions(bulkhead, name).count("start") == 3)
    bulkhead.cli("rm", "-f", name)


@WALLS
@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_always_holds_for_what_ended_without_a_daemon(bulkhead: Daemon, wall: str, end: str) -> None:
    name = f"alone-{wall}-{end}"
    run(bulkhead, name, LOOP, "--restart", "always", "--isolation", wall)
    told = record(bulkhead, name)
    getattr(bulkhead, end)()
    os.kill(int(str(told["pid"])), signal.SIGKILL)
    until("it has ended", (Path(str(told["bundle"])) / "exit.json").exists)
    bulkhead.start()
    until("it runs again", lambda: state(bulkhead, name) == "running")
    assert bulkhead.cli("exec", name, "echo", "here").stdout == "here\n"
    assert actions(bulkhead, name) == ["create", "start", "exit", "start"]


def test_one_that_waits_for_its_next_start_can_be_removed(bulkhead: Daemon) -> None:
    run(bulkhead, "waiting", "echo begun; exit 3", "--restart", "always")
    until("it waits", lambda: state(bulkhead, "waiting") == "exited" and begun(bulkhead, "waiting") > 2)
    bulkhead.cli("rm", "-f", "waiting")
    assert state(bulkhead, "waiting") == ""
    assert "Traceback" not in bulkhead.log()


def test_a_policy_can_be_changed(bulkhead: Daemon) -> None:
    run(bulkhead, "changed", LOOP)
    bulkhead.cli("update", "--restart", "always", "changed")
    os.kill(int(str(record(bulkhead, "changed")["pid"])), signal.SIGKILL)
    until("it runs again", lambda: actions(bulkhead, "changed").count("start") == 2)


@WALLS
def test_an_end_told_late_concerns_its_own_run_alone(bulkhead: Daemon, wall: str) -> None:
    """Whoever watches for ends hears of each when the next run has begun, or has not."""
    name = f"brisk-{wall}"
    run(bulkhead, name, LOOP, "--isolation", wall)
    for _ in range(20):
        assert bulkhead.api("POST", f"/v1/instances/{name}/restart", {"timeout": 0}).status == 200
    bulkhead.cli("stop", name)
    assert actions(bulkhead, name) == ["create", *["start", "exit"] * 21]


@pytest.mark.parametrize("wall", ["chroot", "container"])
def test_a_start_that_fails_is_tried_again(bulkhead: Daemon, wall: str, tmp_path: Path) -> None:
    shared, name = tmp_path / "shared", f"patient-{wall}"
    shared.mkdir()
    volume = ("-v", f"{shared}:/data", "--isolation", wall)
    run(bulkhead, name, "echo begun; while [ -e /data/go ]; do sleep 0.05; done", "--restart", "always", *volume)
    until("it has begun", lambda: begun(bulkhead, name))
    shared.rmdir()
    until("starts fail", lambda: int(str(record(bulkhead, name)["restarts"])) >= 3)
    until("and say why", lambda: "shared" in str(record(bulkhead, name)["exit"]))
    shared.mkdir()
    (shared / "go").touch()
    until("it runs again", lambda: state(bulkhead, name) == "running")
    (shared / "go").unlink()
    bulkhead.cli("rm", "-f", name)


def test_starts_that_fail_are_counted(bulkhead: Daemon, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "go").touch()
    script = "echo begun; while [ -e /data/go ]; do sleep 0.05; done; exit 3"
    run(bulkhead, "counted", script, "--restart", "on-failure:3", "-v", f"{shared}:/data")
    (shared / "go").unlink()
    shared.rmdir()
    until("all are used up", lambda: record(bulkhead, "counted")["restarts"] == 3)
    bulkhead.restart()
    told = record(bulkhead, "counted")
    assert (told["state"], told["restarts"], begun(bulkhead, "counted")) == ("exited", 3, 1)
    assert "shared" in str(told["exit"])


# --- health


@WALLS
def test_health_comes_and_goes(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, "patient", LOOP, *CHECK, "--isolation", wall)
    assert record(bulkhead, "patient")["health"] in ("starting", "unhealthy")
    until("unhealthy", lambda: record(bulkhead, "patient")["health"] == "unhealthy")
    bulkhead.cli("exec", "patient", "touch", "/tmp/well")
    until("healthy", lambda: record(bulkhead, "patient")["health"] == "healthy")
    assert "(healthy)" in bulkhead.cli("ps").stdout
    assert bulkhead.cli("ps", "-q", "-f", "health=healthy").stdout
    assert "health" in actions(bulkhead, "patient")
    bulkhead.cli("stop", "patient")
    assert record(bulkhead, "patient")["health"] == ""


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_new_daemon_goes_on_checking(bulkhead: Daemon, end: str) -> None:
    run(bulkhead, "patient", LOOP, *CHECK)
    getattr(bulkhead, end)()
    bulkhead.start()
    bulkhead.cli("exec", "patient", "touch", "/tmp/well")
    until("healthy", lambda: record(bulkhead, "patient")["health"] == "healthy")


def test_a_check_that_takes_too_long_has_failed(bulkhead: Daemon) -> None:
    check = ("--health-cmd", "sleep 1000", "--health-interval", "0.1", "--health-timeout", "0.1")
    run(bulkhead, "slow", LOOP, *check, "--health-retries", "1")
    until("unhealthy", lambda: record(bulkhead, "slow")["health"] == "unhealthy")
    # What ran too long is ended, or an instance fills with its checks.
    until(
        "few of them are there",
        lambda: (
            bulkhead.cli("exec", "slow", "sh", "-c", "ps | grep -c '[s]leep 1000'", check=False).stdout
            in ("0\n", "1\n")
        ),
    )


@WALLS
def test_an_unhealthy_one_is_started_again(bulkhead: Daemon, wall: str) -> None:
    name = f"cured-{wall}"
    # Sick at first, well after it was started again.
    script = f"if [ -e /second ]; then touch /tmp/well; fi; touch /second; {LOOP}"
    run(bulkhead, name, script, *CHECK, "--on-unhealthy", "restart", "--isolation", wall)
    until("healthy", lambda: record(bulkhead, name)["health"] == "healthy")
    told = record(bulkhead, name)
    assert (told["state"], told["restarts"], begun(bulkhead, name)) == ("running", 1, 2)
    assert actions(bulkhead, name) == ["create", "start", "health", "exit", "start", "health"]


def test_health_options_need_a_command(bulkhead: Daemon) -> None:
    done = bulkhead.cli("run", "--health-interval", "1", "busybox", check=False)
    assert done.returncode == 125
    assert "--health-cmd" in done.stderr
