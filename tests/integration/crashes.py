"""What the tests of crashes share: a workload, what passes the daemon's crash points, what is true afterwards."""

from __future__ import annotations

import signal
from contextlib import suppress

from bulkhead.host import cgroups
from tests.harness.daemon import Daemon
from tests.integration.lives import state, until

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
