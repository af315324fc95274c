"""What instances use is counted once, whatever happens to the daemon."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from bulkhead.host import cgroups
from bulkhead.limits import Final, interpret_final
from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.integration.lives import state, until, with_image
from tests.integration.machines import IMAGE, with_machines

NAMES = ("one", "two", "three")
WRITES = 4 << 20
"""Bytes that each run writes to its disk."""
MOST_KILLS = 100
LATE_SECONDS = 3.0
"""After the end of a run its supervisor looks at the clock, on a busy host; what it says itself is of when it knew."""
JOURNAL = 2 << 20
"""What a file system writes besides, at most."""
WRITE = "dd if=/dev/zero of=/data bs=1M count=4 conv=fsync 2>/dev/null;"
SEND = " head -c 1200 /dev/zero | timeout 2 nc -w 1 10.144.0.1 53;"
SPIN = " while :; do :; done"
COMMAND = WRITE + SEND + SPIN
PLAN = {"memory": 64 << 20, "cpus": 0.3, "disk": 64 << 20}


@dataclass(frozen=True, slots=True)
class Level:
    """How it is tried behind one wall."""

    isolation: str
    image: str
    command: tuple[str, ...]
    kills: int
    """At least."""
    pause: float
    """Seconds, at most, between something that is asked for and the last of these kills."""
    least: int
    """Runs that have to have ended for this to mean something."""
    request: Mapping[str, Any] = field(default_factory=dict)
    writes: int = WRITES
    machine: bool = False


_SHELL = ("sh", "-c")
_SMALL_VM = {"plan": {**PLAN, "memory": 128 << 20, "cpus": 1}}
_UNIKERNEL = {"plan": {**PLAN, "memory": 8 << 20}, "network": "none"}
LEVELS = (
    Level("container", "busybox", (*_SHELL, COMMAND), 20, 0.4, 6),
    Level("chroot", "busybox", (*_SHELL, WRITE + SPIN), 8, 0.4, 2, {"network": "host"}),
    Level("vm", IMAGE, (*_SHELL, COMMAND), 5, 8.0, 2, _SMALL_VM, machine=True),
    Level("unikernel", "others/pvh", (), 5, 2.0, 2, _UNIKERNEL, writes=0, machine=True),
)


class Witness:
    """What the supervisors of runs that have ended have read at the end, by instance and run."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.runs: dict[tuple[str, float], tuple[Final, float]] = {}
        """With how long it ran, in seconds."""

    def look(self) -> None:
        """Take note of the runs that have ended, before they are started again or removed."""
        for instance in self._daemon.api("GET", "/v1/instances").body:
            ended, identifier = instance["exit"], instance["spec"]["id"]
            if instance["state"] != "exited" or not ended:
                continue
            told = json.loads((self._daemon.config.instances_dir / identifier / "exit.json").read_text())
            if abs(told["ended"] - ended["ended"]) < 0.01:
                key = (identifier, told["started"])
                self.runs[key] = (interpret_final(told["reports"]), told["ended"] - told["started"])


def act(daemon: Daemon, chance: random.Random, level: Level) -> None:
    """Something that changes an instance; the daemon may be killed in the middle of it."""
    name = chance.choice(NAMES)
    match state(daemon, name):
        case "":
            request = {"image": level.image, "name": name, "plan": PLAN, "command": list(level.command)}
            made = daemon.api("POST", "/v1/instances", {**request, "isolation": level.isolation, **level.request})
            assert made.status == 201, made.body
            daemon.api("POST", f"/v1/instances/{name}/start")
        case "running":
            daemon.api("POST", f"/v1/instances/{name}/stop", {"timeout": 0})
        case _ if chance.random() < 0.7:
            daemon.api("POST", f"/v1/instances/{name}/start")
        case _:
            daemon.api("DELETE", f"/v1/instances/{name}")


def end_one_meanwhile(daemon: Daemon, chance: random.Random, pids: dict[str, int]) -> None:
    """A workload ends while there is no daemon."""
    running = [pid for pid in pids.values() if pid]
    if running and chance.random() < 0.5:
        pid = chance.choice(running)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until("it has ended", lambda: not Path(f"/proc/{pid}").exists())


def usage(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """What was used, by instance's id."""
    return {row["id"]: row for row in daemon.api("GET", "/v1/usage?by=instance").body["rows"]}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.isolation)
