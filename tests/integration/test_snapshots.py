"""Snapshots through the daemon and the command line: made of what runs, put back, cloned, removed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import PLAN, state, until, with_image

WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])
WRITER = "i=0; while :; do i=$((i+1)); echo $i > /count.new; sync /count.new; mv /count.new /count; done"
SLEEP = ("sleep", "1000")
VM = ("--isolation", "vm", "--memory", "128M", "--cpus", "1", "--disk", "64M", "--network", "none")


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


@pytest.fixture
def vms(bulkhead: Daemon) -> Daemon:
    """It has a kernel as well."""
    if "kernel/debian" not in bulkhead.cli("image", "ls").stdout:
        bulkhead.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return bulkhead


def run(daemon: Daemon, name: str, *words: str) -> None:
    """An instance in the background. `words`: options, image and command."""
    daemon.cli("run", "-d", "--name", name, *words)


def put(daemon: Daemon, name: str, text: str, path: str = "/file") -> None:
    """Write a file in a running instance, and leave it to the kernel when that reaches the disk."""
    daemon.cli("exec", name, "sh", "-c", f"echo {text} > {path}")


def read(daemon: Daemon, name: str, path: str = "/file") -> str:
    """A file in a running instance."""
    return daemon.cli("exec", name, "cat", path).stdout.strip()


def names(daemon: Daemon, *instance: str) -> list[str]:
    """References of the snapshots there are."""
    return daemon.cli("snapshot", "ls", "-q", *instance).stdout.split()


def refused(daemon: Daemon, *words: str) -> str:
    """What a command that is refused says."""
    done = daemon.cli(*words, check=False)
    assert done.returncode == 125, done
    assert "Traceback" not in done.stderr
    return done.stderr


def described(daemon: Daemon, name: str) -> dict[str, object]:
    """As inspect tells it."""
    (row,) = daemon.json("inspect", name)
    return dict(row)


def snapshot_files(daemon: Daemon) -> list[Path]:
    """What lies below the snapshots' directory."""
    return sorted(daemon.config.snapshots_dir.iterdir())


# --- what the host mounts: chroot and container


@WALLS
def test_a_life(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, "web", "--isolation", wall, *PLAN, "busybox", *SLEEP)
    put(bulkhead, "web", "old")
    assert bulkhead.cli("snapshot", "create", "web", "before").stdout == "web/before\n"
    put(bulkhead, "web", "new")
    assert bulkhead.cli("snapshot", "create", "web").stdout == "web/snap0\n"
    assert names(bulkhead, "web") == ["web/before", "web/snap0"]
    (first, _) = bulkhead.json("snapshot", "ls", "web", "--format", "json")
    assert (first["name"], first["memory"], first["state"]) == ("before", False, "ready")
    assert 0 < first["size"] < 32 << 20
    assert [one["name"] for one in described(bulkhead, "web")["snapshots"]] == ["before", "snap0"]  # type: ignore[attr-defined]
    assert "-f web/before" in refused(bulkhead, "snapshot", "restore", "web", "before")
    assert read(bulkhead, "web") == "new"
    bulkhead.cli("snapshot", "restore", "-f", "web", "before")
    assert (state(bulkhead, "web"), read(bulkhead, "web")) == ("running", "old")
    bulkhead.cli("stop", "-t", "0", "web")
    bulkhead.cli("snapshot", "restore", "web/snap0")
    assert state(bulkhead, "web") == "exited"
    bulkhead.cli("start", "web")
    assert read(bulkhead, "web") == "new"
    bulkhead.cli("snapshot", "rm", "web", "before", "snap0")
    assert names(bulkhead) == []
    assert snapshot_files(bulkhead) == []
    lines = map(json.loads, bulkhead.cli("events", "--format", "json").stdout.splitlines())
    kept = [(line["kind"], line["action"], line["name"]) for line in lines if line["name"].startswith("web")]
    assert kept.count(("snapshot", "create", "web/before")) == kept.count(("snapshot", "remove", "web/snap0")) >= 1
    assert ("instance", "restore", "web") in kept
    bulkhead.cli("rm", "-f", "web")


