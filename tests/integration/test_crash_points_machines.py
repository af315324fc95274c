"""The same crashes where instances are virtual machines, or run in one: the guests go on, and nothing stays in them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from bulkhead.engine.faults import POINTS
from tests.harness.daemon import Daemon
from tests.harness.heritage import Estate
from tests.harness.kernels import kernel_layout
from tests.integration.crashes import SERVE, WEB, ask, check_that_it_is_mended, operate
from tests.integration.lives import bequeathed, client, has_templates, state, until, with_image

pytestmark = pytest.mark.minutes(8)
MACHINE: dict[str, object] = {
    **WEB,
    "isolation": "vm",
    "plan": {"memory": 128 << 20, "cpus": 1, "disk": 64 << 20},
    "health": {"command": ["test", "-e", "/data/index.html"], "interval": 1},
}
MACHINE_POINTS = (
    *("start.volumes", "start.published", "start.launched", "start.running"),
    *("stop.begin", "stop.signalled", "pause.frozen"),
    *(point for point in POINTS if point.startswith(("unpause.", "exit.", "delete."))),
)
"""Those after which something is left, or missing, that only a VM has."""
HOME: dict[str, object] = {
    "image": "busybox",
    "name": "home",
    "isolation": "vm",
    "command": ["sleep", "100000"],
    "plan": {"memory": 256 << 20, "cpus": 1, "disk": 64 << 20},
}
WITHIN: dict[str, object] = {
    **{key: value for key, value in WEB.items() if key != "mounts"},
    "inside": "home",
    "plan": {"memory": 48 << 20, "cpus": 0.5, "disk": 64 << 20, "pids": 64},
    "command": ["sh", "-c", f"mkdir -p /data; {SERVE}"],
    "health": {"command": ["test", "-e", "/data/index.html"], "interval": 1},
}
WITHIN_POINTS = (
    *("create.reserved:2", "create.disk:2", "start.disk", "start.connected:2", "start.launched:2", "start.running:2"),
    *("stop.signalled", "pause.frozen", "update.enforced", "exit.saved", "delete.driver", "delete.disk"),
)
"""Those after which something is left in the VM, or missing there; what the VM itself passes first counts as well."""
ALONE_POINTS = ("create.reserved", "create.done", "start.machine", "start.launched:2", "exit.disk", "delete.machine")
"""The same of an instance with a VM of its own."""
ALONE: dict[str, object] = {**WITHIN, "inside": "new"}


@pytest.fixture(scope="module")
def estate(busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    """An image, a kernel, and templates of the machines here: each is booted once, not by every test."""
    with bequeathed(tmp_path_factory.mktemp("estate")) as (daemon, estate):
        daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
        with_image(daemon, busybox_tar, "busybox")
        for count, body in enumerate((MACHINE, HOME, ALONE), 1):
            ask(daemon, "POST", "instances", body)
            ask(daemon, "POST", f"instances/{body['name']}/start")
            until("its template is made", partial(has_templates, daemon, count))
            ask(daemon, "DELETE", f"instances/{body['name']}?force=true")
    return estate


@pytest.mark.parametrize("point", MACHINE_POINTS)
def test_a_daemon_with_a_machine_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], estate: Estate, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2, estate=estate)
    operation = point.partition(".")[0]
    with suppress(ConnectionError, HTTPException):
        operate(daemon, operation, MACHINE)
    check_that_it_is_mended(daemon, operation, MACHINE)


def test_a_daemon_killed_while_a_machine_boots(make_daemon: Callable[..., Daemon], estate: Estate) -> None:
    """Its hypervisor runs, and nothing of the workload does yet."""
    daemon = make_daemon(disk_pool=2, network_pool=2, estate=estate)
    ask(daemon, "POST", "instances", {**MACHINE, "cold": True})
    with client(daemon, "start", "web"):
        until("it boots", lambda: hypervisors(daemon))
        os.kill(daemon.pid, signal.SIGKILL)
        check_that_it_is_mended(daemon, "start", MACHINE)


def hypervisors(daemon: Daemon) -> list[int]:
    """Pids of the QEMUs that have been executed below the daemon's sandbox."""
    found = []
    for pid in daemon.sandbox.processes():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
                found.append(pid)
    return found


@pytest.mark.parametrize("point", WITHIN_POINTS)
def test_a_daemon_with_an_instance_in_a_machine_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], estate: Estate, point: str
) -> None:
    """The machine goes on, and nothing of a start that was cut off stays in it."""
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2, estate=estate)
    ask(daemon, "POST", "instances", HOME)
    ask(daemon, "POST", "instances/home/start")
    with suppress(ConnectionError, HTTPException):
        operate(daemon, point.partition(".")[0], WITHIN)
    check_that_it_is_mended(daemon, point.partition(".")[0], WITHIN)
    assert state(daemon, "home") == "running"
    left = "ls /sys/class/virtio-ports; ls -d /sys/fs/cgroup/bulkhead/*/"
    found = daemon.cli("exec", "home", "sh", "-c", left).stdout.split()
    assert len(found) == 2, "the machine's own port and cgroup, and no other"


@pytest.mark.parametrize("point", ALONE_POINTS)
def test_a_daemon_with_an_instance_in_a_machine_of_its_own_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], estate: Estate, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2, estate=estate)
    with suppress(ConnectionError, HTTPException):
        operate(daemon, point.partition(".")[0], ALONE)
    check_that_it_is_mended(daemon, point.partition(".")[0], ALONE)
    assert daemon.api("GET", "/v1/instances").body == []
