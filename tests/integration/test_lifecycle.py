"""The life of instances through the command line: every verb, and what is told of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkhead.host import cgroups
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, client, state, until, with_image

LOOP = "trap 'exit 5' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def run(daemon: Daemon, name: str, script: str, *options: str, wall: str = "container") -> None:
    """Run a shell script detached; returns when it has said "ready"."""
    daemon.cli("run", "-d", "--name", name, "--isolation", wall, *PLAN, *options, "busybox", "sh", "-c", script)
    until(f"{name} is ready", lambda: "ready" in daemon.cli("logs", name).stdout)


def actions(daemon: Daemon, name: str) -> list[str]:
    """What the events tell of an instance."""
    lines = map(json.loads, daemon.cli("events", "--format", "json").stdout.splitlines())
    return [event["action"] for event in lines if event["name"] == name]


@WALLS
def test_every_verb_in_turn(bulkhead: Daemon, wall: str) -> None:
    name = f"turn-{wall}"
    bulkhead.cli("create", "--name", name, "--isolation", wall, *PLAN, "busybox", "sh", "-c", LOOP)
    assert state(bulkhead, name) == "created"
    bulkhead.cli("start", name)
    assert state(bulkhead, name) == "running"
    until("its traps are set", lambda: "ready" in bulkhead.cli("logs", name).stdout)
    bulkhead.cli("stop", name)
    assert state(bulkhead, name) == "exited"
    assert bulkhead.cli("wait", name).stdout == "5\n"
    bulkhead.cli("start", name)
    first = bulkhead.json("inspect", name)[0]["pid"]
    bulkhead.cli("restart", name)
    assert bulkhead.json("inspect", name)[0]["pid"] not in (0, first)
    bulkhead.cli("kill", name)
    assert bulkhead.json("inspect", name)[0]["exit"]["code"] == 137
    bulkhead.cli("rm", name)
    assert state(bulkhead, name) == ""
    assert actions(bulkhead, name) == ["create", *["start", "exit"] * 3, "remove"]


@WALLS
def test_a_workload_that_ignores_term_is_killed_after_the_timeout(bulkhead: Daemon, wall: str) -> None:
    run(bulkhead, f"deaf-{wall}", DEAF, wall=wall)
    bulkhead.cli("stop", "-t", "0.2", f"deaf-{wall}")
    told = bulkhead.json("inspect", f"deaf-{wall}")[0]["exit"]
    assert (told["code"], told["signal"], told["oom"]) == (137, 9, False)


def test_signals_reach_the_first_process(bulkhead: Daemon) -> None:
    run(bulkhead, "signalled", LOOP)
    bulkhead.cli("kill", "-s", "USR1", "signalled")
    until("it says so", lambda: "usr1" in bulkhead.cli("logs", "signalled").stdout)
    assert state(bulkhead, "signalled") == "running"


def test_the_stop_signal_is_the_one_that_was_asked_for(bulkhead: Daemon) -> None:
    run(bulkhead, "int", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done", "--stop-signal", "INT")
    bulkhead.cli("stop", "int")
    assert bulkhead.cli("wait", "int").stdout == "9\n"


def test_wait_prints_the_codes_of_all_in_order(bulkhead: Daemon) -> None:
    for code in (3, 0, 7):
        bulkhead.cli("run", "-d", "--name", f"code-{code}", *PLAN, "busybox", "sh", "-c", f"exit {code}")
    assert bulkhead.cli("wait", "code-3", "code-0", "code-7").stdout.split() == ["3", "0", "7"]


def test_only_force_removes_what_runs(bulkhead: Daemon) -> None:
    run(bulkhead, "busy", DEAF)
    done = bulkhead.cli("rm", "busy", check=False)
    assert done.returncode == 125
    assert "busy is running" in done.stderr
    assert "rm -f" in done.stderr
    bulkhead.cli("rm", "-f", "busy")
    assert state(bulkhead, "busy") == ""


@WALLS
@pytest.mark.parametrize("command", ["sleep 1000", "true"])
def test_force_removes_at_any_moment(bulkhead: Daemon, wall: str, command: str) -> None:
    """Just started, about to end by itself, or ended."""
    request = {"image": "busybox", "isolation": wall, "command": command.split(), "plan": {"memory": 32 << 20}}
    for _ in range(10):
        made = bulkhead.api("POST", "/v1/instances?start=true", request)
        assert made.status == 201, made
        gone = bulkhead.api("DELETE", f"/v1/instances/{made.body['spec']['id']}?force=true")
        assert gone.status == 200, gone
    assert list(bulkhead.config.instances_dir.iterdir()) == []


@WALLS
def test_rm_leaves_nothing_of_a_run(bulkhead: Daemon, wall: str) -> None:
    done = bulkhead.cli("run", "--rm", "--isolation", wall, *PLAN, "busybox", "sh", "-c", "echo x; exit 4", check=False)
    assert (done.returncode, done.stdout) == (4, "x\n")
    bulkhead.cli("run", "-d", "--rm", "--name", "brief", "--isolation", wall, *PLAN, "busybox", "true")
    until("it is gone", lambda: state(bulkhead, "brief") == "")
    bulkhead.cli("run", "-d", "--rm", "--name", "forced", "--isolation", wall, *PLAN, "busybox", "sleep", "1000")
    bulkhead.cli("rm", "-f", "forced")
    assert state(bulkhead, "forced") == ""
    assert list(bulkhead.config.instances_dir.iterdir()) == []


@WALLS
def test_out_of_memory_is_told(bulkhead: Daemon, wall: str) -> None:
    name = f"hungry-{wall}"
    plan = ("--memory", "32M", "--cpus", "1", "--disk", "64M")
    bulkhead.cli("run", "-d", "--name", name, "--isolation", wall, *plan, "busybox", "tail", "/dev/zero")
    assert bulkhead.cli("wait", name).stdout == "137\n"
    told = bulkhead.json("inspect", name)[0]["exit"]
    assert (told["signal"], told["oom"]) == (9, True)
    events = map(json.loads, bulkhead.cli("events", "--format", "json").stdout.splitlines())
    (end,) = [event for event in events if event["name"] == name and event["action"] == "exit"]
    assert end["attributes"] == {"code": "137", "oom": "true"}
    assert "out of memory" in bulkhead.cli("ps", "-a").stdout


# --- changes while it runs


def limit(daemon: Daemon, name: str, controller: str, file: str) -> str:
    """A file of the instance's cgroup."""
    layout = cgroups.detect()
    group = f"{daemon.config.cgroup}/{daemon.json('inspect', name)[0]['id']}"
    return (layout.path(controller, group) / file).read_text().strip()


