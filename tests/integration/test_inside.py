"""Containers within virtual machines: every verb through both walls, and sums that are kept."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.integration.lives import client, state, until
from tests.integration.machines import IMAGE, hypervisor, run, with_machines

MIB = 1 << 20
HOME = ("--memory", "256M")
PLAN = ("--memory", "48M", "--cpus", "0.3", "--pids", "60", "--disk", "64M")
SERVE = "echo here > /tmp/index.html; echo serving; exec httpd -f -p 80 -h /tmp"
ENDLESS = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.2; done"


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """A daemon with the VM `home`, in which nothing runs yet."""
    with_machines(shared_daemon, busybox_tar)
    run(shared_daemon, "home", "sleep 100000", *HOME)
    yield shared_daemon


def inner(daemon: Daemon, name: str, command: str, *options: str, inside: str = "home") -> None:
    """A container in a VM, in the background."""
    daemon.cli("run", "-d", "--name", name, "--inside", inside, *PLAN, *options, IMAGE, "sh", "-c", command)


def says(daemon: Daemon, name: str, words: str) -> None:
    """Wait until it has said this."""
    until(f"{name} says {words}", lambda: words in daemon.cli("logs", name).stdout)


def served(daemon: Daemon, port: int) -> bytes:
    """What comes from a published port; nothing where nobody listens yet: in a guest a program begins a while later."""
    assert daemon.outside
    with suppress(ConnectionRefusedError):
        return daemon.outside.fetch(port, timeout=60.0)[1]
    return b""


def test_it_is_a_container_with_limits_of_its_own(bulkhead: Daemon) -> None:
    script = (
        "id -u; cat /proc/self/uid_map; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max;"
        " hostname; grep Seccomp: /proc/self/status; mount -t tmpfs none /mnt; echo $?; exit 7"
    )
    done = bulkhead.cli("run", "--rm", "--name", "c", "--inside", "home", *PLAN, IMAGE, "sh", "-c", script, check=False)
    assert done.returncode == 7, done
    lines = done.stdout.splitlines()
    assert lines[0] == "0"
    first, start, count = lines[1].split()
    assert (first, count) == ("0", "65536")
    assert int(start) > 0, "it has a user namespace of its own in the guest"
    assert lines[2:5] == [str(48 * MIB), "60", "30000 100000"]
    assert "Seccomp:\t2" in lines
    assert lines[-1] != "0", "it cannot mount"
    assert "c" not in bulkhead.cli("ps", "-aq", "--filter", "name=c").stdout


def test_names_and_ports_reach_through_both_walls(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", SERVE, "-p", "8080:80")
    assert until("it answers", lambda: served(bulkhead, 8080)) == b"here\n"
    bulkhead.cli("run", "-d", "--name", "beside", "--memory", "64M", "--disk", "64M", IMAGE, "sleep", "1000")
    inner(bulkhead, "second", "sleep 1000")
    for asker in ("home", "beside", "second", "web"):
        assert bulkhead.cli("exec", asker, "wget", "-qO-", "http://web/").stdout == "here\n", asker
    bulkhead.cli("exec", "home", "sh", "-c", "echo home > /tmp/index.html; httpd -p 81 -h /tmp")
    assert bulkhead.cli("exec", "web", "wget", "-qO-", "http://home:81/").stdout == "home\n"


def test_every_verb(bulkhead: Daemon, tmp_path: Path) -> None:
    inner(bulkhead, "web", ENDLESS)
    says(bulkhead, "web", "ready")
    assert bulkhead.cli("exec", "web", "sh", "-c", "exit 4", check=False).returncode == 4
    assert bulkhead.cli("exec", "-i", "web", "cat", stdin="through both").stdout == "through both"
    (tmp_path / "file").write_text("copied\n")
    bulkhead.cli("cp", tmp_path / "file", "web:/etc/file")
    assert bulkhead.cli("exec", "web", "cat", "/etc/file").stdout == "copied\n"
    bulkhead.cli("pause", "web")
    assert state(bulkhead, "web") == "paused"
    bulkhead.cli("unpause", "web")
    (used,) = bulkhead.json("stats", "--no-stream", "--format", "json", "web")
    assert 0 < used["memory"] <= used["memory_limit"] == 48 * MIB
    assert (used["pids_limit"], used["disk_size"]) == (60, 64 * MIB)
    assert used["pids"] >= 1
    bulkhead.cli("update", "web", "--memory", "40M", "--pids", "50", "--disk", "80M")
    read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; df -k / | tail -1"
    memory, pids, disk = bulkhead.cli("exec", "web", "sh", "-c", read).stdout.splitlines()
    assert (memory, pids) == (str(40 * MIB), "50")
    assert int(disk.split()[1]) > 66 * 1024, "its file system has grown"
    bulkhead.cli("stop", "web")
    assert bulkhead.json("inspect", "web")[0]["exit"]["code"] == 3
    bulkhead.cli("cp", "web:/etc/file", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "copied\n"
    bulkhead.cli("start", "web")
    bulkhead.cli("kill", "web")
    assert bulkhead.json("inspect", "web")[0]["exit"] | {"started": 0, "ended": 0} == {
        "code": 137,
        "signal": 9,
        "oom": False,
        "error": "",
        "started": 0,
        "ended": 0,
    }
    bulkhead.cli("rm", "web")


def test_a_terminal(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", ENDLESS)
    master, slave = pty.openpty()
    try:
        with client(bulkhead, "exec", "-it", "web", "sh", "-c", "tty; stty size", stdin=slave, stdout=slave) as process:
            said = b""
            while b"/dev/pts" not in said:
                said += os.read(master, 4096)
            assert process.wait(timeout=60) == 0
    finally:
        os.close(master)
        os.close(slave)


def test_what_runs_out_of_memory_alone_is_ended(bulkhead: Daemon) -> None:
    inner(bulkhead, "other", ENDLESS)
    done = bulkhead.cli("run", "--name", "hog", "--inside", "home", *PLAN, IMAGE, "tail", "/dev/zero", check=False)
    assert done.returncode == 137
    assert bulkhead.json("inspect", "hog")[0]["exit"]["oom"] is True
    assert [state(bulkhead, name) for name in ("home", "other")] == ["running", "running"]
    assert bulkhead.cli("exec", "other", "echo", "well").stdout == "well\n"


def test_the_sum_of_the_plans_must_fit(bulkhead: Daemon) -> None:
    inner(bulkhead, "first", "sleep 1000")
    for options, words in (
        (("--memory", "200M"), "memory 200M is more than home has left"),
        (("--memory", "32M", "--cpus", "0.9"), "cpus 0.9 is more than home has left"),
        (("--memory", "32M", "--pids", "500"), "pids 500 is more than home has left"),
    ):
        refused = bulkhead.cli("create", "--inside", "home", *options, IMAGE, "true", check=False)
        assert refused.returncode == 125
        assert words in refused.stderr
        assert "hint: " in refused.stderr
    too_much = bulkhead.cli("update", "first", "--memory", "220M", check=False)
    assert "more than home has left" in too_much.stderr
    shrunk = bulkhead.cli("update", "home", "--memory", "100M", check=False)
    assert "have been promised more" in shrunk.stderr
    bulkhead.cli("create", "--name", "second", "--inside", "home", "--memory", "32M", IMAGE, "true")
    full = bulkhead.cli("create", "--inside", "home", "--memory", "16M", IMAGE, "true", check=False)
    assert "home holds as many instances as it can: 2" in full.stderr
    plan = bulkhead.json("inspect", "second")[0]["plan"]
    assert plan["cpus"] <= 0.5, "what nobody gave is at most half of what was left"


def own_memory(daemon: Daemon) -> int:
    """Bytes that the VM's own workload can have."""
    return int(daemon.cli("exec", "home", "cat", "/sys/fs/cgroup/bulkhead/instance/memory.max").stdout)


