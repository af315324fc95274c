"""The daemon is killed at each of its crash points: the next one mends everything in one pass."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from bulkhead.engine.faults import POINTS
from bulkhead.host import cgroups
from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.integration.lives import client, state, until, with_image

CALM = {"BULKHEAD_CRASH_AT": ""}
SERVE = (
    "trap 'exit 3' TERM; rm -f /tmp/end; echo hello > /data/index.html; httpd -p 80 -h /data; "
    "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 7"
)
END = "until [ -e /data/index.html ]; do sleep 0.05; done; touch /tmp/end"
"""Not before the workload has removed an older one: a machine's begins a while after its start."""
WEB: dict[str, object] = {
    "image": "busybox",
    "name": "web",
    "plan": {"memory": 64 << 20, "cpus": 1, "disk": 64 << 20},
    "command": ["sh", "-c", SERVE],
    "ports": [{"host_port": 8080, "port": 80}],
    "mounts": [{"kind": "volume", "source": "data", "target": "/data"}],
    "health": {"command": ["test", "-e", "/data/index.html"], "interval": 0.1},
}
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
REMOVED = ["exit.begin", *(point for point in POINTS if point.startswith("delete."))]
"""What an instance passes that is removed when it ends."""

ENDS = {
    "create": {"", "created"},
    "start": {"created", "running"},
    "stop": {"running", "exited"},
    "pause": {"running", "paused"},
    "unpause": {"running", "paused"},
    "update": {"running"},
    "exit": {"exited"},
    "delete": {"", "created"},
    "removed": {""},
    "snapshot": {"running"},
    "clone": {"running"},
    "restore": {"running", "exited"},
    "unsnapshot": {"running"},
}
"""The states that an instance may be in after the recovery: that before the operation, or that after it."""


def ask(daemon: Daemon, method: str, path: str, body: object = None) -> None:
    """A request that succeeds."""
    answer = daemon.api(method, f"/v1/{path}", body)
    assert answer.status < 300, answer


def operate(daemon: Daemon, operation: str, web: dict[str, object]) -> None:
    """Do what passes the points whose names begin with `operation`. The daemon dies of the last request, or after."""
    if operation == "create":
        ask(daemon, "POST", "instances", web)
        return
    ask(daemon, "POST", "instances", {**web, "auto_remove": operation == "removed"})
    if operation == "start":
        ask(daemon, "POST", "instances/web/start")
        return
    if operation == "delete":
        if "inside" not in web:
            ask(daemon, "POST", "instances/web/snapshots", {"name": "first"})
        ask(daemon, "DELETE", "instances/web")
        return
    ask(daemon, "POST", "instances/web/start")
    if operation in ("pause", "unpause"):
        ask(daemon, "POST", "instances/web/pause")
        ask(daemon, "POST", "instances/web/unpause")
    elif operation in ("snapshot", "clone", "restore", "unsnapshot"):
        operate_on_snapshots(daemon, operation)
    elif operation == "update":
        ask(daemon, "PATCH", "instances/web", {"plan": {"pids": 99}})
    elif operation == "stop":
        ask(daemon, "POST", "instances/web/stop")
    else:
        ask(daemon, "POST", "instances/web/exec", {"command": ["sh", "-c", END], "detach": True})


def operate_on_snapshots(daemon: Daemon, operation: str) -> None:
    """The same for the snapshots of an instance that runs."""
    ask(daemon, "POST", "instances/web/snapshots", {"name": "first"})
    if operation == "clone":
        ask(daemon, "POST", "instances", {"snapshot": "web/first", "name": "clone", "mounts": []})
    elif operation == "restore":
        ask(daemon, "POST", "instances/web/snapshots/first/restore", {"force": True})
    elif operation == "unsnapshot":
        ask(daemon, "DELETE", "instances/web/snapshots/first")


def check_snapshots(daemon: Daemon) -> None:
    """Those that are told of are whole, and there is nothing else."""
    told = daemon.json("snapshot", "ls", "--format", "json")
    assert {one["id"] for one in told} == {entry.name for entry in daemon.config.snapshots_dir.iterdir()}
    for one in told:
        made = daemon.cli("run", "--rm", "--from", f"web/{one['name']}", "test", "-e", "/bin/sh", check=False)
        assert made.returncode == 0, made
    assert state(daemon, "clone") == ""
    assert not list(daemon.config.instances_dir.glob("*/*.new"))


def check_that_it_was_updated(daemon: Daemon, web: dict[str, object]) -> None:
    """What was under way has been carried out, in the record and in the cgroup."""
    spec = daemon.api("GET", "/v1/instances/web").body["spec"]
    assert spec["plan"]["pids"] == 99
    assert not (daemon.config.instances_dir / spec["id"] / "update.json").exists()
    if "inside" in web:
        assert daemon.cli("exec", "web", "cat", "/sys/fs/cgroup/pids.max").stdout == "99\n"
        return
    layout = cgroups.detect()
    assert (layout.path("pids", f"{daemon.config.cgroup}/{spec['id']}") / "pids.max").read_text() == "99\n"