@WALLS
def test_a_clone_is_somebody_else(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, "one", "--isolation", wall, *PLAN, "-e", "COLOUR=blue", "--label", "a=b", "busybox", *SLEEP)
    put(bulkhead, "one", "kept")
    bulkhead.cli("exec", "one", "sh", "-c", "mkdir -p /srv; touch /srv/mine; chown 33:33 /srv/mine")
    bulkhead.cli("snapshot", "create", "one", "s")
    bulkhead.cli("run", "-d", "--name", "two", "--from", "one/s")
    one, two = described(bulkhead, "one"), described(bulkhead, "two")
    assert one["id"] != two["id"]
    if wall == "container":
        assert one["uid_start"] != two["uid_start"]
        for key in ("ipv4", "ipv6", "mac"):
            assert one["address"][key] != two["address"][key]  # type: ignore[index]
        assert bulkhead.cli("exec", "two", "hostname").stdout.strip() == str(two["id"])[:12]
    assert read(bulkhead, "two") == "kept"
    assert bulkhead.cli("exec", "two", "stat", "-c", "%u:%g", "/srv/mine").stdout == "33:33\n"
    assert bulkhead.cli("exec", "two", "sh", "-c", "echo $COLOUR").stdout == "blue\n"
    config = two["config"]
    assert isinstance(config, dict)
    assert (config["argv"], config["labels"], two["image"], two["plan"]) == (
        list(SLEEP),
        {"a": "b"},
        "busybox",
        one["plan"],
    )
    put(bulkhead, "two", "changed")
    assert read(bulkhead, "one") == "kept"
    # It needs neither the snapshot nor the instance that it was made of.
    bulkhead.cli("rm", "-f", "one")
    assert names(bulkhead) == [] and snapshot_files(bulkhead) == []
    bulkhead.cli("restart", "-t", "0", "two")
    assert read(bulkhead, "two") == "changed"
    bulkhead.cli("rm", "-f", "two")


def test_what_a_clone_is_given(bulkhead: Daemon) -> None:
    run(bulkhead, "one", *PLAN, "-p", "8099:80", "busybox", *SLEEP)
    bulkhead.cli("exec", "one", "sh", "-c", "echo 1 > /file; exec 3> /deleted; rm /deleted; sleep 1000 &")
    bulkhead.cli("snapshot", "create", "one", "s")
    said = bulkhead.cli(
        *("run", "--rm", "--from", "one/s", "--disk", "128M", "--memory", "32M", "-e", "A=b"),
        *("sh", "-c", "cat /file; echo $A; df -m / | tail -1"),
    ).stdout.splitlines()
    assert said[:2] == ["1", "b"]
    assert 100 < int(said[2].split()[1]) <= 128
    problems = refused(bulkhead, "create", "--from", "one/s", "--disk", "32M", "--isolation", "unikernel")
    assert "cannot shrink" in problems and "unikernel" in problems
    # The same files behind another wall of the same kernel.
    said = bulkhead.cli("run", "--rm", "--from", "one/s", "--isolation", "chroot", "cat", "/file").stdout
    assert said == "1\n"
    assert "no snapshot" in refused(bulkhead, "run", "--from", "one", "true")
    assert "did you mean" in refused(bulkhead, "run", "--from", "one/ss", "true")
    assert "no such instance" in refused(bulkhead, "run", "--from", "none/s", "true")
    assert "IMAGE is missing" in refused(bulkhead, "run")
    bulkhead.cli("rm", "-f", "one")


def test_a_busy_disk_is_copied_as_it_is_at_one_moment(bulkhead: Daemon) -> None:
    run(bulkhead, "busy", *PLAN, "busybox", "sh", "-c", WRITER)
    until("it writes", lambda: bulkhead.cli("exec", "busy", "test", "-s", "/count", check=False).returncode == 0)
    counts = []
    for number in range(3):
        bulkhead.cli("snapshot", "create", "busy", f"s{number}")
        counts.append(int(bulkhead.cli("run", "--rm", "--from", f"busy/s{number}", "cat", "/count").stdout))
        image = next(
            directory / "disk.img"
            for directory in snapshot_files(bulkhead)
            if json.loads((directory / "spec.json").read_text())["name"] == "busy"
        )
        assert os.system(f"e2fsck -n -f {image} > /dev/null 2>&1") == 0
    assert counts == sorted(counts) and counts[0] > 0
    now = int(read(bulkhead, "busy", "/count"))
    assert now > counts[-1], "it has not gone on"
    bulkhead.cli("rm", "-f", "busy")


