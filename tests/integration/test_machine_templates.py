"""Virtual machines that go on from a template: what is new in each of them, and what becomes of the templates."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.boot.templates import RAM
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout

PATIENCE = 60.0
SIZE = ("--memory", "128M", "--cpus", "1", "--disk", "64M")
IDENTITY = "head -c 16 /dev/urandom | od -An -tx1; date +%s; hostname; cat /sys/class/net/eth0/address; ip -4 -o addr"


@pytest.fixture(scope="module")
def vms(module_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """The daemon with an image and a kernel, and a template of SIZE with a network."""
    module_daemon.cli("image", "import", busybox_tar, "vm-busybox")
    module_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    run(module_daemon, "--rm", "vm-busybox", "true")
    until(lambda: templates(module_daemon))
    yield module_daemon


def run(daemon: Daemon, *arguments: str) -> str:
    """A VM of the small image."""
    return daemon.cli("run", "--isolation", "vm", *SIZE, *arguments).stdout


def templates(daemon: Daemon) -> list[Path]:
    """Those on disk."""
    return [path.parent for path in (daemon.config.cache_dir / "templates").glob("*/key.json")]


def until(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def hypervisor(daemon: Daemon, name: str) -> int:
    """The pid of an instance's QEMU."""
    return int(daemon.json("inspect", name)[0]["pid"])


def from_template(pid: int) -> bool:
    """Whether a QEMU was started to go on from a template."""
    return b"-incoming" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_two_clones_are_two_machines(vms: Daemon) -> None:
    """Random numbers, clock, name, hardware address and addresses are each one's own before its program starts."""
    for name in ("one", "two"):
        run(vms, "-d", "--name", name, "vm-busybox", "sh", "-c", f"{IDENTITY}; sleep 1000")
        assert from_template(hypervisor(vms, name))
    until(lambda: all("inet" in vms.cli("logs", name).stdout for name in ("one", "two")))
    said = {name: vms.cli("logs", name).stdout.splitlines() for name in ("one", "two")}
    assert said["one"][0] != said["two"][0], "both draw the same random numbers"
    for name in ("one", "two"):
        (row,) = vms.json("inspect", name)
        assert abs(int(said[name][1]) - time.time()) < PATIENCE
        assert said[name][2] == row["config"]["hostname"]
        assert said[name][3] == row["address"]["mac"]
        assert any(row["address"]["ipv4"] in line for line in said[name][4:])
    (other,) = vms.json("inspect", "two")
    vms.cli("exec", "one", "ping", "-c", "1", "-W", "20", other["address"]["ipv4"])


def test_a_guest_cannot_change_what_others_start_from(vms: Daemon) -> None:
    """Not even by its QEMU's own descriptor of the template's memory, and what one has written no other sees."""
    secret = "a-secret-of-the-first"
    run(vms, "-d", "--name", "first", "vm-busybox", "sh", "-c", f"echo {secret} > /dev/shm/it; sleep 1000")
    pid = hypervisor(vms, "first")
    memory, *_ = (path for path in Path(f"/proc/{pid}/fd").iterdir() if "memfd:ram" in str(path.readlink()))
    descriptor = os.open(memory, os.O_RDWR)
    try:
        for attempt in (lambda: os.pwrite(descriptor, b"x" * 4096, 0), lambda: os.ftruncate(descriptor, 0)):
            with pytest.raises(PermissionError):
                attempt()
        with open(descriptor, "rb", closefd=False) as file:
            assert secret.encode() not in file.read()
    finally:
        os.close(descriptor)
    (template,) = templates(vms)
    assert secret.encode() not in (template / RAM).read_bytes()
    assert (template / RAM).stat().st_mode & 0o077 == 0


def test_cold_on_request(vms: Daemon) -> None:
    run(vms, "-d", "--name", "cold", "--no-template", "vm-busybox", "sleep", "99")
    assert not from_template(hypervisor(vms, "cold"))
    refused = vms.cli("run", "--no-template", "vm-busybox", "true", check=False)
    assert refused.returncode == 125
    assert "no template to start from" in refused.stderr


def test_the_daemon_comes_back_to_its_templates(vms: Daemon) -> None:
    """After kill -9 those on disk serve on, machines run on, and one that is of no use any more goes."""
    run(vms, "-d", "--name", "kept", "vm-busybox", "sleep", "99")
    (template,) = templates(vms)
    vms.kill9()
    stale = template.with_name("0" * 32)
    stale.mkdir()
    (stale / RAM).write_bytes(b"half of one")
    vms.start()
    assert vms.cli("exec", "kept", "echo", "there").stdout == "there\n"
    assert templates(vms) == [template]
    assert not stale.exists()
    run(vms, "-d", "--name", "next", "vm-busybox", "sleep", "99")
    assert from_template(hypervisor(vms, "next"))


def test_a_crash_while_one_is_made_leaves_nothing(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = make_daemon(strange=True)
    daemon.cli("image", "import", busybox_tar, "vm-busybox")
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    words = (
        "run",
        "-d",
        "--name",
        "by",
        "--isolation",
        "vm",
        *SIZE,
        "--network",
        "none",
        "vm-busybox",
        "sleep",
        "1000",
    )
    # Beside it: the template may be made before the command has returned.
    starting = threading.Thread(target=lambda: daemon.cli(*words, check=False))
    starting.start()
    until(lambda: list((daemon.config.cache_dir / "templates" / "work").glob("*/ram")))
    until(lambda: list(daemon.config.instances_dir.glob("*/vm/qmp.sock")))
    daemon.kill9()
    starting.join()
    daemon.start()
    assert templates(daemon) == []
    assert [path.name for path in (daemon.config.cache_dir / "templates").glob("*/*") if path.is_dir()] == []
    assert len(list(daemon.config.instances_dir.iterdir())) == 1
    daemon.cli("rm", "-f", "by")
