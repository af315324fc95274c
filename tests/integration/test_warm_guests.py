"""Guests that are kept warm: what an instance finds in one, what is its own, and what becomes of those nobody takes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.heritage import Estate
from tests.harness.kernels import kernel_layout
from tests.integration.lives import bequeathed, has_templates, until

PATIENCE = 120.0
SIZE = ("--memory", "128M", "--cpus", "1", "--disk", "64M")
LAST = "trap 'exit 3' TERM; sleep 1000 & wait"
IDENTITY = f"head -c 16 /dev/urandom | od -An -tx1; date +%s; hostname; ip addr show eth0; echo said; {LAST}"


@pytest.fixture(scope="module")
def estate(busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    """An image, a kernel, and the template that guests of SIZE are started from."""
    with bequeathed(tmp_path_factory.mktemp("estate")) as (daemon, estate):
        daemon.cli("image", "import", busybox_tar, "vm-busybox")
        daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
        run(daemon, "--rm", "vm-busybox", "true")
        until("its template is made", partial(has_templates, daemon, 1))
    return estate


@pytest.fixture
def warm(make_daemon: Callable[..., Daemon], estate: Estate) -> Daemon:
    """A daemon in which a guest of SIZE waits."""
    daemon = make_daemon(warm_memory=128 << 20, estate=estate)
    run(daemon, "--rm", "vm-busybox", "true")
    one_waits(daemon)
    return daemon


def run(daemon: Daemon, *arguments: str, check: bool = True) -> str:
    """A VM of the small image."""
    return daemon.cli("run", "--isolation", "vm", *SIZE, *arguments, check=check).stdout


def waiting(daemon: Daemon) -> list[str]:
    """Ids of bundles without a record whose guests are warm: they have nothing to rehearse with any more."""
    known = {row["spec"]["id"] for row in daemon.json("ps", "-a", "--format", "json")}
    found = [path for path in daemon.config.instances_dir.iterdir() if path.name not in known]
    return [path.name for path in found if (path / "vm/agent.sock").exists() and not (path / "rehearsal.img").exists()]


def one_waits(daemon: Daemon) -> str:
    """The id of the guest that waits, once the one from before is taken and there is another."""
    deadline = time.monotonic() + PATIENCE
    while len(found := waiting(daemon)) != 1 or "is warm after" not in daemon.log():
        assert time.monotonic() < deadline, "no guest became warm"
        time.sleep(0.1)
    return found[0]


def said(daemon: Daemon, name: str) -> list[str]:
    """An instance's log, once it has said all."""
    deadline = time.monotonic() + PATIENCE
    while "said" not in (text := daemon.cli("logs", name).stdout):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text.splitlines()


def row_of(daemon: Daemon, name: str) -> dict[str, object]:
    """What inspect tells."""
    (row,) = daemon.json("inspect", name)
    return dict(row)


def test_instances_in_warm_guests_are_their_own(warm: Daemon) -> None:
    """Each has the id of its guest, and name, addresses, clock and randomness of its own; its disk is kept."""
    drawn = []
    for name in ("one", "two"):
        identifier = one_waits(warm)
        run(warm, "-d", "--name", name, "vm-busybox", "sh", "-c", IDENTITY)
        row = row_of(warm, name)
        assert row["id"] == identifier
        lines = said(warm, name)
        drawn.append(lines[0])
        assert abs(int(lines[1]) - time.time()) < PATIENCE
        assert lines[2] == identifier[:12]
        address = row["address"]
        assert isinstance(address, dict)
        assert any(address["mac"] in line for line in lines)
        assert sum("inet " in line for line in lines) == 1
        assert any(address["ipv4"] in line for line in lines)
    assert drawn[0] != drawn[1]
    other = row_of(warm, "two")["address"]
    assert isinstance(other, dict)
    warm.cli("exec", "one", "ping", "-c", "1", "-W", "20", other["ipv4"])
    # The files are the image's and the instance's own, and nothing is left of what was rehearsed with.
    assert warm.cli("exec", "one", "sh", "-c", "ls /true 2>&1; echo kept > /data; sync").stdout.count("No such") == 1
    warm.cli("stop", "one")
    assert row_of(warm, "one")["exit"]["code"] == 3  # type: ignore[index]
    warm.cli("start", "one")
    assert warm.cli("exec", "one", "cat", "/data").stdout == "kept\n"