@WALLS
def test_states(bulkhead: Daemon, wall: str) -> None:
    bulkhead.cli("create", "--name", "web", "--isolation", wall, *PLAN, "busybox", *SLEEP)
    bulkhead.cli("snapshot", "create", "web", "fresh")
    bulkhead.cli("start", "web")
    put(bulkhead, "web", "1")
    bulkhead.cli("pause", "web")
    bulkhead.cli("snapshot", "create", "web", "paused")
    assert state(bulkhead, "web") == "paused"
    bulkhead.cli("unpause", "web")
    assert bulkhead.cli("run", "--rm", "--from", "web/paused", "cat", "/file").stdout == "1\n"
    bulkhead.cli("pause", "web")
    bulkhead.cli("snapshot", "restore", "-f", "web", "fresh")
    assert bulkhead.cli("exec", "web", "test", "-e", "/file", check=False).returncode == 1
    assert "memory of a" in refused(bulkhead, "snapshot", "create", "--memory", "web", "no")
    assert names(bulkhead, "web") == ["web/fresh", "web/paused"]
    bulkhead.cli("update", "--disk", "128M", "web", check=False)
    bulkhead.cli("rm", "-f", "web")


def test_an_instance_that_would_go_with_its_end_is_not_restored(bulkhead: Daemon) -> None:
    run(bulkhead, "short", "--rm", *PLAN, "busybox", *SLEEP)
    bulkhead.cli("snapshot", "create", "short", "s")
    assert "--from short/s" in refused(bulkhead, "snapshot", "restore", "-f", "short", "s")
    assert state(bulkhead, "short") == "running"
    bulkhead.cli("kill", "short")
    until("it is gone", lambda: state(bulkhead, "short") == "")
    assert names(bulkhead) == []


def test_a_grown_disk_stays_as_large_as_the_plan(bulkhead: Daemon) -> None:
    run(bulkhead, "web", *PLAN, "busybox", *SLEEP)
    put(bulkhead, "web", "small")
    bulkhead.cli("stop", "-t", "0", "web")
    bulkhead.cli("snapshot", "create", "web", "small")
    bulkhead.cli("update", "--disk", "128M", "web")
    bulkhead.cli("snapshot", "restore", "web", "small")
    bulkhead.cli("start", "web")
    assert read(bulkhead, "web") == "small"
    size = bulkhead.cli("exec", "web", "df", "-m", "/").stdout.splitlines()[-1].split()[1]
    assert int(size) > 100
    bulkhead.cli("rm", "-f", "web")


def test_an_image_is_kept_for_its_snapshots(bulkhead: Daemon, busybox_tar: Path) -> None:
    bulkhead.cli("image", "import", "--change", "LABEL only=here", busybox_tar, "kept")
    run(bulkhead, "web", *PLAN, "kept", *SLEEP)
    bulkhead.cli("snapshot", "create", "web", "s")
    assert "web/s" in refused(bulkhead, "image", "rm", "kept")
    bulkhead.cli("rm", "-f", "web")
    bulkhead.cli("image", "rm", "kept")


@pytest.mark.parametrize(
    "name", ["", "a/b", "../../etc", "..", ".hidden", "-rf", "a" * 64, "a\nb", "a b", "%2e%2e", "ü"]
)
def test_names_that_are_none(bulkhead: Daemon, name: str) -> None:
    if state(bulkhead, "web") == "":
        bulkhead.cli("create", "--name", "web", *PLAN, "busybox", *SLEEP)
    before = snapshot_files(bulkhead)
    assert "Error" in refused(bulkhead, "snapshot", "create", "--", "web", name)
    for words in (("restore",), ("rm",)):
        refused(bulkhead, "snapshot", *words, "--", "web", name)
    refused(bulkhead, "create", "--from", f"web/{name}")
    answer = bulkhead.api("POST", "/v1/instances/web/snapshots", {"name": name})
    assert answer.status in (200, 422) and (answer.status == 422 or "problem" in str(answer.body))
    assert snapshot_files(bulkhead) == before and names(bulkhead) == []
    bulkhead.cli("rm", "-f", "web")