def test_totals_are_the_counters_through_kills(
    make_daemon: Callable[..., Daemon], busybox_tar: Path, tmp_path: Path, level: Level
) -> None:
    chance = random.Random(6)
    daemon = make_daemon(metering_interval=1, network_pool=0, warm_memory=0)
    _with_images(daemon, busybox_tar, tmp_path, level)
    witness = Witness(daemon)
    act(daemon, chance, level)
    kills = 0
    while kills < level.kills or len(witness.runs) < level.least:
        kills += 1
        assert kills < MOST_KILLS, "hardly anything ends before the daemon is killed"
        witness.look()
        worker = threading.Thread(target=_act_and_be_cut_off, args=(daemon, chance, level))
        instances = daemon.api("GET", "/v1/instances").body
        pids = {each["spec"]["id"]: each["pid"] for each in instances}
        worker.start()
        threading.Event().wait(chance.random() * level.pause * kills / level.kills)  # slow hosts get more time
        daemon.kill9()
        worker.join()
        end_one_meanwhile(daemon, chance, pids)
        daemon.start()
    for name in NAMES:
        until(f"{name} runs no more", lambda name=name: _stopped(daemon, name))
    witness.look()
    counted, lives = usage(daemon), {identifier for identifier, _ in witness.runs}
    for identifier in lives:
        runs = [found for (whose, _), found in witness.runs.items() if whose == identifier]
        assert_counted(counted[identifier], runs, level)
    assert set(counted) >= lives
    total = daemon.api("GET", "/v1/usage?by=tenant").body["rows"][0]
    assert round(total["cpu_seconds"] * 1e9) == sum(round(row["cpu_seconds"] * 1e9) for row in counted.values())


def _with_images(daemon: Daemon, tar: Path, directory: Path, level: Level) -> None:
    if level.isolation == "unikernel":
        daemon.cli("image", "import", "--unikernel", unikernels.banner(directory), level.image)
    elif level.machine:
        with_machines(daemon, tar)
    else:
        with_image(daemon, tar, level.image)


def assert_counted(row: Mapping[str, Any], runs: Sequence[tuple[Final, float]], level: Level) -> None:
    """What an instance is said to have used is what the kernel has counted of its runs."""
    assert round(row["cpu_seconds"] * 1e9) == sum(final.counted.cpu or 0 for final, _ in runs), runs
    sent = sum(final.sent or 0 for final, _ in runs)
    assert sent - 2000 * len(runs) <= row["sent"] <= sent
    lived = sum(time for _, time in runs)
    late = LATE_SECONDS * len(runs)
    assert 0 < row["uptime_seconds"] <= lived + late
    peak = max(final.counted.memory or 0 for final, _ in runs)
    assert 0 < row["memory_gib_hours_used"] * 3600 <= peak / (1 << 30) * (lived + late)
    if level.machine:
        read, written = (sum(getattr(final.counted, name) or 0 for final, _ in runs) for name in ("read", "written"))
        assert (row["disk_read"], row["disk_written"]) == (read, written)
    else:
        assert row["disk_written"] <= (level.writes + JOURNAL) * len(runs)
    if level.machine and cgroups.detect().version("blkio") == 1:
        assert row["disk_reads"] is row["disk_writes"] is None, "nobody counts them"
        assert row["disk_operations_uncounted_seconds"] == row["uptime_seconds"]
    else:
        assert row["disk_writes"] > 0 or not level.writes


def _act_and_be_cut_off(daemon: Daemon, chance: random.Random, level: Level) -> None:
    with suppress(OSError, HTTPException):
        act(daemon, chance, level)


def _stopped(daemon: Daemon, name: str) -> bool:
    if state(daemon, name) == "running":
        daemon.api("POST", f"/v1/instances/{name}/stop", {"timeout": 0})
    return state(daemon, name) in ("", "created", "exited")


def test_what_a_run_leaves_is_counted(shared_daemon: Daemon, busybox_tar: Path) -> None:
    """One that nobody has looked at before its end: what it wrote, sent and took, and not its neighbours'."""
    daemon = with_image(shared_daemon, busybox_tar, "busybox")
    command = COMMAND.replace("while :; do :; done", "true")
    daemon.cli("plan", "create", "tiny", "--memory", "64M", "--cpus", "0.5", "--disk", "64M")
    daemon.cli("run", "--name", "brief", "--plan", "tiny", "busybox", "sh", "-c", command)
    daemon.cli("rm", "brief")
    row = daemon.json("usage", "brief", "--format", "json")["rows"][0]
    assert row["plan"] == "tiny"
    assert WRITES <= row["disk_written"] <= WRITES + JOURNAL
    assert 1000 < row["sent"] < 10_000
    assert row["cpu_seconds"] > 0
    assert row["uptime_seconds"] > 0
    assert row["memory_gib_hours_used"] <= row["memory_gib_hours_sold"]
    assert daemon.json("usage", "--plan", "tiny", "--by", "plan", "--format", "json")["rows"][0]["sent"] == row["sent"]


