"""Virtual machines through the daemon and the command line: the same verbs as for a container."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout

PATIENCE = 60.0
SERVER = """mkdir -p /w; echo hello > /w/index.html; trap 'echo bye; exit 7' TERM; echo ready
httpd -h /w; sleep 1000 & wait"""
SIZE = ("--memory", "128M", "--cpus", "1", "--disk", "64M")


@pytest.fixture
def vms(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """The daemon with an image and a kernel."""
    if "vm-busybox" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", busybox_tar, "vm-busybox")
        shared_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    return shared_daemon


def run(daemon: Daemon, *arguments: str | Path, **options: object) -> str:
    """A VM of the small image."""
    return daemon.cli("run", "--isolation", "vm", *SIZE, *arguments, **options).stdout  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def state(daemon: Daemon, name: str) -> str:
    """As inspect tells it."""
    return str(daemon.json("inspect", name)[0]["state"])


def test_inspect_tells_the_kernel(vms: Daemon) -> None:
    run(vms, "-d", "--name", "guest", "--network", "none", "vm-busybox", "sleep", "1000")
    kernel = vms.json("inspect", "guest")[0]["kernel"]
    assert kernel["name"] == "kernel/debian:latest"
    assert kernel["digest"] == vms.json("image", "inspect", "kernel/debian")[0]["Id"]
    assert vms.cli("exec", "guest", "uname", "-r").stdout == f"{kernel['release']}\n"
    vms.cli("stop", "-t", "0", "guest")
    assert vms.json("inspect", "guest")[0]["kernel"] == kernel, "what it would be started with"
    vms.cli("create", "--name", "box", "--network", "none", "vm-busybox", "true")
    assert vms.json("inspect", "box")[0]["kernel"] is None


def test_a_command_and_its_end(vms: Daemon) -> None:
    said = run(vms, "--rm", "--network", "none", "vm-busybox", "sh", "-c", "id -u; nproc; cat /proc/1/comm; uname -r")
    user, processors, first, release = said.split()
    assert (user, processors, first) == ("0", "1", "sh")
    assert release != os.uname().release, "it has the host's kernel"
    for code, command in ((9, ("sh", "-c", "exit 9")), (127, ("/no/such",)), (126, ("/etc/passwd",))):
        done = vms.cli(
            "run", "--rm", "--isolation", "vm", *SIZE, "--network", "none", "vm-busybox", *command, check=False
        )
        assert done.returncode == code, done.stderr


def test_a_life(vms: Daemon, tmp_path: Path) -> None:
    """Network, files, commands, a daemon that is killed meanwhile, the end and a second start."""
    run(vms, "-d", "--name", "web", "vm-busybox", "sh", "-c", SERVER)
    vms.cli("run", "-d", "--name", "beside", "vm-busybox", "sleep", "1000")
    until(lambda: "ready" in vms.cli("logs", "web").stdout)
    (address,) = (row["address"] for row in vms.json("inspect", "web"))
    assert "hello" in vms.cli("exec", "beside", "wget", "-qO-", f"http://{address['ipv4']}/index.html").stdout
    assert address["ipv4"] in vms.cli("exec", "web", "nslookup", "web").stdout
    assert vms.cli("exec", "-i", "web", "sh", "-c", "cat > /file; exit 0", stdin="through\n").returncode == 0
    vms.cli("cp", "web:/file", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "through\n"
    (row,) = (row for row in vms.json("stats", "--no-stream", "--format", "json") if row["name"] == "web")
    assert row["memory"] > 0
    vms.kill9()
    vms.start()
    assert state(vms, "web") == "running"
    assert "through" in vms.cli("exec", "web", "cat", "/file").stdout
    vms.cli("stop", "web")
    assert vms.json("inspect", "web")[0]["exit"]["code"] == 7
    assert "bye" in vms.cli("logs", "web").stdout
    vms.cli("cp", "web:/file", tmp_path / "again")
    assert (tmp_path / "again").read_text() == "through\n"
    vms.cli("start", "web")
    assert "through" in vms.cli("exec", "web", "cat", "/file").stdout
    vms.cli("rm", "-f", "web", "beside")


def test_a_hypervisor_that_dies_is_told(vms: Daemon) -> None:
    run(vms, "-d", "--name", "dies", "--network", "none", "vm-busybox", "sleep", "1000")
    os.kill(vms.json("inspect", "dies")[0]["pid"], signal.SIGKILL)
    until(lambda: state(vms, "dies") == "exited")
    ended = vms.json("inspect", "dies")[0]["exit"]
    assert ended["code"] == 255
    assert ended["error"]
    vms.cli("rm", "dies")


def test_what_a_guest_has_written_is_not_mounted(vms: Daemon) -> None:
    run(vms, "-d", "--name", "owner", "--network", "none", "-v", "foreign:/data", "vm-busybox", "sleep", "1000")
    busy = vms.cli("run", "--rm", "-v", "foreign:/data", "vm-busybox", "true", check=False)
    assert "in use by owner" in busy.stderr
    vms.cli("exec", "owner", "sh", "-c", "echo kept > /data/file; sync")
    vms.cli("rm", "-f", "owner")
    refused = vms.cli("run", "--rm", "-v", "foreign:/data", "vm-busybox", "true", check=False)
    assert "virtual machine's own kernel" in refused.stderr
    again = run(vms, "--rm", "--network", "none", "-v", "foreign:/data", "vm-busybox", "cat", "/data/file")
    assert again == "kept\n"
    vms.cli("volume", "rm", "foreign")


def test_what_a_machine_cannot_do_is_refused_at_once(vms: Daemon) -> None:
    done = vms.cli(
        *("create", "--isolation", "vm", "--network", "host", "-v", "/etc:/x", "--kernel", "kernel/none"),
        *("vm-busybox", "true"),
        check=False,
    )
    assert done.returncode == 125
    for words in ("/etc", "network", "kernel/none"):
        assert words in done.stderr