def test_two_at_once(bulkhead: Daemon) -> None:
    run(bulkhead, "web", *PLAN, "busybox", *SLEEP)
    put(bulkhead, "web", "x")
    codes: list[int] = []

    def make(name: str) -> None:
        codes.append(bulkhead.cli("snapshot", "create", "web", name, check=False).returncode)

    threads = [threading.Thread(target=make, args=(name,)) for name in ("a", "b", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 0, 0, 125]
    assert sorted(names(bulkhead)) == ["web/a", "web/b", "web/c"]

    def clone(name: str) -> None:
        codes.append(bulkhead.cli("run", "--rm", "--name", name, "--from", "web/a", "cat", "/file").returncode)

    threads = [threading.Thread(target=clone, args=(f"clone{number}",)) for number in range(3)]
    threads.append(threading.Thread(target=make, args=("d",)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes[4:] == [0] * 4
    bulkhead.cli("rm", "-f", "web")


def test_a_host_without_room_refuses_before_it_begins(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = with_image(make_daemon(), busybox_tar, "busybox")
    run(daemon, "web", *PLAN, "busybox", *SLEEP)
    daemon.cli("exec", "web", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=20")
    small = daemon.config.snapshots_dir
    daemon.sandbox.run("mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small))
    said = refused(daemon, "snapshot", "create", "web", "s")
    daemon.sandbox.run("umount", str(small))
    assert "left" in said and "hint: " in said
    assert names(daemon) == []
    put(daemon, "web", "goes on")
    daemon.cli("snapshot", "create", "web", "s")
    daemon.cli("rm", "-f", "web")


def test_a_frozen_disk_is_thawed_by_the_next_daemon(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = with_image(make_daemon(env={"BULKHEAD_CRASH_AT": "snapshot.copying"}), busybox_tar, "busybox")
    run(daemon, "web", *PLAN, "busybox", "sh", "-c", WRITER)
    assert daemon.cli("snapshot", "create", "web", "s", check=False).returncode != 0
    daemon.wait()
    daemon.start(env={"BULKHEAD_CRASH_AT": ""})
    before = int(read(daemon, "web", "/count"))
    until("it writes on", lambda: int(read(daemon, "web", "/count")) > before)
    assert "thawed" in daemon.log()
    assert names(daemon) == [] and snapshot_files(daemon) == []
    daemon.cli("snapshot", "create", "web", "s")
    daemon.cli("rm", "-f", "web")


# --- virtual machines


def test_the_disk_of_a_machine(vms: Daemon) -> None:
    run(vms, "guest", *VM, "busybox", *SLEEP)
    put(vms, "guest", "old")
    vms.cli("snapshot", "create", "guest", "before")
    assert state(vms, "guest") == "running"
    put(vms, "guest", "new")
    assert "own kernel" in refused(vms, "run", "--rm", "--from", "guest/before", "--isolation", "container", "true")
    assert "does not grow" in refused(vms, "create", "--from", "guest/before", "--disk", "128M")
    assert vms.cli("run", "--rm", "--from", "guest/before", "cat", "/file").stdout == "old\n"
    vms.cli("snapshot", "restore", "-f", "guest", "before")
    assert read(vms, "guest") == "old"
    vms.cli("pause", "guest")
    assert "unpause" in refused(vms, "snapshot", "create", "guest", "paused")
    vms.cli("rm", "-f", "guest")


def test_from_a_container_to_a_machine(vms: Daemon) -> None:
    run(vms, "box", *PLAN, "busybox", *SLEEP)
    put(vms, "box", "moved")
    vms.cli("snapshot", "create", "box", "s")
    said = vms.cli("run", "--rm", "--from", "box/s", "--isolation", "vm", "--memory", "128M", "cat", "/file").stdout
    assert said == "moved\n"
    put(vms, "box", "still")
    vms.cli("rm", "-f", "box")