def test_what_is_promised_is_not_the_machines_own_any_more(bulkhead: Daemon) -> None:
    alone = own_memory(bulkhead)
    inner(bulkhead, "web", ENDLESS)
    assert own_memory(bulkhead) == alone - 48 * MIB
    bulkhead.cli("update", "web", "--memory", "64M")
    assert own_memory(bulkhead) == alone - 64 * MIB
    bulkhead.kill9()
    bulkhead.start()
    assert own_memory(bulkhead) == alone - 64 * MIB
    bulkhead.cli("stop", "web")
    assert own_memory(bulkhead) == alone
    hog = "dd if=/dev/zero of=/dev/shm/hog bs=1M count=90 2> /dev/null; echo full"
    assert bulkhead.cli("exec", "home", "sh", "-c", hog).stdout == "full\n"
    bulkhead.cli("create", "--name", "more", "--inside", "home", "--memory", "110M", IMAGE, "true")
    refused = bulkhead.cli("start", "more", check=False)
    assert "home itself uses" in refused.stderr
    assert own_memory(bulkhead) == alone
    bulkhead.cli("exec", "home", "rm", "/dev/shm/hog")
    bulkhead.cli("start", "more")


def test_no_two_get_the_same_room(bulkhead: Daemon) -> None:
    create = ("create", "--inside", "home", "--memory", "50M", "--cpus", "0.1", "--pids", "20", IMAGE, "true")
    with ThreadPoolExecutor(4) as workers:
        codes = list(workers.map(lambda _: bulkhead.cli(*create, check=False).returncode, range(4)))
    assert sorted(codes) == [0, 0, 125, 125], "home holds two"


