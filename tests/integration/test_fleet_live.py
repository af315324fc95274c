"""Virtual machines go from one host of a fleet to another while they run: one of two runs, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bulkhead.engine.faults import LIVE_ARRIVING, LIVE_LEAVING, STAYING
from bulkhead.errors import BulkheadError
from bulkhead.host.qmp import Qmp
from tests.harness import computers
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.kernels import kernel_layout
from tests.integration.lives import often, until
from tests.integration.passages import Slow, bundles, listed, move, where

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(8)]
MEMORY, PAGE = 96 << 20, 4096
SIZE = ("--memory", "96M", "--cpus", "1", "--disk", "64M", "--network", "none")
COUNT = (
    "n=$(cat /proc/sys/kernel/random/uuid); i=0; echo began; "
    'while :; do i=$((i+1)); echo "$n $i $$" >/now.new; mv /now.new /now; sleep 0.1; done'
)
"""Remembers something in its own memory alone, and counts."""
OFTEN = frozenset(
    {"leave.begun", "live.mirroring", "live.sending", "live.switched", "live.whole", "leave.handed", "leave.erased"}
    | {"expect.made", "expect.waiting", "expect.loaded", "expect.whole", "arrive.recorded", "arrive.entered"}
    | {"stay.noted"}
)


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Two hosts in a fleet, the first of which has an image and a kernel."""
    with laboratory(busybox_tar, 2) as made:
        made.hosts[0].daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts: daemons that run, links that carry; what is there stays for the next test."""
    yield lab.hosts
    for host in lab.hosts:
        host.mend()
        if host.daemon.pid == 0:
            host.daemon.start()
    lab.wait_for_all()


@dataclass(frozen=True)
class Counting:
    """A machine that counts, and where it is."""

    source: Host
    target: Host
    nonce: str
    count: int


def now(host: Host, name: str = "one") -> tuple[str, int, int]:
    """What its program has in memory: something that is its alone, how far it has counted, its pid."""
    nonce, count, pid = until("it counts", lambda: host.cli("exec", name, "cat", "/now", check=False).split()[:3])
    return nonce, int(count), int(pid)


@pytest.fixture
def counting(hosts: list[Host]) -> Counting:
    """One machine for all tests, wherever the last one has left it; another one where that has ended."""
    found = listed(hosts[0])
    if found.get("one", ("", ""))[1] != "running":
        for name in found:
            hosts[0].cli("rm", "-f", name)
        begin(hosts[0])
    at = where(hosts, "one")
    source, target = sorted(hosts, key=lambda host: host.name != at)
    nonce, count, _ = now(source)
    return Counting(source, target, nonce, count)


def begin(host: Host) -> None:
    # The image's machine is on alpha alone: beta gets image and kernel with the first move.
    host.cli("run", "-d", "--host", host.name, "--name", "one", "--isolation", "vm", *SIZE, "box", "sh", "-c", COUNT)


def running(hosts: list[Host]) -> list[str]:
    """Names of hosts whose hypervisor says that its guest runs; of one that talks to its daemon it is not known."""
    found = []
    for host in hosts:
        for bundle in bundles(host):
            try:
                with Qmp.open(host.daemon.config.instances_dir / bundle / "vm", "qmp.sock", timeout=1.0) as monitor:
                    answer = monitor.execute("query-status")
            except BulkheadError:
                continue
            if isinstance(answer, dict) and answer.get("running"):
                found.append(host.name)
    return found


def lives(hosts: list[Host], counting: Counting) -> str:
    """Where it is in the end: the same program, which has counted on."""
    at = where(hosts, "one")
    assert len(running(hosts)) <= 1
    host = next(host for host in hosts if host.name == at)
    nonce, count, _ = now(host)
    assert nonce == counting.nonce, "it was started anew"
    assert count >= counting.count
    until("it counts on", lambda: now(host)[1] > count)
    return at


def test_it_runs_on_at_the_other_host(hosts: list[Host], counting: Counting) -> None:
    source, target = counting.source, counting.target
    source.cli("exec", "one", "sh", "-c", "echo kept >/kept; dd if=/dev/urandom of=/large bs=1M count=8; sync")
    sums = source.cli("exec", "one", "md5sum", "/large")
    pid = now(source)[2]
    moved = move(target, "one", target)  # asked for at another host than the one that has it
    passage = moved["hosts"]
    assert (passage["way"], passage["source"], passage["target"]) == ("live", source.name, target.name)
    assert set(passage["phases"]) == {
        "prepare",
        "machine",
        "disk",
        "memory",
        "switch",
        "hand-over",
        "start",
        "erase",
    }
    assert moved["downtime"] > 0
    assert moved["dropped"] == []
    assert passage["sent"] > passage["flow"]["sent"] > 8 << 20
    assert passage["flow"]["memory"] >= 96 << 20
    assert lives(hosts, counting) == target.name
    assert now(target)[2] == pid
    for host in hosts:
        assert host.cli("exec", "one", "cat", "/kept") == "kept\n"
        assert host.cli("exec", "one", "md5sum", "/large") == sums
        assert host.cli("logs", "one") == "began\n"
    clock = int(target.cli("exec", "one", "date", "+%s"))
    assert abs(clock - time.time()) < 30
    assert not bundles(source)


def test_a_named_processor_goes_along(hosts: list[Host]) -> None:
    alpha, beta = hosts
    told = alpha.cli("cluster", "set", "--cpu-baseline", "EPYC-Milan", check=False)
    assert "no host can run VMs with all of the processor" in told and "Nehalem" in told
    alpha.cli("cluster", "set", "--cpu-baseline", "Nehalem")
    try:
        assert "VMs with Nehalem\n" in beta.cli("cluster", "status")
        asked = ("--host", "alpha", "--name", "named", "--isolation", "vm")
        beta.cli("run", "-d", *asked, *SIZE, "box", "sh", "-c", COUNT)
        assert "Nehalem" in alpha.cli("exec", "named", "grep", "-m1", "model name", "/proc/cpuinfo")
    finally:
        alpha.cli("cluster", "set", "--cpu-baseline", "none")
    try:
        before = now(alpha, "named")
        assert move(alpha, "named", beta)["hosts"]["way"] == "live"
        after = now(beta, "named")
        assert (after[0], after[2]) == (before[0], before[2])
        beta.cli("restart", "named")  # what it was made with stays, whatever the fleet wants by now
        assert "Nehalem" in beta.cli("exec", "named", "grep", "-m1", "model name", "/proc/cpuinfo")
    finally:
        alpha.cli("rm", "-f", "named", check=False)


def test_what_would_happen_is_said_without_doing_it(hosts: list[Host], counting: Counting) -> None:
    passage = move(counting.source, "one", counting.target, "--dry-run")["hosts"]
    assert (passage["way"], passage["done"], passage["predicted"]) == ("live", False, 0.05)
    told = counting.source.cli("move", "one", "--host", counting.target.name, "--dry-run")
    assert "while it runs" in told
    assert lives(hosts, counting) == counting.source.name


def test_a_whole_system_goes_while_it_runs(hosts: list[Host], tmp_path: Path) -> None:
    alpha, beta = hosts
    alpha.cli("image", "import", str(computers.make(tmp_path / "disk.raw")), "disk/small")
    size = ("--memory", "48M", "--cpus", "1", "--disk", "40M", "--network", "none")
    alpha.cli("run", "-d", "--host", "alpha", "--isolation", "vm", *size, "--name", "small", "disk/small")
    try:
        until("it is up", lambda: computers.HELLO in alpha.cli("logs", "small"))
        moved = move(alpha, "small", beta)
        assert (moved["hosts"]["way"], moved["dropped"]) == ("live", [])
        assert listed(alpha)["small"] == ("beta", "running")
        assert beta.cli("logs", "small").count(computers.HELLO) == 1
        beta.cli("stop", "small")  # by its power button, which only a system that runs looks at
        assert listed(alpha)["small"] == ("beta", "exited")
    finally:
        alpha.cli("rm", "-f", "small", check=False)


def hypervisor(host: Host) -> int:
    """Pid of the only one there."""
    (bundle,) = bundles(host)
    handle = json.loads((host.daemon.config.instances_dir / bundle / "handle.json").read_text())
    return int(handle["pid"])


def memory(host: Host) -> list[bytes]:
    """The pages of the only guest there: of its hypervisor's mappings the one of that size."""
    process = Path("/proc", str(hypervisor(host)))
    spans = [line.split(" ")[0].split("-") for line in (process / "maps").read_text().splitlines()]
    (begin,) = [int(first, 16) for first, last in spans if int(last, 16) - int(first, 16) == MEMORY]
    with (process / "mem").open("rb", buffering=0) as file:
        return [os.pread(file.fileno(), PAGE, begin + offset) for offset in range(0, MEMORY, PAGE)]


