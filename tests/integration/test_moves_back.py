"""Moves that are refused, that fail behind the new wall, and that a crash interrupts: nothing is lost."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from bulkhead.engine.faults import MOVES, WAYS_BACK
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import until, with_image
from tests.integration.test_moves import SIZE, bulkhead, leftovers, level, move, not_moved

__all__ = ["bulkhead"]
COUNT = """
[ -e /dev/vda ] && echo vm >> /walls || echo host >> /walls
i=$(tail -n 1 /count 2> /dev/null || echo 0)
while :; do i=$((i + 1)); echo $i >> /count; sync; sleep 0.05; done
"""
"""Notes where it runs, and counts on from where it was."""
CALM = {"BULKHEAD_CRASH_AT": ""}
DISK_POINTS = ("move.copying", "move.copied", "move.exchanged")


def counted(daemon: Daemon, name: str) -> int:
    """How far it has counted, without a number left out; 0 where it has not begun."""
    said = daemon.cli("exec", name, "sh", "-c", "[ ! -e /count ] || cat /count").stdout
    numbers = list(map(int, said.split()))
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)


def walls(daemon: Daemon, name: str) -> list[str]:
    """Where it has been started."""
    return daemon.cli("exec", name, "cat", "/walls").stdout.split()


def test_refused_before_anything_changes(bulkhead: Daemon) -> None:
    bulkhead.cli("volume", "create", "--size", "64M", "kept")
    bulkhead.cli("run", "-d", "--name", "box", "-v", "kept:/kept", "-p", "8091:80", *SIZE, "busybox", "sleep", "100000")
    bulkhead.cli("run", "-d", "--rm", "--name", "brief", *SIZE, "busybox", "sleep", "100000")
    pid = bulkhead.json("inspect", "box")[0]["pid"]
    assert "box is a container already" in not_moved(bulkhead, "box", "container")
    assert "no such wall" in not_moved(bulkhead, "box", "unikernel")
    refused = not_moved(bulkhead, "box", "vm", "--memory", "16M", "--disk", "32M")
    assert "volume kept of box is written to" in refused
    assert "memory 16M is too little" in refused
    assert "a disk cannot shrink" in refused
    assert "publishes no ports" in not_moved(bulkhead, "box", "chroot", "--network", "host")
    assert "--rm" in not_moved(bulkhead, "brief", "chroot", "--network", "host")
    bulkhead.cli("pause", "box")
    assert "bulkhead unpause box" in not_moved(bulkhead, "box", "chroot")
    bulkhead.cli("unpause", "box")
    assert bulkhead.json("inspect", "box")[0]["pid"] == pid
    assert leftovers(bulkhead) == []
    bulkhead.cli("stop", "-t", "0", "brief")
    bulkhead.cli("rm", "-f", "box")
    bulkhead.cli("volume", "rm", "kept")


def test_what_ends_behind_the_new_wall_is_back_behind_the_old_one(bulkhead: Daemon) -> None:
    command = "[ $$ != 1 ] || exit 3; sleep 100000"
    bulkhead.cli("run", "-d", "--name", "odd", "--isolation", "chroot", *SIZE, "busybox", "sh", "-c", command)
    told = not_moved(bulkhead, "odd", "container")
    assert "it ended with code 3 behind the container" in told
    assert "it runs as a chroot as before" in told
    assert (level(bulkhead, "odd"), bulkhead.json("inspect", "odd")[0]["state"]) == ("chroot", "running")
    bulkhead.cli("exec", "odd", "true")
    assert leftovers(bulkhead) == []
    bulkhead.cli("rm", "-f", "odd")


def test_back_from_a_guest_with_what_was_written_there(bulkhead: Daemon) -> None:
    health = ("--health-cmd", "test ! -e /dev/vda", "--health-interval", "1")
    bulkhead.cli("run", "-d", "--name", "counter", *health, *SIZE, "busybox", "sh", "-c", COUNT)
    address = bulkhead.json("inspect", "counter")[0]["address"]
    told = not_moved(bulkhead, "counter", "vm", "--within", "3")
    assert "its health check did not pass within 3 s behind the vm" in told
    assert "it runs as a container as before" in told
    until("it is there", lambda: len(walls(bulkhead, "counter")) == 3)
    assert walls(bulkhead, "counter") == ["host", "vm", "host"]
    assert counted(bulkhead, "counter") > 3
    assert bulkhead.json("inspect", "counter")[0]["address"] == address
    assert leftovers(bulkhead) == []
    bulkhead.cli("rm", "-f", "counter")


@contextmanager
def loops_watched() -> Iterator[set[str]]:
    """Files that are on a loop device meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            for file in Path("/sys/block").glob("loop*/loop/backing_file"):
                with suppress(OSError):
                    seen.add(file.read_text().strip().removesuffix(" (deleted)"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_the_host_does_not_touch_a_disk_that_a_guest_has_written(bulkhead: Daemon) -> None:
    """One whose file system has been tampered with stays where it is; a good one is read by a guest alone."""
    bulkhead.cli(
        "run", "-d", "--name", "guest", "--isolation", "vm", "--network", "none", *SIZE, "busybox", "sleep", "9999"
    )
    bulkhead.cli("exec", "guest", "sh", "-c", "echo mine > /mine; dd if=/dev/zero of=/big bs=1M count=30")
    bulkhead.cli("stop", "-t", "0", "guest")
    bulkhead.cli("snapshot", "create", "guest/vm")
    bundle = bulkhead.config.instances_dir / bulkhead.json("inspect", "guest")[0]["id"]
    disk = bundle / "disk.img"
    full = not_moved(bulkhead, "guest", "container", "--disk", "16M")
    assert "ENOSPC" in full, "its files do not fit"
    assert level(bulkhead, "guest") == "vm"
    good = disk.read_bytes()
    with disk.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)  # the group descriptors lead anywhere
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    with loops_watched() as seen:
        assert "guest was not moved, it is a vm as before" in not_moved(bulkhead, "guest", "container")
    assert str(disk) not in seen
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == digest
    assert leftovers(bulkhead) == []
    disk.write_bytes(good)
    with loops_watched() as seen:
        move(bulkhead, "guest", "container")
        # Now it is another file of that name, which the host has made.
    assert not {str(bundle / "old-disk.img")} & seen
    bulkhead.cli("start", "guest")
    assert bulkhead.cli("exec", "guest", "cat", "/mine").stdout == "mine\n"
    back = bulkhead.cli("snapshot", "restore", "-f", "guest/vm", check=False)
    assert "was written by a guest" in back.stderr
    assert leftovers(bulkhead) == []
    bulkhead.cli("rm", "-f", "guest")


# --- crashes


def crash(daemon: Daemon, name: str, isolation: str, **more: object) -> None:
    """Move it with a daemon that dies of that, then have another."""
    with suppress(ConnectionError, HTTPException):
        daemon.api("POST", f"/v1/instances/{name}/move", {"isolation": isolation, **more})
    assert daemon.wait() == -signal.SIGKILL
    daemon.start(env=CALM)
    assert "could not repair" not in daemon.log()
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("point", [point for point in MOVES if point not in DISK_POINTS])
def test_a_daemon_killed_there_leaves_it_behind_one_wall_or_the_other(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=0, network_pool=0)
    with_image(daemon, busybox_tar, "busybox")
    daemon.cli("run", "-d", "--name", "counter", "--isolation", "chroot", *SIZE, "busybox", "sh", "-c", COUNT)
    crash(daemon, "counter", "container")
    arrived = MOVES.index(point) >= MOVES.index("move.started")
    assert level(daemon, "counter") == ("container" if arrived else "chroot")
    assert daemon.json("inspect", "counter")[0]["state"] == "running"
    counted(daemon, "counter")
    assert leftovers(daemon) == []
    daemon.cli("rm", "-f", "counter")


@pytest.mark.parametrize("point", WAYS_BACK)
def test_a_daemon_killed_on_the_way_back(make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str) -> None:
    """Behind the new wall it ends at once: a second attempt is not made, the way back is gone to its end."""
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=0, network_pool=0)
    with_image(daemon, busybox_tar, "busybox")
    command = f"[ $$ != 1 ] || exit 3; {COUNT}"
    daemon.cli("run", "-d", "--name", "counter", "--isolation", "chroot", *SIZE, "busybox", "sh", "-c", command)
    crash(daemon, "counter", "container")
    assert level(daemon, "counter") == "chroot"
    assert daemon.json("inspect", "counter")[0]["state"] == "running"
    counted(daemon, "counter")
    assert leftovers(daemon) == []
    daemon.cli("rm", "-f", "counter")


@pytest.mark.parametrize(
    ("point", "ends"),
    [("move.copied", "vm"), ("move.exchanged", "vm"), ("move.entering", "vm"), ("move.started", "container")],
)
def test_a_daemon_killed_on_the_way_down(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str, ends: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=0, network_pool=0)
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(daemon, busybox_tar, "busybox")
    guest = ("--isolation", "vm", "--no-template", "--network", "none")
    daemon.cli("run", "-d", "--name", "counter", *guest, *SIZE, "busybox", "sh", "-c", COUNT)
    until("it counts", lambda: counted(daemon, "counter") > 3)
    crash(daemon, "counter", "container")
    assert level(daemon, "counter") == ends
    assert daemon.json("inspect", "counter")[0]["state"] == "running"
    assert counted(daemon, "counter") > 3
    assert leftovers(daemon) == []
    daemon.cli("rm", "-f", "counter")