def answers(daemon: Daemon) -> bool:
    """From outside. In a guest its server begins a while after its start."""
    assert daemon.outside
    with suppress(ConnectionRefusedError):
        return daemon.outside.fetch(8080, timeout=60.0) == (200, b"hello\n")
    return False


def check_that_it_works(daemon: Daemon, web: dict[str, object]) -> None:
    """Start it, made anew if it is gone: its name, its port and its volume are free. Then remove it."""
    assert daemon.outside
    if not state(daemon, "web"):
        ask(daemon, "POST", "instances", web)
    if state(daemon, "web") == "paused":
        ask(daemon, "POST", "instances/web/unpause")
    if state(daemon, "web") != "running":
        ask(daemon, "POST", "instances/web/start")
    until("it answers", lambda: answers(daemon))
    assert daemon.cli("exec", "web", "cat", "/data/index.html").stdout == "hello\n"
    until("healthy", lambda: daemon.api("GET", "/v1/instances/web").body["health"] == "healthy")
    ask(daemon, "DELETE", "instances/web?force=true")
    if "mounts" in web:
        ask(daemon, "DELETE", "volumes/data")


@pytest.mark.parametrize(
    ("point", "operation"),
    [*((point, point.partition(".")[0]) for point in POINTS), *((point, "removed") for point in REMOVED)],
)
def test_a_daemon_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str, operation: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2)
    with_image(daemon, busybox_tar, "busybox")
    with suppress(ConnectionError, HTTPException):
        operate(daemon, operation, WEB)
    check_that_it_is_mended(daemon, operation, WEB)


def check_that_it_is_mended(daemon: Daemon, operation: str, web: dict[str, object]) -> None:
    """A daemon that has killed itself, or is about to."""
    assert daemon.wait() == -signal.SIGKILL
    daemon.start(env=CALM)
    assert state(daemon, "web") in ENDS[operation]
    assert "could not repair" not in daemon.log()
    if operation == "update":
        check_that_it_was_updated(daemon, web)
    check_snapshots(daemon)
    check_that_it_works(daemon, web)
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("point", MACHINE_POINTS)
def test_a_daemon_with_a_machine_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2)
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(daemon, busybox_tar, "busybox")
    operation = point.partition(".")[0]
    with suppress(ConnectionError, HTTPException):
        operate(daemon, operation, MACHINE)
    check_that_it_is_mended(daemon, operation, MACHINE)


def test_a_daemon_killed_while_a_machine_boots(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    """Its hypervisor runs, and nothing of the workload does yet."""
    daemon = make_daemon(disk_pool=2, network_pool=2)
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(daemon, busybox_tar, "busybox")
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


@pytest.mark.parametrize("point", ["create.disk", "start.layers", "start.launched", "start.running", "stop.signalled"])
def test_a_daemon_with_a_unikernel_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], tmp_path: Path, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2)
    daemon.cli("image", "import", "--unikernel", unikernels.banner(tmp_path), "others/pvh")
    plan = {"memory": 8 << 20, "cpus": 1, "disk": 16 << 20}
    asked = {"name": "web", "image": "others/pvh", "isolation": "unikernel", "plan": plan, "stop_timeout": 1}
    operation = point.partition(".")[0]
    with suppress(ConnectionError, HTTPException):
        operate(daemon, operation, asked)
    assert daemon.wait() == -signal.SIGKILL
    daemon.start(env=CALM)
    assert "could not repair" not in daemon.log()
    assert state(daemon, "web") in ENDS[operation]
    if not state(daemon, "web"):
        ask(daemon, "POST", "instances", asked)
    if state(daemon, "web") != "running":
        ask(daemon, "POST", "instances/web/start")
    until("its banner", lambda: unikernels.SAYS in daemon.cli("logs", "web").stdout)
    ask(daemon, "DELETE", "instances/web?force=true")


@pytest.mark.parametrize("point", WITHIN_POINTS)
def test_a_daemon_with_an_instance_in_a_machine_killed_there_is_mended(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str
) -> None:
    """The machine goes on, and nothing of a start that was cut off stays in it."""
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2)
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(daemon, busybox_tar, "busybox")
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
    make_daemon: Callable[..., Daemon], busybox_tar: Path, point: str
) -> None:
    daemon = make_daemon(env={"BULKHEAD_CRASH_AT": point}, disk_pool=2, network_pool=2)
    daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(daemon, busybox_tar, "busybox")
    alone = {**WITHIN, "inside": "new"}
    with suppress(ConnectionError, HTTPException):
        operate(daemon, point.partition(".")[0], alone)
    check_that_it_is_mended(daemon, point.partition(".")[0], alone)
    assert daemon.api("GET", "/v1/instances").body == []
