"""A neighbour who takes all that it can get, of one thing after the other: it gets what its plan says, and a victim
beside it goes on answering. How fast it answers is the bench's to say (docs/reference/benchmarks.md)."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bulkhead.host import cgroups, loop
from bulkhead.host.loop import Transferred
from bulkhead.host.syscalls import slice_of
from bulkhead.isolation.hardening import most_terminals
from bulkhead.limits import SLICE, read_usage
from tests.harness import rogues
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout
from tests.harness.rogues import ROGUES, Rogue
from tests.integration.limited import only_on
from tests.integration.lives import client, until, with_image

IMAGE = "rogue"
SERVE = "echo here > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
MIB = 1 << 20
MEMORY, CPUS, PIDS, DISK, IOPS, BPS, BITS = 64 * MIB, 0.5, 64, 64 * MIB, 100, 4 * MIB, 4_000_000
PLAN = (
    *("--memory", "64M", "--cpus", str(CPUS), "--pids", str(PIDS), "--disk", "64M"),
    *("--iops", str(IOPS), "--disk-bps", "4M", "--bandwidth", str(BITS)),
)
VICTIM = ("--memory", "64M", "--cpus", "1", "--disk", "64M", "-p", "8080:80")
SECONDS = 1.0
"""For which it may do its worst while is looked."""
WHOLE = 60.0
"""After which it would end by itself."""
SLACK = 1.1
LOG_BURST, LOG_RATE = 32 * MIB, 8 * MIB
"""What a supervisor writes at once and in a second (agent/src/log.h)."""
LEAST_BUFFER = 16 << 10
"""Bytes, at most, that the kernel lets each socket have whatever the limit is; the socket itself is memory."""
COUNTED = {"ptys", "watchers", "files"}
"""What a kernel has a number of: the victim must still get some."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an instance has used since its start, counted on the host."""

    when: float
    cpu_seconds: float
    disk: Transferred
    sent: int
    logged: int


class Suspect:
    """The rogue as the host sees it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.layout = daemon, cgroups.detect()
        (row,) = daemon.json("inspect", "rogue")
        self.id = str(row["id"])
        self.bundle = daemon.config.instances_dir / self.id
        attached = loop.find(self.bundle / "disk.img")
        assert attached
        self.device = attached.device

    def look(self) -> Seen:
        """All counters."""
        usage = read_usage(self.layout, self.daemon.config.cgroup, self.id)
        (row,) = self.daemon.json("stats", "--no-stream", "--format", "json", "rogue")
        moved, said = loop.transferred(self.device), logged(self.bundle)
        return Seen(time.monotonic(), usage.cpu_seconds, moved, int(row["sent"]), said)

    def check(self, before: Seen) -> None:
        """Nothing is over its plan."""
        now, usage = self.look(), read_usage(self.layout, self.daemon.config.cgroup, self.id)
        seconds, moved = now.when - before.when, now.disk - before.disk
        assert usage.memory_peak <= MEMORY * 1.02, "there are pages that the kernel cannot do without"
        assert self.sockets() <= MIB + open_sockets(self.daemon) * LEAST_BUFFER
        assert usage.pids <= PIDS
        assert now.cpu_seconds - before.cpu_seconds <= CPUS * (seconds + 0.2) * SLACK
        assert moved.writes <= IOPS * seconds * SLACK + 32
        assert moved.reads <= IOPS * seconds * SLACK + 32
        assert moved.written <= BPS * seconds * SLACK + MIB
        assert now.sent - before.sent <= BITS / 8 * seconds * SLACK + 65536
        assert now.logged - before.logged <= LOG_BURST + LOG_RATE * seconds * SLACK + MIB
        assert (self.bundle / "disk.img").stat().st_blocks * 512 <= DISK
        logs = sum(path.stat().st_size for path in self.bundle.glob("log*"))
        assert logs <= (self.daemon.config.log_size + MIB) * self.daemon.config.log_files

    def sockets(self) -> int:
        """Bytes in sockets' buffers, which v1 counts apart."""
        file = self.layout.path("memory", f"{self.daemon.config.cgroup}/{self.id}") / "memory.kmem.tcp.usage_in_bytes"
        return int(file.read_text()) if file.exists() else 0


