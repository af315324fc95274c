"""A supervisor that is stopped answers nothing: its instance can be ended all the same, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from bulkhead.agent import ending
from bulkhead.host import processes
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, state, until, with_image

WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def stuck(daemon: Daemon, name: str, wall: str) -> tuple[int, int]:
    """Run an instance and stop its supervisor; the pids of the supervisor and of the workload."""
    daemon.cli("run", "-d", "--name", name, "--isolation", wall, *PLAN, "busybox", "sleep", "1000")
    told = daemon.json("inspect", name)[0]
    ((supervisor, _),) = processes.holding(Path(told["bundle"]), ending.EXECUTABLE)
    os.kill(supervisor, signal.SIGSTOP)
    started = processes.start_time(supervisor)
    until("it is stopped", lambda: processes.is_stopped(supervisor, started or 0))
    return supervisor, int(told["pid"])


def assert_gone(*pids: int) -> None:
    for pid in pids:
        until(f"{pid} has gone", lambda pid=pid: processes.start_time(pid) is None)  # type: ignore[misc]


@WALLS
def test_removing_by_force(bulkhead: Daemon, wall: str) -> None:
    pids = stuck(bulkhead, "stuck", wall)
    bulkhead.cli("rm", "-f", "stuck", timeout=25)
    assert state(bulkhead, "stuck") == ""
    assert_gone(*pids)


@WALLS
@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_ending(bulkhead: Daemon, wall: str, verb: str) -> None:
    name = f"stuck-{verb}-{wall}"
    pids = stuck(bulkhead, name, wall)
    bulkhead.cli(verb, name, timeout=25)
    told = bulkhead.json("inspect", name)[0]
    assert (told["state"], told["exit"]["code"]) == ("exited", 255)
    assert_gone(*pids)
    bulkhead.cli("start", name)
    bulkhead.cli("rm", "-f", name)


def test_recovery_of_a_bundle_without_a_record(bulkhead: Daemon) -> None:
    pids = stuck(bulkhead, "lost", "container")
    bundle = Path(bulkhead.json("inspect", "lost")[0]["bundle"])
    ending.quit_or_kill(bundle)
    assert_gone(*pids)
    until("the daemon has seen it", lambda: state(bulkhead, "lost") == "exited")


def test_one_that_is_continued_in_time_is_not_killed(bulkhead: Daemon) -> None:
    supervisor, workload = stuck(bulkhead, "late", "container")
    timer = threading.Timer(ending.STOPPED_SECONDS / 4, os.kill, (supervisor, signal.SIGCONT))
    timer.start()
    bulkhead.cli("kill", "late")
    timer.join()
    assert bulkhead.json("inspect", "late")[0]["exit"]["code"] == 137
    assert_gone(supervisor, workload)