AFTER = LIVE_LEAVING.index("leave.handed")


@pytest.mark.parametrize("point", often(LIVE_LEAVING, OFTEN))
def test_the_source_s_daemon_dies(hosts: list[Host], counting: Counting, point: str) -> None:
    source, target = counting.source, counting.target
    source.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    source.cli("move", "one", "--host", target.name, check=False)
    source.daemon.wait()
    assert len(running(hosts)) <= 1
    if point == "live.whole":  # all has been sent, and neither runs
        pages = zip(memory(source), memory(target), strict=True)
        assert [number for number, (here, there) in enumerate(pages) if here != there] == []
    source.daemon.start()
    assert lives(hosts, counting) == (target if LIVE_LEAVING.index(point) >= AFTER else source).name


THERE = LIVE_ARRIVING.index("arrive.recorded")


@pytest.mark.parametrize("point", often(LIVE_ARRIVING, OFTEN))
def test_the_target_s_daemon_dies(lab: Fleet, hosts: list[Host], counting: Counting, point: str) -> None:
    source, target = counting.source, counting.target
    target.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    lab.wait_for_all()
    source.cli("move", "one", "--host", target.name, check=False)
    target.daemon.wait()
    assert len(running(hosts)) <= 1
    target.daemon.start()
    assert lives(hosts, counting) == (target if LIVE_ARRIVING.index(point) >= THERE else source).name