@pytest.fixture(scope="module")
def bulkhead(module_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the image, and a victim that serves."""
    with_image(module_daemon, rogues.image_tar(tmp_path_factory.mktemp("rogue") / "rogue.tar"), IMAGE)
    module_daemon.cli("run", "-d", "--name", "victim", *VICTIM, IMAGE, "sh", "-c", SERVE)
    until("the victim serves", partial(serves, module_daemon))
    yield module_daemon
    module_daemon.cli("rm", "-f", "victim")


def logged(bundle: Path) -> int:
    """Bytes that an instance's supervisor has written."""
    pid = json.loads((bundle / "handle.json").read_text())["supervisor_pid"]
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def serves(daemon: Daemon, port: int = 8080) -> bool:
    """Whether a victim's answer comes."""
    assert daemon.outside
    try:
        return daemon.outside.fetch(port, timeout=30.0) == (200, b"here\n")
    except ConnectionRefusedError:
        return False


def open_sockets(daemon: Daemon) -> int:
    """Of the rogue's network. Seen from the host: a rogue that uses itself up may have no turn left for a command."""
    pid = daemon.json("inspect", "rogue")[0]["pid"]
    lines = Path(f"/proc/{pid}/net/sockstat").read_text().splitlines()
    words = next(line for line in lines if line.startswith("TCP:")).split()
    return int(words[2])


def suffer(daemon: Daemon, port: int = 8080) -> None:
    """Every single answer comes."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert serves(daemon, port)


def command(daemon: Daemon, rogue: Rogue, *, seconds: float = WHOLE) -> list[str]:
    """With the victim's addresses."""
    address = daemon.json("inspect", "victim")[0]["address"]
    return rogue.command(seconds, str(address["ipv4"]), str(address["gateway4"]))


def share_of(daemon: Daemon, name: str, what: str) -> int:
    """How many of something an instance gets in a moment."""
    return int(daemon.cli("exec", name, rogues.PROGRAM, what, "0.3").stdout.split()[-1])


@pytest.mark.parametrize("rogue", ROGUES, ids=lambda rogue: rogue.name)
def test_a_container_gets_its_plan_and_its_neighbour_goes_on(bulkhead: Daemon, rogue: Rogue) -> None:
    bulkhead.cli("run", "-d", "--name", "rogue", *PLAN, IMAGE, *command(bulkhead, rogue))
    try:
        suspect = Suspect(bulkhead)
        before = suspect.look()
        suffer(bulkhead)
        if rogue.name in COUNTED:
            assert share_of(bulkhead, "victim", rogue.name) > 0
        suspect.check(before)
        assert serves(bulkhead)
    finally:
        bulkhead.cli("rm", "-f", "rogue")


def test_terminals_are_the_plans(bulkhead: Daemon) -> None:
    """A fourth of the processes: 12 rogues that take all of theirs leave room for others still."""
    bulkhead.cli("run", "-d", "--name", "rogue", *PLAN, IMAGE, "sleep", "1000")
    try:
        assert share_of(bulkhead, "rogue", "ptys") == most_terminals(PIDS) == 16
    finally:
        bulkhead.cli("rm", "-f", "rogue")


def test_sockets_have_their_part_of_memory(bulkhead: Daemon) -> None:
    """v1 counts it apart, or not at all: also after an update."""
    layout = cgroups.detect()
    only_on(layout, "memory", 1)
    bulkhead.cli("run", "-d", "--name", "rogue", *PLAN, IMAGE, "sleep", "1000")
    try:
        for memory in (64, 100):
            bulkhead.cli("update", "--memory", f"{memory}M", "rogue")
            group = f"{bulkhead.config.cgroup}/{bulkhead.json('inspect', 'rogue')[0]['id']}"
            limit = layout.path("memory", group) / "memory.kmem.tcp.limit_in_bytes"
            assert int(limit.read_text()) == max(MIB, memory * MIB // 50) // 4096 * 4096
    finally:
        bulkhead.cli("rm", "-f", "rogue")


def test_who_wakes_up_goes_first(bulkhead: Daemon) -> None:
    """All that an instance runs has the shortest turns, also what is started in it later."""
    if not slice_of(bulkhead.pid):
        pytest.skip("this kernel has no turns of a chosen length (Linux 6.12)")
    bulkhead.cli("run", "-d", "--name", "rogue", *PLAN, IMAGE, "sh", "-c", "sleep 1000 & exec sleep 1001")
    try:
        bulkhead.cli("exec", "-d", "rogue", "sleep", "1002")
        layout, group = cgroups.detect(), bulkhead.config.cgroup
        inside = layout.path("pids", f"{group}/{bulkhead.json('inspect', 'rogue')[0]['id']}") / "cgroup.procs"
        until("three processes", lambda: len(inside.read_text().split()) >= 3)
        assert {slice_of(int(pid)) for pid in inside.read_text().split()} == {SLICE}
    finally:
        bulkhead.cli("rm", "-f", "rogue")


GUEST = ("--isolation", "vm", "--memory", "128M", "--cpus", "1", "--disk", "64M", "--bandwidth", str(BITS))
EACH = 1.0
"""Seconds of each rogue in the guest."""
FROM_A_GUEST = [rogue for rogue in ROGUES if rogue.name in ("packets", "storm", "spoof", "claims")]


def test_a_guest_sends_and_says_no_more_than_its_plan(bulkhead: Daemon) -> None:
    """It is root of its own kernel: it makes any frame that it likes. What it takes of its own machine is in
    test_machine_rogue.py."""
    bulkhead.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    chat = f"{rogues.PROGRAM} logs 3; exec sleep 100000"
    bulkhead.cli("run", "-d", "--name", "rogue", *GUEST, IMAGE, "sh", "-c", chat, timeout=300)
    try:
        (row,) = bulkhead.json("inspect", "rogue")
        bundle = bulkhead.config.instances_dir / row["id"]
        said, began = logged(bundle), time.monotonic()
        suffer(bulkhead)
        assert logged(bundle) - said <= LOG_BURST + LOG_RATE * (time.monotonic() - began) * SLACK + MIB
        sent, began = sent_by(bulkhead), time.monotonic()
        worst = "; ".join(shlex.join(command(bulkhead, rogue, seconds=EACH)) for rogue in FROM_A_GUEST)
        with client(bulkhead, "exec", "rogue", "sh", "-c", worst) as running:
            while running.poll() is None:
                assert serves(bulkhead)
            assert running.returncode == 0
        assert sent_by(bulkhead) - sent <= BITS / 8 * (time.monotonic() - began) * SLACK + 65536
        known = bulkhead.sandbox.run("ip", "neighbour").stdout
        victim = bulkhead.json("inspect", "victim")[0]["address"]
        assert f"{victim['ipv4']} " in known
        assert row["address"]["mac"] not in [
            line.split()[4]
            for line in known.splitlines()
            if line.startswith(f"{victim['ipv4']} ") and len(line.split()) > 4
        ]
    finally:
        bulkhead.cli("rm", "-f", "rogue")


def sent_by(daemon: Daemon) -> int:
    """Bytes at the host's end of the rogue's link."""
    return int(daemon.json("stats", "--no-stream", "--format", "json", "rogue")[0]["sent"])


INNER = ("--memory", "48M", "--cpus", "0.4", "--pids", "64", "--disk", "64M", "--inside", "home")


def test_two_in_one_machine_do_not_use_up_each_others_numbers(bulkhead: Daemon) -> None:
    """The guest's kernel has one number for all in it, as the host's has."""
    bulkhead.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    home = ("--isolation", "vm", "--memory", "256M", "--cpus", "1", "--disk", "64M")
    bulkhead.cli("run", "-d", "--name", "home", *home, IMAGE, "sleep", "100000", timeout=300)
    try:
        for name in ("rogue", "mate"):
            bulkhead.cli("run", "-d", "--name", name, *INNER, IMAGE, "sleep", "100000")
        for what in ("watchers", "ptys"):
            taking = f"{rogues.PROGRAM} {what} {WHOLE:g} & sleep 1; echo taken; wait"
            with client(bulkhead, "exec", "rogue", "sh", "-c", taking) as running:
                assert running.stdout
                assert running.stdout.readline() == b"taken\n"
                assert share_of(bulkhead, "mate", what) > 0
            bulkhead.cli("exec", "rogue", "killall", "-q", "-9", "rogue", check=False)
        assert share_of(bulkhead, "rogue", "ptys") <= most_terminals(64)
    finally:
        bulkhead.cli("rm", "-f", "home", "rogue", "mate", check=False)
        until("they have gone", lambda: "mate" not in bulkhead.cli("ps", "-a").stdout)