def test_a_changed_plan_is_sold_from_then_on(shared_daemon: Daemon, busybox_tar: Path) -> None:
    daemon = with_image(shared_daemon, busybox_tar, "busybox")
    daemon.cli("run", "-d", "--name", "grows", "--memory", "64M", "--cpus", "0.5", "busybox", "sleep", "1000")
    daemon.cli("update", "--memory", "128M", "grows")
    before = daemon.json("usage", "grows", "--format", "json")["rows"][0]
    daemon.cli("stop", "-t", "0", "grows")
    after = daemon.json("usage", "grows", "--format", "json")["rows"][0]
    assert before["memory_gib_hours_sold"] * 3600 <= before["uptime_seconds"] * 128 / 1024
    assert before["memory_gib_hours_sold"] * 3600 >= before["uptime_seconds"] * 64 / 1024 * 0.999
    more = after["uptime_seconds"] - before["uptime_seconds"]
    sold = (after["memory_gib_hours_sold"] - before["memory_gib_hours_sold"]) * 3600
    assert abs(sold - more * 128 / 1024) < 0.001
    daemon.cli("rm", "grows")


def test_prices_make_an_invoice(make_daemon: Callable[..., Daemon], busybox_tar: Path, tmp_path: Path) -> None:
    daemon = with_image(make_daemon(invoice={"seller": "Example Hosting Ltd"}), busybox_tar, "busybox")
    daemon.cli("plan", "create", "tiny", "--memory", "64M", "--cpus", "0.5", "--disk", "64M")
    daemon.cli("run", "--plan", "tiny", "--name", "web", "busybox", "sleep", "2")
    month = time.strftime("%Y-%m", time.gmtime())
    assert "there are no prices" in daemon.cli("invoice", "--month", month, check=False).stderr
    daemon.cli("price", "set", "--plan", "tiny", "--from", "2020-01-01", "hour", "1000", "EUR")
    daemon.cli("price", "set", "--from", "2020-01-01", "cpu-hour", "0.01", "EUR")
    made = daemon.json("invoice", "--month", month, "--format", "json")
    assert (made["number"], made["tenant"], made["lines"][0]["plan"]) == ("", "default", "tiny")
    assert Decimal(made["lines"][0]["amount"]) > 0
    assert made["total"] == made["net"]
    for form, begins in (("pdf", b"%PDF-"), ("html", b"<!DOCTYPE html>"), ("json", b"{")):
        daemon.cli("invoice", "--month", month, "-o", tmp_path / f"i.{form}")
        assert (tmp_path / f"i.{form}").read_bytes().startswith(begins)
    assert "is not over" in daemon.cli("invoice", "--month", month, "--issue", check=False).stderr
    assert "has used nothing" in daemon.cli("invoice", "--issue", check=False).stderr
    assert daemon.json("invoice", "--list", "--format", "json") == []
    wrong = daemon.cli("price", "set", "hour", "1e3", "eur", check=False)
    assert (wrong.returncode, "amount" in wrong.stderr, "currency" in wrong.stderr) == (125, True, True)


def test_prometheus_is_told(shared_daemon: Daemon, busybox_tar: Path) -> None:
    daemon = with_image(shared_daemon, busybox_tar, "busybox")
    daemon.cli("run", "-d", "--name", "told", "--memory", "64M", "--cpus", "0.5", "busybox", "sleep", "1000")
    told = daemon.api("GET", "/metrics").body
    assert 'bulkhead_instance_running{name="told",tenant="default"} 1.0' in told
    assert 'bulkhead_instance_memory_limit_bytes{name="told",tenant="default"} 6.7108864e+07' in told
    assert 'bulkhead_instance_cpu_seconds_total{name="told",tenant="default"}' in told
    assert "bulkhead_host_memory_sold_bytes" in told
    done = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    daemon.cli("rm", "-f", "told")


