"""The guard, by the agent's own program, over directories that look like cgroups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bulkhead.agent.guard import PASSED, Guard, now

ID = "0123456789abcdef" * 2
LATER = 600 * 10**9
PATIENCE = 60.0


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """One with one tree."""
    (tmp_path / "tree").mkdir()
    made = Guard(tmp_path / "guard", [tmp_path / "tree"], silence=600.0)
    yield made
    for instance_id in made.armed() | made.fenced():
        made.disarm(instance_id)
    made.quit()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the instance's group."""
    process = subprocess.Popen(["sleep", "1000"])
    (tmp_path / "tree" / ID).mkdir(parents=True)
    (tmp_path / "tree" / ID / "cgroup.procs").write_text(f"{process.pid}\n")
    yield process
    process.kill()
    process.wait()


def pid_of(guard: Path) -> int:
    """Of the process that serves a directory; 0 where there is none."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
            if b"guard" in words and str(guard).encode() in words:
                return int(process.name)
    return 0


def wait_until_gone(guard: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while pid_of(guard):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_ends_what_is_armed_once_the_deadline_has_passed(
    guard: Guard, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    told = guard.arm(ID, now() + LATER)
    assert told.fenced == 0
    assert told.settled
    assert sleeper.poll() is None
    assert guard.armed() == {ID}
    guard.tell(PASSED, begin=PASSED)
    assert sleeper.wait(PATIENCE) == -signal.SIGKILL
    assert guard.armed() == set()
    assert guard.fenced() == {ID}
    # While something is left of it, it has not fenced; the file is none of a kernel's.
    assert not guard.tell(0, begin=PASSED).settled
    (tmp_path / "tree" / ID / "cgroup.procs").write_text("")
    deadline = time.monotonic() + PATIENCE
    while not guard.tell(0, begin=PASSED).settled:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert guard.tell(now() + LATER, begin=PASSED).fenced == PASSED


def test_it_goes_on_for_another_daemon(guard: Guard, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    until = now() + LATER
    guard.arm(ID, until)
    first = pid_of(tmp_path / "guard")
    guard.close()
    another = Guard(tmp_path / "guard", [tmp_path / "tree"], silence=600.0)
    assert another.tell(0, begin=PASSED).deadline == until
    assert pid_of(tmp_path / "guard") == first
    assert sleeper.poll() is None
    another.close()


def test_one_that_is_killed_is_begun_anew_and_knows_the_deadline(
    guard: Guard, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    guard.arm(ID, now() + LATER)
    os.kill(pid_of(tmp_path / "guard"), signal.SIGKILL)
    wait_until_gone(tmp_path / "guard")
    guard.tell(0, begin=PASSED)  # nobody knows any more until when: it is over
    assert sleeper.wait(PATIENCE) == -signal.SIGKILL


def test_it_ends_when_there_is_nothing_to_end(guard: Guard, tmp_path: Path) -> None:
    guard.arm(ID, now() + LATER)
    assert not guard.quit()
    guard.disarm(ID)
    assert guard.quit()
    wait_until_gone(tmp_path / "guard")
    assert guard.quit()


def test_a_daemon_that_is_silent_after_the_deadline_is_ended(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from bulkhead.agent.guard import Guard, now\n"
        "guard = Guard(Path(sys.argv[1]), [Path(sys.argv[2])], silence=0.2)\n"
        f"guard.arm({ID!r}, now() + 10**8)\n"
        "time.sleep(1000)"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "guard"), str(tmp_path / "tree")]
    with subprocess.Popen(argv) as daemon:
        try:
            assert daemon.wait(PATIENCE) == -signal.SIGKILL
        finally:
            daemon.kill()
    guard = Guard(tmp_path / "guard", [], silence=1.0)
    assert guard.fenced() == {ID}
    guard.disarm(ID)
    assert guard.quit()
    wait_until_gone(tmp_path / "guard")
