"""Snapshots with the memory of a VM: it goes on exactly where it was, in the same instance and in clones of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import PLAN, state, until, with_image

VM = ("--isolation", "vm", "--memory", "128M", "--cpus", "1", "--disk", "64M")
COUNTER = (
    "trap 'echo end; exit 7' TERM; mkfifo /ask /answer; i=0; echo ready; "
    "while read word < /ask; do i=$((i+1)); echo $i $word > /answer; done; exit 7"
)
"""Counts in a shell's memory and nowhere else, once for each question."""
TICKER = "trap 'echo end; exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
"""Counts by itself, and says it."""


def prepared(daemon: Daemon, busybox_tar: Path) -> Daemon:
    """The daemon, with an image and a kernel."""
    with_image(daemon, busybox_tar, "busybox")
    if "kernel/debian" not in daemon.cli("image", "ls").stdout:
        daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return daemon


@pytest.fixture
def vms(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that can run VMs."""
    return prepared(shared_daemon, busybox_tar)


def counting(daemon: Daemon, name: str, *words: str) -> None:
    """A VM that counts."""
    daemon.cli("run", "-d", "--name", name, *VM, *words, "busybox", "sh", "-c", COUNTER)
    until("it counts", lambda: "ready" in daemon.cli("logs", name).stdout, seconds=120)


def inside(daemon: Daemon, name: str, script: str) -> str:
    """What a script says in a running instance."""
    return daemon.cli("exec", name, "sh", "-c", script).stdout.strip()


def count(daemon: Daemon, name: str, word: str = "x") -> str:
    """The next number."""
    return inside(daemon, name, f"echo {word} > /ask; cat /answer")


def test_it_goes_on_where_it_was(vms: Daemon) -> None:
    counting(vms, "one")
    assert [count(vms, "one") for _ in range(3)] == ["1 x", "2 x", "3 x"]
    inside(vms, "one", "echo before > /file")
    vms.cli("snapshot", "create", "--memory", "one", "three")
    assert [count(vms, "one") for _ in range(2)] == ["4 x", "5 x"], "it has not gone on after the snapshot"
    inside(vms, "one", "echo after > /file")
    (row,) = vms.json("snapshot", "ls", "--format", "json")
    assert row["memory"] is True
    vms.cli("snapshot", "restore", "-f", "one", "three")
    assert (state(vms, "one"), count(vms, "one"), inside(vms, "one", "cat /file")) == ("running", "4 x", "before")
    # Again, and with the daemon gone in between.
    vms.cli("stop", "-t", "0", "one")
    vms.cli("snapshot", "restore", "one/three")
    vms.kill9()
    vms.start()
    assert count(vms, "one") == "4 x"
    # The disk alone: it starts anew.
    vms.cli("snapshot", "restore", "-f", "--no-memory", "one", "three")
    assert (count(vms, "one"), inside(vms, "one", "cat /file")) == ("1 x", "before")
    vms.cli("rm", "-f", "one")


def ticks(daemon: Daemon, name: str) -> list[int]:
    """What it has said."""
    return [int(line) for line in daemon.cli("logs", name).stdout.split() if line.isdigit()]


def goes_on(daemon: Daemon, name: str) -> list[int]:
    """What it has said, after it has said more: not one number is missing, and none is there twice."""
    before = len(ticks(daemon, name))
    until(f"{name} counts on", lambda: len(ticks(daemon, name)) > before + 2)
    said = ticks(daemon, name)
    assert said == list(range(said[0], said[0] + len(said)))
    return said


def test_its_log_has_no_gap_and_its_end_is_told(vms: Daemon) -> None:
    vms.cli("run", "-d", "--name", "one", *VM, "busybox", "sh", "-c", TICKER)
    goes_on(vms, "one")
    vms.cli("snapshot", "create", "--memory", "one", "s")
    taken = goes_on(vms, "one")
    vms.cli("run", "-d", "--name", "two", "--from", "one/s")
    assert goes_on(vms, "two")[0] <= taken[-1] + 1
    for name in ("one", "two"):
        vms.cli("stop", name)
        assert vms.json("inspect", name)[0]["exit"]["code"] == 7
        assert vms.cli("logs", name).stdout.endswith("end\n")
    vms.cli("rm", "-f", "one", "two")


def test_a_clone_goes_on_as_somebody_else(vms: Daemon) -> None:
    counting(vms, "one")
    assert count(vms, "one") == "1 x"
    inside(vms, "one", "echo kept > /dev/shm/note")
    vms.cli("snapshot", "create", "--memory", "one", "s")
    for name in ("two", "three"):
        vms.cli("run", "-d", "--name", name, "--from", "one/s")
    assert inside(vms, "two", "cat /dev/shm/note") == "kept", "memory that is no process's"
    draws = {inside(vms, name, "head -c 16 /dev/urandom | md5sum") for name in ("one", "two", "three")}
    assert len(draws) == 3, "they draw the same random bytes"
    addresses = set()
    for name in ("one", "two", "three"):
        assert count(vms, name) == "2 x"
        (row,) = vms.json("inspect", name)
        address = row["address"]
        assert inside(vms, name, "hostname") == row["config"]["hostname"]
        assert inside(vms, name, "cat /sys/class/net/eth0/address") == address["mac"]
        shown = inside(vms, name, "ip -o addr show dev eth0; cat /etc/hosts")
        assert f" {address['ipv4']}/" in shown and f"{address['ipv4']}\t" in shown
        assert abs(int(inside(vms, name, "date +%s")) - time.time()) < 60
        addresses.add(address["ipv4"])
    assert len(addresses) == 3
    (two,) = vms.json("inspect", "two")
    assert two["address"]["ipv4"] in inside(vms, "three", "nslookup two")
    inside(vms, "one", f"ping -c 1 -W 20 {two['address']['ipv4']}")
    for words, said in (
        (("--memory", "256M"), "another memory"),
        (("sh",), "another command"),
        (("--network", "none"), "network"),
        (("--isolation", "container"), "isolation"),
    ):
        options, command = (words, ()) if words[0].startswith("-") else ((), words)
        done = vms.cli("create", "--from", "one/s", *options, *command, check=False)
        assert done.returncode == 125 and said in done.stderr, done
    # From the disk alone it is an ordinary clone.
    assert vms.cli("run", "--rm", "--from", "one/s", "--no-template", "echo", "new").stdout == "new\n"
    vms.cli("rm", "-f", "one", "two", "three")


def test_what_waits_for_its_memory_is_left_alone(vms: Daemon, tmp_path: Path) -> None:
    counting(vms, "one", "--network", "none")
    vms.cli("snapshot", "create", "--memory", "one", "s")
    vms.cli("create", "--name", "two", "--from", "one/s")
    for words in (
        ("cp", "two:/etc/passwd", str(tmp_path)),
        ("snapshot", "create", "two"),
        ("update", "--memory", "256M", "two"),
    ):
        done = vms.cli(*words, check=False)
        assert done.returncode == 125 and "memory of a snapshot" in done.stderr, done
    vms.cli("start", "two")
    assert count(vms, "two") == "1 x"
    vms.cli("stop", "-t", "0", "two")
    vms.cli("start", "two")  # an ordinary start
    until("it counts", lambda: vms.cli("logs", "two").stdout.count("ready") >= 1, seconds=120)
    vms.cli("rm", "-f", "one", "two")


def test_memory_that_cannot_be_saved(vms: Daemon) -> None:
    vms.cli("create", "--name", "idle", *VM, "-v", "shared:/data", "busybox", "true")
    done = vms.cli("snapshot", "create", "--memory", "idle", check=False)
    assert "no running memory" in done.stderr and "shared" in done.stderr
    vms.cli("rm", "idle")
    vms.cli("volume", "rm", "shared")
    vms.cli("create", "--name", "box", *PLAN, "busybox", "true")
    assert "memory of a container" in vms.cli("snapshot", "create", "--memory", "box", check=False).stderr
    vms.cli("rm", "box")


@pytest.mark.parametrize("changes", [("--memory", "160M", "128M"), ("--cpus", "2", "1")])
def test_one_that_was_changed_while_it_ran(vms: Daemon, changes: tuple[str, str, str]) -> None:
    """Its memory is not saved, be it changed back, until it is started again; its disk alone is."""
    counting(vms, "one", "--network", "none")
    option, more, less = changes
    for value in (more, less):
        vms.cli("update", option, value, "one")
        done = vms.cli("snapshot", "create", "--memory", "one", "s", check=False)
        assert done.returncode == 125 and "were changed since its start" in done.stderr, done
    assert count(vms, "one") == "1 x"
    vms.cli("snapshot", "create", "one", "disk")
    vms.cli("restart", "-t", "0", "one")
    until("it counts", lambda: vms.cli("logs", "one").stdout.count("ready") == 2)
    vms.cli("snapshot", "create", "--memory", "one", "s")
    assert count(vms, "one") == "1 x"
    vms.cli("rm", "-f", "one")


@pytest.mark.parametrize("point", ["snapshot.still", "snapshot.copying"])
def test_a_daemon_killed_meanwhile_lets_it_go_on(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str
) -> None:
    daemon = prepared(make_daemon(env={"BULKHEAD_CRASH_AT": point}, template_space=0), busybox_tar)
    counting(daemon, "one", "--network", "none")
    with suppress(ConnectionError):
        daemon.cli("snapshot", "create", "--memory", "one", "s", check=False)
    assert daemon.wait() == -signal.SIGKILL
    daemon.start(env={"BULKHEAD_CRASH_AT": ""})
    assert count(daemon, "one") == "1 x"
    assert not list(daemon.config.snapshots_dir.iterdir())
    assert "could not repair" not in daemon.log()
    daemon.cli("snapshot", "create", "--memory", "one", "s")
    assert count(daemon, "one") == "2 x"
    daemon.cli("rm", "-f", "one")