def test_update_changes_the_limits_of_a_running_instance(bulkhead: Daemon) -> None:
    version = cgroups.detect().version("memory")
    memory = "memory.limit_in_bytes" if version == 1 else "memory.max"
    run(bulkhead, "grown", LOOP)
    assert limit(bulkhead, "grown", "memory", memory) == str(64 << 20)
    bulkhead.cli("update", "--memory", "128M", "--cpus", "0.5", "--pids", "99", "--restart", "on-failure:4", "grown")
    assert limit(bulkhead, "grown", "memory", memory) == str(128 << 20)
    assert limit(bulkhead, "grown", "pids", "pids.max") == "99"
    told = bulkhead.json("inspect", "grown")[0]
    assert (told["plan"]["memory"], told["plan"]["cpus"], told["plan"]["pids"]) == (128 << 20, 0.5, 99)
    assert told["config"]["restart"] == {"kind": "on-failure", "retries": 4}
    bulkhead.cli("update", "--memory", "64M", "grown")
    assert limit(bulkhead, "grown", "memory", memory) == str(64 << 20)


def test_less_memory_than_is_in_use_is_refused(bulkhead: Daemon) -> None:
    """Whichever version of cgroups: the old plan stays, and so does what runs."""
    run(bulkhead, "full", "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; " + LOOP)
    done = bulkhead.cli("update", "--memory", "32M", "full", check=False)
    assert done.returncode == 125
    assert "the instance uses more than the new limit allows" in done.stderr
    told = bulkhead.json("inspect", "full")[0]
    assert (told["state"], told["plan"]["memory"]) == ("running", 64 << 20)
    bulkhead.cli("exec", "full", "rm", "/dev/shm/x")
    bulkhead.cli("update", "--memory", "32M", "full")
    assert bulkhead.json("inspect", "full")[0]["plan"]["memory"] == 32 << 20


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--memory", "1K", "--cpus", "5000"], ["memory", "cpus"]),
        (["--cpus", "1000"], ["1000"]),
        (["--memory", "much", "--pids", "0"], ["much", "--pids"]),
        ([], ["nothing to change"]),
    ],
)
def test_update_refuses_what_cannot_be(bulkhead: Daemon, changes: list[str], told: list[str]) -> None:
    run(bulkhead, "firm", LOOP)
    before = bulkhead.json("inspect", "firm")
    done = bulkhead.cli("update", *changes, "firm", check=False)
    assert done.returncode == 125
    assert [word for word in told if word not in done.stderr] == []
    assert bulkhead.json("inspect", "firm") == before