def test_volumes_and_snapshots_are_sold_until_they_are_removed(
    make_daemon: Callable[..., Daemon], busybox_tar: Path
) -> None:
    """Also those that nobody has looked at between their create and their end, and through a kill of the daemon."""
    daemon = with_image(make_daemon(metering_interval=1, network_pool=0), busybox_tar, "busybox")
    daemon.cli("volume", "create", "--size", "1G", "data")
    made = daemon.api("GET", "/v1/volumes").body[0]["created"]
    daemon.cli(
        "run",
        "--name",
        "web",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "head -c 4000000 /dev/urandom | tee /data/x > /x",
    )
    daemon.cli("snapshot", "create", "web", "before")
    daemon.kill9()
    daemon.start()
    told = daemon.api("GET", "/metrics").body
    assert 'bulkhead_tenant_volume_size_bytes{tenant="default"} 1.073741824e+09' in told
    assert 'bulkhead_tenant_snapshots{tenant="default"} 1.0' in told
    daemon.cli("rm", "web")
    since = time.time()
    daemon.cli("volume", "rm", "data")
    lived = (since - made, time.time() - made)
    daemon.cli("volume", "create", "--size", "2G", "data")
    rows = daemon.json("usage", "--format", "json")["rows"]
    kept = {(row["kind"], row["name"]): row["snapshot_gib_hours"] for row in rows}
    assert {("instance", "web"), ("volume", "data"), ("snapshot", "web/before")} <= set(kept)
    assert kept["snapshot", "web/before"] > 0
    both: list[dict[str, Any]] = []

    def seen() -> bool:
        both[:] = daemon.json("usage", "--format", "json", "volume:data")["rows"]
        return len(both) == 2

    until("the new one was looked at", seen)
    old, new = sorted(both, key=lambda row: -row["volume_gib_hours_used"])
    assert lived[0] - 0.01 <= old["volume_gib_hours_sold"] * 3600 <= lived[1] + 0.01, (
        "1 GiB for as long as it was there"
    )
    assert 0 < old["volume_gib_hours_used"] < old["volume_gib_hours_sold"]
    assert new["volume_gib_hours_sold"] > 0
    assert all(row["disk_gib_hours_sold"] == 0 for row in both)
    daemon.cli("price", "set", "--from", "2020-01-01", "volume-gib-hour", "100000", "EUR")
    daemon.cli("price", "set", "--from", "2020-01-01", "snapshot-gib-hour", "100000", "EUR")
    month = time.strftime("%Y-%m", time.gmtime())
    bill = daemon.json("invoice", "--month", month, "--format", "json")
    assert {line["unit"] for line in bill["lines"]} == {"volume-gib-hour", "snapshot-gib-hour"}
    assert all(Decimal(line["amount"]) > 0 for line in bill["lines"])
    assert [each["name"] for each in bill["instances"]] == ["web"]
    assert {(each["kind"], each["name"]) for each in bill["kept"]} == {("volume", "data"), ("snapshot", "web/before")}
    wrong = daemon.cli("price", "set", "--plan", "tiny", "volume-gib-hour", "1", "EUR", check=False)
    assert (wrong.returncode, "volumes and snapshots have none" in wrong.stderr) == (125, True)
    daemon.cli("volume", "rm", "data")


def test_what_runs_within_a_vm_is_sold_its_disk_alone(make_daemon: Callable[..., Daemon], busybox_tar: Path) -> None:
    """Its processor time, memory and traffic are the VM's, which was made for it and has no disk of its own."""
    daemon = with_machines(make_daemon(metering_interval=1, network_pool=0), busybox_tar)
    plan = ("--memory", "48M", "--cpus", "0.5", "--disk", "64M")
    daemon.cli("run", "-d", "--name", "inner", "--inside", "new", *plan, IMAGE, "sh", "-c", WRITE + " sleep 1000")
    kinds: dict[bool, dict[str, Any]] = {}

    def seen() -> bool:
        rows = daemon.json("usage", "--format", "json")["rows"]
        kinds.update({row["name"] == "inner": row for row in rows})
        return kinds.keys() == {True, False} and kinds[True]["disk_gib_hours_used"] > 0

    until("both were looked at", seen)
    daemon.cli("rm", "-f", "inner")
    seen()
    inner, machine = kinds[True], kinds[False]
    for key in (
        "uptime_seconds",
        "cpu_seconds",
        "memory_gib_hours_sold",
        "memory_gib_hours_used",
        "sent",
        "disk_written",
    ):
        assert (inner[key], machine[key] > 0 or key in ("sent", "disk_written")) == (0, True), key
    assert inner["disk_gib_hours_sold"] * 3600 * 1024 >= 64 * machine["uptime_seconds"]
    assert 0 < inner["disk_gib_hours_used"] <= inner["disk_gib_hours_sold"]
    assert machine["disk_gib_hours_sold"] == 0