def test_where_it_cannot_run_is_told(bulkhead: Daemon) -> None:
    bulkhead.cli("run", "-d", "--name", "plain", "--memory", "64M", "--disk", "64M", IMAGE, "sleep", "1000")
    bulkhead.cli("run", "-d", "--name", "closed", "--isolation", "vm", "--inner", "0", *HOME, IMAGE, "sleep", "1000")
    for home, words in (("plain", "is a container, not a VM"), ("closed", "was made to hold no"), ("none", "no such")):
        refused = bulkhead.cli("create", "--inside", home, IMAGE, "true", check=False)
        assert words in refused.stderr
    wrong = ("--network", "host", "-v", "data:/data", "--swap", "1M", "--bandwidth", "1M")
    refused = bulkhead.cli("create", "--inside", "home", *wrong, IMAGE, "true", check=False)
    for words in ("no volumes", "network", "swap", "bandwidth"):
        assert words in refused.stderr
    refused = bulkhead.cli("create", "--isolation", "vm", "--inside", "home", IMAGE, "true", check=False)
    assert "a vm cannot run in a VM" in refused.stderr
    inner(bulkhead, "web", "sleep 1000")
    for arguments, words in (
        (("move", "web", "--isolation", "vm"), "it does not leave it"),
        (("snapshot", "create", "web"), "in a VM"),
        (("move", "home", "--isolation", "container"), "holds web"),
        (("snapshot", "create", "--memory", "home"), "run in home"),
        (("rm", "home"), "holds web"),
    ):
        refused = bulkhead.cli(*arguments, check=False)
        assert refused.returncode == 125, arguments
        assert words in refused.stderr, arguments


def test_the_listing_shows_what_is_within_what(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", "sleep 1000")
    lines = bulkhead.cli("ps", "--tree").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if " home " in line)
    assert "└─ web" in lines[at + 1]
    assert lines[at + 1].rstrip().endswith("container in home")
    assert len(bulkhead.cli("ps", "-q", "--filter", "inside=home").stdout.split()) == 1


def test_a_chroot_within_a_machine_shares_its_network(bulkhead: Daemon) -> None:
    script = "ip -4 -o addr show eth0; cat /sys/fs/cgroup/memory.max"
    done = bulkhead.cli("run", "--rm", "--isolation", "chroot", "--inside", "home", *PLAN, IMAGE, "sh", "-c", script)
    assert str(bulkhead.json("inspect", "home")[0]["address"]["ipv4"]) in done.stdout
    assert str(48 * MIB) in done.stdout