# --- looking


def test_stats_tell_what_it_uses(bulkhead: Daemon) -> None:
    run(bulkhead, "counted", "dd if=/dev/zero of=/file bs=1M count=8 2>/dev/null; sync; " + LOOP)
    (told,) = bulkhead.json("stats", "--no-stream", "--format", "json", "counted")
    assert 0 < told["memory"] <= told["memory_limit"] == 64 << 20
    assert told["pids"] >= 1
    assert told["pids_limit"] == 512
    assert 8 << 20 <= told["disk_used"] <= told["disk_size"]
    assert told["cpu_seconds"] > 0
    assert "counted" in bulkhead.cli("stats", "--no-stream").stdout


def names(daemon: Daemon, *options: str) -> set[str]:
    """Names that ps lists."""
    return {instance["spec"]["name"] for instance in daemon.json("ps", "--format", "json", *options)}


def test_ps_filters(bulkhead: Daemon) -> None:
    run(bulkhead, "alpha", LOOP, "--label", "tier=front", "--label", "blue")
    bulkhead.cli("create", "--name", "beta", "--isolation", "chroot", *PLAN, "busybox", "true")
    assert names(bulkhead) == {"alpha"}
    assert names(bulkhead, "-a") == {"alpha", "beta"}
    assert names(bulkhead, "-f", "state=created") == {"beta"}
    assert names(bulkhead, "-a", "-f", "label=tier=front") == {"alpha"}
    assert names(bulkhead, "-a", "-f", "label=tier=back") == set()
    assert names(bulkhead, "-a", "-f", "isolation=chroot", "-f", "name=bet") == {"beta"}
    identifier = bulkhead.json("inspect", "beta")[0]["id"]
    assert names(bulkhead, "-a", "-f", f"id={identifier[:8]}") == {"beta"}
    assert bulkhead.cli("ps", "-aq").stdout.split() == [
        instance["spec"]["id"][:12] for instance in bulkhead.json("ps", "-a", "--format", "json")
    ]
    assert bulkhead.cli("ps", "-f", "colour=red", check=False).returncode == 125


def test_inspect_finds_by_name_id_and_beginning(bulkhead: Daemon) -> None:
    bulkhead.cli("create", "--name", "found", *PLAN, "-e", "A=b", "-w", "/tmp", "busybox", "true")
    (told,) = bulkhead.json("inspect", "found")
    assert told["config"]["env"][-1] == "A=b"
    assert told["config"]["workdir"] == "/tmp"
    assert {row["field"] for row in told["limits"]} >= {"memory", "cpus", "pids", "disk"}
    assert bulkhead.json("inspect", told["id"], told["id"][:6]) == [told, told]


def test_events_follow(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    daemon = with_image(make_daemon(), busybox_tar, "busybox")
    with client(daemon, "events", "-f", "--format", "json") as follower:
        assert follower.stdout
        daemon.cli("run", "--rm", "--name", "told", *PLAN, "busybox", "true")
        seen: list[str] = []
        while not seen or seen[-1] != "remove":
            event = json.loads(follower.stdout.readline())
            seen += [event["action"]] if event["name"] == "told" else []
    assert seen == ["create", "start", "exit", "remove"]
