"""A guest that takes what it can get, as root of its own kernel: counted from outside, it gets what its plan says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead.host import cgroups
from bulkhead.host.qmp import Qmp
from bulkhead.limits import read_usage
from bulkhead.limits.machine import OVERHEAD, THREADS
from bulkhead.limits.usage import Usage
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout

MIB = 1 << 20
SECONDS = 6.0
"""Over which is counted. Buckets are small beside what flows in it."""
SLACK = 1.3
CPUS, BPS, IOPS, BITS, PIDS, MEMORY = 0.5, MIB // 2, 40, 1_000_000, 40, 128 * MIB
PLAN = (
    *("--memory", f"{MEMORY}B", "--cpus", "1", "--disk", "128M", "--pids", str(PIDS)),
    *("--iops", str(IOPS), "--disk-bps", f"{BPS}B", "--bandwidth", str(BITS)),
)
HOG = "echo 0 > /sys/fs/cgroup/cgroup.procs; exec tail /dev/zero"
"""Out of the cgroup that the guest has for it, for all the memory that there is."""
FOR_A_WHILE = 60
"""Seconds after which a rogue program ends by itself."""


class Rogue:
    """The machine, as the host sees it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.layout = daemon, cgroups.detect()
        self.look()

    def look(self) -> None:
        """Find it, after each start."""
        (row,) = self.daemon.json("inspect", "rogue")
        self.id, self.pid = str(row["id"]), int(row["pid"])
        self.gateway = str(row["address"]["gateway4"])

    def begin(self, script: str) -> None:
        """Let it run on in the guest."""
        command = ["timeout", "-s", "KILL", str(FOR_A_WHILE), "sh", "-c", script]
        answer = self.daemon.api("POST", "/v1/instances/rogue/exec", {"command": command, "detach": True})
        assert answer.status < 300, answer

    def end(self) -> None:
        """All of them."""
        self.daemon.cli("exec", "rogue", "killall", "-q", "-9", "dd", "ping", "tail", "timeout", "sh", check=False)

    def usage(self) -> Usage:
        """Of the hypervisor's cgroup."""
        return read_usage(self.layout, self.daemon.config.cgroup, self.id)

    def written(self) -> int:
        """Bytes that the hypervisor has had written to the host's disk."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    def operations(self) -> int:
        """Writes that have reached the instance's disk."""
        bundle = self.daemon.config.instances_dir / self.id
        with Qmp.open(bundle / "vm", "qmp.sock") as monitor:
            found = monitor.execute("query-blockstats")
        assert isinstance(found, list)
        return int(found[0]["stats"]["wr_operations"])

    def sent(self) -> int:
        """Bytes at the host's end of its link."""
        return int(self.daemon.json("stats", "--no-stream", "--format", "json", "rogue")[0]["sent"])

    def limit(self) -> int:
        """Bytes of memory that the host allows in all."""
        file = "memory.limit_in_bytes" if self.layout.version("memory") == 1 else "memory.max"
        group = f"{self.daemon.config.cgroup}/{self.id}"
        return int((self.layout.path("memory", group) / file).read_text())

    def answers(self) -> bool:
        """Whether it still does."""
        return self.daemon.cli("exec", "rogue", "echo", "here", check=False).stdout == "here\n"


@pytest.fixture(scope="module")
def rogue(module_daemon: Daemon, busybox_tar: Path) -> Iterator[Rogue]:
    """One machine for all of them."""
    module_daemon.cli("image", "import", busybox_tar, "vm-busybox")
    module_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    options = ("-d", "--isolation", "vm", "--no-template", "--name", "rogue", *PLAN)
    module_daemon.cli("run", *options, "vm-busybox", "sleep", "1000000")
    module_daemon.cli("update", "--cpus", str(CPUS), "rogue")  # half a processor would boot for a long time
    yield Rogue(module_daemon)
    module_daemon.cli("rm", "-f", "rogue")


def rate(count: Callable[[], float]) -> float:
    """How much comes to it per second, once it has begun."""
    before, deadline = count(), time.monotonic() + 60
    while count() == before:
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.1)
    before, began = count(), time.monotonic()
    time.sleep(SECONDS)
    return (count() - before) / (time.monotonic() - began)


def test_processors(rogue: Rogue) -> None:
    rogue.begin("while :; do :; done & while :; do :; done")
    assert 0 < rate(lambda: rogue.usage().cpu_seconds) <= CPUS * SLACK
    rogue.end()


def test_bytes_to_the_disk(rogue: Rogue) -> None:
    rogue.begin("while :; do dd if=/dev/urandom of=/large bs=256k count=100 conv=fsync; done")
    assert 0 < rate(rogue.written) <= BPS * SLACK
    rogue.end()


def test_operations_on_the_disk(rogue: Rogue) -> None:
    rogue.begin("while :; do dd if=/dev/urandom of=/small bs=4k count=500 oflag=direct; done")
    assert 0 < rate(rogue.operations) <= IOPS * SLACK
    rogue.end()


def test_bits_to_the_network(rogue: Rogue) -> None:
    ping = f"ping -q -A -s 1400 {rogue.gateway}"
    rogue.begin(f"{ping} & {ping} & {ping} & {ping}")
    assert 0 < rate(rogue.sent) * 8 <= BITS * SLACK
    rogue.end()


def test_processes(rogue: Rogue) -> None:
    """In the guest they end at the plan; on the host none of them is seen."""
    before = rogue.usage().pids
    rogue.begin("bomb() { bomb | bomb & }; bomb; sleep 1000")
    time.sleep(SECONDS)
    count = "cat /sys/fs/cgroup/bulkhead/*/pids.current"
    assert int(rogue.daemon.cli("exec", "rogue", "sh", "-c", f"exec {count}").stdout) <= PIDS + 1
    assert rogue.usage().pids <= before + THREADS
    rogue.daemon.cli("stop", "-t", "0", "rogue")
    rogue.daemon.cli("update", "--cpus", "1", "rogue")
    rogue.daemon.cli("start", "rogue", timeout=300)
    rogue.look()
    assert rogue.answers()


def test_memory(rogue: Rogue) -> None:
    """It has no more than it has: its own kernel ends what wants more, and its hypervisor stays within its limit."""
    assert rogue.limit() == MEMORY + OVERHEAD["tcg"]
    rogue.daemon.cli("exec", "rogue", "sh", "-c", HOG, check=False)
    assert rogue.usage().memory_peak <= rogue.limit()
    assert rogue.usage().oom_kills == 0
    assert rogue.answers()


def test_memory_that_it_says_it_has_given_back(rogue: Rogue) -> None:
    """It throws its balloon away after the update and uses what was in it: the host's limit is the smaller plan's."""
    rogue.daemon.cli("update", "--memory", "96M", "rogue", timeout=300)
    assert rogue.limit() == (96 << 20) + OVERHEAD["tcg"]
    unbind = "cd /sys/bus/virtio/drivers/virtio_balloon && ls -d virtio* > /tmp/names && cat /tmp/names > unbind"
    rogue.daemon.cli("exec", "rogue", "sh", "-c", f"{unbind}; {HOG}", check=False)
    assert rogue.usage().memory_peak <= MEMORY + OVERHEAD["tcg"]
    assert rogue.usage().memory <= rogue.limit()