def test_a_daemon_that_was_killed_finds_it_again(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", SERVE, "-p", "8080:80")
    says(bulkhead, "web", "serving")
    bulkhead.kill9()
    bulkhead.start()
    assert [state(bulkhead, name) for name in ("home", "web")] == ["running", "running"]
    assert bulkhead.outside
    assert bulkhead.outside.fetch(8080, timeout=60.0)[1] == b"here\n"
    assert bulkhead.cli("exec", "web", "wget", "-qO-", "http://web/").stdout == "here\n"
    assert "could not repair" not in bulkhead.log()
    assert "lost its link" not in bulkhead.log()
    bulkhead.cli("stop", "-t", "1", "web")


def test_the_end_of_its_machine_is_its_own(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", "sleep 1000")
    os.kill(hypervisor(bulkhead, "home"), signal.SIGKILL)
    until("both have ended", lambda: [state(bulkhead, name) for name in ("home", "web")] == ["exited"] * 2)
    ended = bulkhead.json("inspect", "web")[0]["exit"]
    assert ended["code"] == 255
    assert "the virtual machine that it was in has ended" in ended["error"]
    refused = bulkhead.cli("start", "web", check=False)
    assert "runs in home, which is exited" in refused.stderr
    bulkhead.cli("start", "home")
    bulkhead.cli("start", "web")
    assert bulkhead.cli("exec", "web", "echo", "again").stdout == "again\n"


def test_a_supervisor_that_was_killed_leaves_nothing_in_the_machine(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", "echo kept > /etc/kept; sync; echo ready; sleep 1000")
    says(bulkhead, "web", "ready")
    identifier = bulkhead.json("inspect", "web")[0]["id"]
    handle = (bulkhead.config.instances_dir / identifier / "handle.json").read_text()
    os.kill(int(handle.partition('"supervisor_pid": ')[2].partition(",")[0]), signal.SIGKILL)
    until("its end is known", lambda: state(bulkhead, "web") == "exited")
    look = f"ls -d /sys/fs/cgroup/bulkhead/{identifier}*"
    assert bulkhead.cli("exec", "home", "sh", "-c", look, check=False).returncode != 0
    bulkhead.cli("start", "web")
    assert bulkhead.cli("exec", "web", "cat", "/etc/kept").stdout == "kept\n"


def test_stopping_a_machine_stops_what_is_in_it_first(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", ENDLESS, "--restart", "always")
    says(bulkhead, "web", "ready")
    bulkhead.cli("stop", "-t", "1", "home")
    assert bulkhead.json("inspect", "web")[0]["exit"]["code"] == 3, "it was asked to end, and has"
    bulkhead.cli("rm", "-f", "home")
    assert state(bulkhead, "web") == ""


def test_in_a_machine_that_is_paused_nothing_is_asked_for(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", ENDLESS)
    says(bulkhead, "web", "ready")
    bulkhead.cli("pause", "home")
    for verb in ("stop", "kill", "pause", "rm -f"):
        refused = bulkhead.cli(*verb.split(), "web", check=False)
        assert "runs in home, which is paused" in refused.stderr, verb
    bulkhead.cli("unpause", "home")
    assert bulkhead.cli("exec", "web", "echo", "on").stdout == "on\n"
    bulkhead.cli("pause", "home")
    bulkhead.cli("rm", "-f", "home")
    assert bulkhead.json("ps", "-a", "--format", "json") == []


def test_it_comes_back_with_its_machine_by_its_policy(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", ENDLESS, "--restart", "always")
    assert bulkhead.json("inspect", "home")[0]["holds"] == ["web"]
    os.kill(hypervisor(bulkhead, "home"), signal.SIGKILL)
    until("the machine has ended", lambda: state(bulkhead, "home") == "exited")
    bulkhead.cli("start", "home")
    until("it runs again", lambda: state(bulkhead, "web") == "running")


def test_it_is_started_again_by_its_policy(bulkhead: Daemon) -> None:
    inner(bulkhead, "web", "echo once; sleep 0.2; exit 1", "--restart", "on-failure:2")
    until("it has ended for good", lambda: bulkhead.json("inspect", "web")[0]["restarts"] == 2)


def test_its_health_is_looked_after(bulkhead: Daemon) -> None:
    options = ("--health-cmd", "test -e /tmp/index.html", "--health-interval", "0.5s")
    inner(bulkhead, "web", SERVE, *options)
    until("it is well", lambda: bulkhead.json("inspect", "web")[0]["health"] == "healthy")


# --- a machine of its own


def alone(daemon: Daemon, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return daemon.cli("run", "--inside", "new", *PLAN, *arguments, check=check)


def test_a_machine_of_its_own_is_no_larger_than_needed(bulkhead: Daemon) -> None:
    done = alone(bulkhead, "--rm", IMAGE, "sh", "-c", "grep MemTotal /proc/meminfo; nproc; exit 5", check=False)
    assert done.returncode == 5, done
    total = int(done.stdout.split()[1]) << 10
    assert 48 * MIB < total < 160 * MIB
    assert {row["spec"]["name"] for row in bulkhead.json("ps", "-a", "--format", "json")} == {"home"}


def test_a_machine_of_its_own_comes_and_goes_with_it(bulkhead: Daemon) -> None:
    alone(bulkhead, "-d", "--name", "boxed", "-p", "8081:80", IMAGE, "sh", "-c", SERVE)
    assert len(bulkhead.cli("ps", "-q", "--filter", "name=boxed").stdout.split()) == 1
    assert len(bulkhead.cli("ps", "-q", "--tree", "--filter", "name=boxed").stdout.split()) == 2
    assert until("it answers", lambda: served(bulkhead, 8081)) == b"here\n"
    refused = bulkhead.cli("rm", "-f", "boxed-vm", check=False)
    assert "is there for boxed alone" in refused.stderr
    bulkhead.cli("stop", "-t", "0", "boxed")
    assert state(bulkhead, "boxed-vm") == "exited"
    bulkhead.cli("start", "boxed")
    assert [state(bulkhead, name) for name in ("boxed", "boxed-vm")] == ["running", "running"]
    bulkhead.cli("rm", "-f", "boxed")
    assert [state(bulkhead, name) for name in ("boxed", "boxed-vm")] == ["", ""]


def test_a_dry_run_tells_what_the_guest_does(bulkhead: Daemon) -> None:
    for home in ("home", "new"):
        told = bulkhead.cli("run", "--dry-run", "--inside", home, *PLAN, IMAGE, "true").stdout
        assert "mountdev /dev/vd" in told
        assert "seccomp" in told
    assert BULKHEAD.exists()