def test_a_plan_holds_in_a_warm_guest(warm: Daemon) -> None:
    """Limits that were not there when it was made: of the disk, the network, the processor."""
    identifier = one_waits(warm)
    limits = ("--iops", "100", "--bandwidth", "8M", "--pids", "20", "--ghz", "0.5")
    run(warm, "-d", "--name", "held", *limits, "vm-busybox", "sh", "-c", LAST)
    assert row_of(warm, "held")["id"] == identifier
    began = time.monotonic()
    warm.cli("exec", "held", "sh", "-c", "for i in $(seq 300); do dd if=/dev/zero of=/f bs=4k count=1 conv=fsync; done")
    assert time.monotonic() - began > 2
    assert (
        "Resource temporarily"
        in warm.cli("exec", "held", "sh", "-c", "for i in $(seq 40); do sleep 9 & done 2>&1", check=False).stdout
        + warm.cli("exec", "held", "sh", "-c", "for i in $(seq 40); do sleep 9 & done", check=False).stderr
    )


def test_others_start_as_ever(warm: Daemon) -> None:
    """Another size, volumes, --no-template, and a create that no start follows leave the one that waits alone."""
    identifier = one_waits(warm)
    run(warm, "--rm", "-v", "data:/data", "vm-busybox", "true")
    run(warm, "--rm", "--no-template", "vm-busybox", "true")
    warm.cli("create", "--name", "later", "--isolation", "vm", *SIZE, "vm-busybox", "true")
    assert waiting(warm) == [identifier]
    assert row_of(warm, "later")["id"] != identifier


def test_one_that_has_ended_is_not_missed(warm: Daemon) -> None:
    identifier = one_waits(warm)
    (qemu,) = [int(path.name) for path in Path("/proc").glob("[0-9]*") if runs_in(path, identifier)]
    os.kill(qemu, signal.SIGKILL)
    exit_file = warm.config.instances_dir / identifier / "exit.json"
    deadline = time.monotonic() + PATIENCE
    while not exit_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run(warm, "--rm", "vm-busybox", "echo", "there") == "there\n"
    assert one_waits(warm) != identifier


def runs_in(process: Path, identifier: str) -> bool:
    """Whether it is the hypervisor of a bundle: its sockets' directory is that bundle's."""
    try:
        program, mounts = (process / "comm").read_text(), (process / "mountinfo").read_text()
    except OSError:
        return False
    return program.startswith("qemu") and f"/instances/{identifier}/vm " in mounts


def test_a_failed_start_leaves_nothing(warm: Daemon) -> None:
    one_waits(warm)
    failed = warm.cli("run", "--isolation", "vm", *SIZE, "--name", "no", "vm-busybox", "/no/such/program", check=False)
    assert failed.returncode == 127
    assert warm.json("ps", "-a", "--format", "json") == []


@pytest.mark.parametrize("point", ["", "create.reserved", "create.spec", "start.named", "start.launched"])
def test_a_crash_ends_those_that_wait(warm: Daemon, point: str) -> None:
    """With the daemon killed at rest, or while an instance takes one, the next leaves nothing of it."""
    identifier = one_waits(warm)
    if point:
        warm.restart(env={"BULKHEAD_CRASH_AT": f"{point}:2"})
        run(warm, "--rm", "vm-busybox", "true")
        identifier = one_waits(warm)
        run(warm, "--rm", "vm-busybox", "true", check=False)
        warm.wait()
        warm.start(env={"BULKHEAD_CRASH_AT": ""})
    else:
        warm.kill9()
        warm.start()
    left = (warm.config.instances_dir / identifier).exists()
    assert left == (row_by_id(warm, identifier) == "created")
    for row in warm.json("ps", "-a", "--format", "json"):
        warm.cli("rm", "-f", row["spec"]["id"])
    assert run(warm, "--rm", "vm-busybox", "echo", "there") == "there\n"


def row_by_id(daemon: Daemon, identifier: str) -> str:
    return str({row["spec"]["id"]: row["state"] for row in daemon.json("ps", "-a", "--format", "json")}.get(identifier))
