"""Every way in which a virtual machine ends, its own and by force: told as it was, nothing left, in bounded time."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import state, until
from tests.integration.machines import IMAGE, hypervisor, run, with_machines

ALONE = ("--network", "none")
WAIT = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"
CRASH, POWER_OFF = "echo c > /proc/sysrq-trigger", "echo o > /proc/sysrq-trigger"


@pytest.fixture
def vms(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """The daemon with an image and a kernel."""
    return with_machines(shared_daemon, busybox_tar)


def started(daemon: Daemon, name: str, command: str = WAIT, *options: str) -> int:
    """Run it until it says ready; the pid of its QEMU."""
    run(daemon, name, command, *ALONE, *options)
    until("ready", lambda: "ready" in daemon.cli("logs", name).stdout)
    return hypervisor(daemon, name)


def supervisor(daemon: Daemon, name: str) -> int:
    """The pid of its supervisor."""
    bundle = Path(daemon.json("inspect", name)[0]["bundle"])
    return int(json.loads((bundle / "handle.json").read_text())["supervisor_pid"])


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not Path(f"/proc/{pid}").exists()


def test_out_of_memory_is_told(vms: Daemon) -> None:
    """Though it is the guest's own kernel that has found out: the same words as for a container."""
    run(vms, "hungry", "tail /dev/zero", *ALONE)
    assert vms.cli("wait", "hungry").stdout == "137\n"
    told = vms.json("inspect", "hungry")[0]["exit"]
    assert (told["code"], told["signal"], told["oom"], told["error"]) == (137, 9, True, "")
    events = map(json.loads, vms.cli("events", "--format", "json").stdout.splitlines())
    (end,) = [event for event in events if event["name"] == "hungry" and event["action"] == "exit"]
    assert end["attributes"] == {"code": "137", "oom": "true"}
    assert "out of memory" in vms.cli("ps", "-a").stdout


def test_a_command_that_is_out_of_memory(vms: Daemon) -> None:
    """The whole instance is, as with a container on cgroup v2; a modest end is no such thing."""
    started(vms, "modest")
    vms.cli("stop", "modest")
    told = vms.json("inspect", "modest")[0]["exit"]
    assert (told["code"], told["oom"]) == (3, False)
    started(vms, "hungry")
    vms.cli("exec", "hungry", "tail", "/dev/zero", check=False)
    until("it has ended", lambda: state(vms, "hungry") == "exited")
    assert vms.json("inspect", "hungry")[0]["exit"]["oom"]


@pytest.mark.parametrize("command", [CRASH, POWER_OFF])
def test_a_guest_that_ends_without_a_word(vms: Daemon, command: str) -> None:
    """Its kernel panics, or switches the machine off."""
    pid = started(vms, "sudden", f"echo ready; sleep 0.2; {command}; sleep 1000")
    until("it has ended", lambda: state(vms, "sudden") == "exited")
    told = vms.json("inspect", "sudden")[0]["exit"]
    assert (told["code"], told["oom"]) == (255, False)
    assert "without a word of its guest" in told["error"]
    assert gone(pid)


def test_a_workload_that_reboots(vms: Daemon) -> None:
    """It has a pid namespace of its own, so that is its own end: signal HUP, as reboot(2) says."""
    started(vms, "again", "echo ready; sleep 0.2; reboot -f; sleep 1000")
    assert vms.cli("wait", "again").stdout == "129\n"


@pytest.mark.parametrize("who", ["qemu", "supervisor"])
def test_one_that_is_killed_from_outside_is_restarted(vms: Daemon, who: str) -> None:
    """The end is told with its reason, and the restart policy counts it."""
    pid = started(vms, "killed", WAIT, "--restart", "on-failure:2")
    os.kill(pid if who == "qemu" else supervisor(vms, "killed"), signal.SIGKILL)
    until("another runs", lambda: hypervisor(vms, "killed") not in (0, pid))
    assert gone(pid)
    until("it works", lambda: vms.cli("exec", "killed", "true", check=False).returncode == 0)
    events = [json.loads(line) for line in vms.cli("events", "--format", "json").stdout.splitlines()]
    ends = [event["attributes"] for event in events if event["name"] == "killed" and event["action"] == "exit"]
    assert ends[-1]["code"] == "255"
    assert vms.json("inspect", "killed")[0]["restarts"] == 1


@pytest.mark.parametrize("words", [["stop", "-t", "1"], ["kill"], ["rm", "-f"]])
def test_a_guest_that_hangs_is_ended(vms: Daemon, words: list[str]) -> None:
    """It answers nothing, and neither does its hypervisor."""
    pid = started(vms, "hangs")
    os.kill(pid, signal.SIGSTOP)
    vms.cli(*words, "hangs", timeout=60)
    assert gone(pid)
    assert state(vms, "hangs") == ("" if words[0] == "rm" else "exited")
    if words[0] != "rm":
        assert vms.json("inspect", "hangs")[0]["exit"]["code"] == 137
        vms.cli("start", "hangs")
        assert vms.cli("exec", "hangs", "echo", "well").stdout == "well\n"


def test_a_supervisor_that_hangs(vms: Daemon) -> None:
    """So does what would tell the guest."""
    pid = started(vms, "hangs")
    os.kill(supervisor(vms, "hangs"), signal.SIGSTOP)
    vms.cli("stop", "-t", "1", "hangs", timeout=60)
    assert gone(pid)
    assert state(vms, "hangs") == "exited"


def test_one_that_ends_while_nobody_looks(vms: Daemon) -> None:
    """Its end is read by the next daemon."""
    pid = started(vms, "short", "echo ready; while [ ! -e /end ]; do sleep 0.05; done; exit 7")
    vms.cli("exec", "-d", "short", "sh", "-c", "sleep 1; touch /end")
    vms.kill9()
    until("it has ended", lambda: gone(pid))
    vms.start()
    assert vms.json("inspect", "short")[0]["exit"]["code"] == 7
    assert IMAGE in vms.cli("ps", "-a").stdout
