"""Snapshots with a machine's memory through the daemon: made, cloned, put back, and what a crash in between leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import state, until, with_image

SIZE = ("--isolation", "vm", "--memory", "128M", "--cpus", "1", "--disk", "64M")
COUNT = "trap 'echo end; exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
SECONDS = 120.0


def prepared(daemon: Daemon, busybox_tar: Path) -> Daemon:
    """With an image and a kernel."""
    with_image(daemon, busybox_tar, "busybox")
    if "kernel/debian" not in daemon.cli("image", "ls").stdout:
        daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return daemon


@pytest.fixture(scope="module")
def vms(module_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    yield prepared(module_daemon, busybox_tar)


def counted(daemon: Daemon, name: str) -> list[int]:
    return [int(line) for line in daemon.cli("logs", name).stdout.split() if line.isdigit()]


def unbroken(numbers: list[int]) -> bool:
    """Not one is missing, and none is there twice."""
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def goes_on(daemon: Daemon, name: str) -> None:
    before = len(counted(daemon, name))
    until(f"{name} counts on", lambda: len(counted(daemon, name)) > before + 2, seconds=SECONDS)


def test_a_memory_is_cloned_and_put_back(vms: Daemon) -> None:
    vms.cli("run", "-d", "--name", "one", *SIZE, "busybox", "sh", "-c", COUNT)
    goes_on(vms, "one")
    vms.cli("exec", "one", "sh", "-c", "echo kept > /dev/shm/note; echo old > /note")
    vms.cli("snapshot", "create", "--memory", "one", "s")
    taken = counted(vms, "one")
    assert vms.json("snapshot", "ls", "--format", "json", "one")[0]["memory"] is True
    goes_on(vms, "one")
    assert unbroken(counted(vms, "one"))

    vms.cli("run", "-d", "--name", "two", "--from", "one/s")
    goes_on(vms, "two")
    first = counted(vms, "two")
    assert first[0] <= taken[-1] + 1 and unbroken(first)
    ask = "hostname; cat /dev/shm/note /note; cat /sys/class/net/eth0/address; ip -4 -o addr"
    one, two = (vms.cli("exec", name, "sh", "-c", ask).stdout.splitlines() for name in ("one", "two"))
    assert one[0] != two[0] and one[3] != two[3]
    assert one[1:3] == two[1:3] == ["kept", "old"]
    for name, said in (("one", one), ("two", two)):
        address = vms.json("inspect", name)[0]["address"]
        assert said[3] == address["mac"]
        assert any(address["ipv4"] in line for line in said[4:])
    random = {vms.cli("exec", name, "sh", "-c", "head -c 8 /dev/urandom | od -tx1").stdout for name in ("one", "two")}
    assert len(random) == 2
    other = vms.json("inspect", "two")[0]["address"]["ipv4"]
    vms.cli("exec", "one", "ping", "-c", "1", "-W", "20", other)

    vms.cli("exec", "one", "sh", "-c", "echo new > /note")
    vms.cli("snapshot", "restore", "-f", "one", "s")
    goes_on(vms, "one")
    assert vms.cli("exec", "one", "cat", "/note").stdout == "old\n"
    assert counted(vms, "one")[-1] < taken[-1] + 10_000
    for name in ("one", "two"):
        vms.cli("stop", name)
        assert vms.json("inspect", name)[0]["exit"]["code"] == 7
        assert vms.cli("logs", name).stdout.endswith("end\n")
    vms.cli("start", "one")
    until("it begins anew", lambda: vms.cli("logs", "one").stdout.split("end\n")[-1].startswith("1\n"), seconds=SECONDS)
    vms.cli("rm", "-f", "one")
    vms.cli("rm", "-f", "two")


@pytest.mark.parametrize("point", ["snapshot.still", "snapshot.copying"])
def test_a_daemon_killed_while_a_machine_is_stopped(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str
) -> None:
    daemon = prepared(make_daemon(env={"BULKHEAD_CRASH_AT": point}), busybox_tar)
    daemon.cli("run", "-d", "--name", "one", *SIZE, "busybox", "sh", "-c", COUNT)
    goes_on(daemon, "one")
    assert daemon.cli("snapshot", "create", "--memory", "one", "s", check=False).returncode != 0
    daemon.wait()
    daemon.start(env={"BULKHEAD_CRASH_AT": ""})
    assert state(daemon, "one") == "running"
    goes_on(daemon, "one")
    assert daemon.cli("exec", "one", "echo", "there").stdout == "there\n"
    assert unbroken(counted(daemon, "one"))
    assert daemon.json("snapshot", "ls", "--format", "json") == []
    daemon.cli("rm", "-f", "one")