@pytest.mark.parametrize("point", often(STAYING, OFTEN))
def test_the_source_s_daemon_dies_while_it_takes_back(
    lab: Fleet, hosts: list[Host], counting: Counting, point: str
) -> None:
    source, target = counting.source, counting.target
    target.daemon.restart(env={"BULKHEAD_CRASH_AT": "expect.loaded"})
    lab.wait_for_all()
    source.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    source.cli("move", "one", "--host", target.name, check=False)
    target.daemon.wait()
    source.daemon.wait()
    assert len(running(hosts)) <= 1
    source.daemon.start()
    target.daemon.start()
    assert lives(hosts, counting) == source.name


def begin_slow(counting: Counting, *options: str) -> Slow:
    """A move that takes a while, once its machine waits at the target."""
    slow = Slow(counting.source, "one", counting.target.name, *options)
    until("it arrives", lambda: bundles(counting.target))
    return slow


def test_a_move_that_nobody_wants_any_more_leads_back(hosts: list[Host], counting: Counting) -> None:
    slow = begin_slow(counting)
    slow.interrupt()
    slow.end()
    assert lives(hosts, counting) == counting.source.name
    # And nothing of it is left in its hypervisor: it can be saved, and moved again.
    counting.source.cli("snapshot", "create", "--memory", "one", "later")
    counting.source.cli("snapshot", "rm", "one/later")
    assert move(counting.source, "one", counting.target)["hosts"]["way"] == "live"
    assert lives(hosts, counting) == counting.target.name


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_link_is_cut_while_it_is_sent(hosts: list[Host], counting: Counting, end: str) -> None:
    slow = begin_slow(counting)
    cut = counting.source if end == "source" else counting.target
    cut.cut()
    told = slow.end()
    cut.mend()
    assert "moved" in told
    until("all live", lambda: all(each["alive"] for each in hosts[0].status()["hosts"]))
    assert lives(hosts, counting) == counting.source.name


def sends_memory(host: Host) -> bool:
    """Whether a machine's memory is on its way from there."""
    told = [each["progress"] for each in host.daemon.api("GET", "/v1/operations?state=running").body]
    return any(each and each["label"].startswith("sending its memory") for each in told)


@pytest.mark.thorough
def test_etcd_is_away_when_it_is_to_be_handed_over(lab: Fleet, hosts: list[Host], counting: Counting) -> None:
    source = counting.source
    slow = begin_slow(counting, "--rate", "4M", "--patience", "3600")
    until("its memory goes", lambda: sends_memory(source))
    try:
        for number in range(3):
            lab.etcd.kill(number)
        told = slow.end()
        assert "is not known yet" in told
        assert running(hosts) == [], told  # it stands still, here and there
        source.daemon.restart()
        assert running(hosts) == []
    finally:
        for number in range(3):
            lab.etcd.restart(number, wait=False)
        lab.etcd.wait_for_leader()
    until("etcd is back", lambda: not source.status().get("error", "not yet"))
    assert lives(hosts, counting) == source.name


def test_the_target_s_hypervisor_dies(hosts: list[Host], counting: Counting) -> None:
    slow = begin_slow(counting)
    waiting = counting.target.daemon.config.instances_dir / bundles(counting.target)[0] / "handle.json"
    until("its machine waits", waiting.exists)
    os.kill(hypervisor(counting.target), signal.SIGKILL)
    assert "was not moved, it runs as before" in slow.end()
    assert lives(hosts, counting) == counting.source.name


def test_it_changes_more_than_can_be_sent(hosts: list[Host], counting: Counting) -> None:
    source = counting.source
    change = "while :; do dd if=/dev/urandom of=/dev/shm/x bs=64k count=64 conv=notrunc; done"
    source.cli("exec", "-d", "one", "sh", "-c", f"mkdir -p /dev/shm; {change}")
    told = source.cli("move", "one", "--host", counting.target.name, "--rate", "256K", "--patience", "15", check=False)
    assert "faster than it can be sent" in told and "--stop" in told and "runs as before" in told
    source.cli("exec", "one", "sh", "-c", "pkill dd; pkill -f 'while :; do dd'; rm -f /dev/shm/x; true", check=False)
    assert lives(hosts, counting) == source.name


def test_its_hypervisor_dies_on_the_way(hosts: list[Host], counting: Counting) -> None:
    source = counting.source
    slow = begin_slow(counting)
    os.kill(hypervisor(source), signal.SIGKILL)
    assert "was not moved, it has ended meanwhile" in slow.end()
    until("its end is known", lambda: listed(source) == {"one": (source.name, "exited")})
    until("nothing waits for it", lambda: not bundles(counting.target))
    source.cli("rm", "one")
