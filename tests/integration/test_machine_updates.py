"""The plan of a virtual machine that runs is changed: seen inside, by its kernel, and outside, by the host's limits."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.host import cgroups
from bulkhead.host.qmp import Qmp
from bulkhead.limits.machine import OVERHEAD, workload_memory
from tests.harness.daemon import Daemon
from tests.harness.kernels import kernel_layout

PATIENCE = 120.0
MIB = 1 << 20
SIZE = ("--memory", "128M", "--cpus", "1", "--disk", "64M")
LIKE_ALL = ("--network", "none", "-v", "large:/large", "vm-busybox")
LOOK = """awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo; nproc; cd /sys/fs/cgroup/bulkhead/*/
cat pids.max memory.max cpuset.cpus; df -m / | awk 'NR==2 {print $2}'"""


@pytest.fixture(scope="module")
def vms(module_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """The daemon with an image, a kernel and a template of SIZE."""
    module_daemon.cli("image", "import", busybox_tar, "vm-busybox")
    module_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    run(module_daemon, "--rm", *LIKE_ALL, "true")
    deadline = time.monotonic() + PATIENCE
    while not list((module_daemon.config.cache_dir / "templates").glob("*/key.json")):
        assert time.monotonic() < deadline, "no template was made"
        time.sleep(0.1)
    yield module_daemon


@pytest.fixture(params=["--no-template", ""], ids=["cold", "template"])
def vm(vms: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    """One that runs and does nothing. Its volume lets QEMU write larger files than its disk, so that this can grow."""
    how = [request.param] if request.param else []
    try:
        run(vms, "-d", "--name", "it", *how, *LIKE_ALL, "sleep", "100000")
        argv = Path(f"/proc/{vms.json('inspect', 'it')[0]['pid']}/cmdline").read_bytes()
        assert (b"-incoming" in argv) == (not how)
        yield "it"
    finally:
        vms.cli("rm", "-f", "it")


def run(daemon: Daemon, *arguments: str) -> str:
    """A VM of the small image."""
    return daemon.cli("run", "--isolation", "vm", *SIZE, *arguments).stdout


def inside(daemon: Daemon, name: str) -> dict[str, int]:
    """What the guest's kernel has, in MiB where it is bytes."""
    said = daemon.cli("exec", name, "sh", "-c", LOOK).stdout.split()
    return {
        "memory": int(said[0]),
        "processors": int(said[1]),
        "pids": int(said[2]),
        "memory.max": int(said[3]) // MIB,
        "cpuset": len(said[4].replace("-", "")),
        "disk": int(said[5]),
    }


def allowed(memory: int) -> int:
    """What the workload of a guest with so much memory may use of it, in MiB."""
    return workload_memory(memory * MIB) // MIB


def held(daemon: Daemon, name: str) -> int:
    """Bytes of memory that the host allows the hypervisor, beyond its stated overhead."""
    (row,) = daemon.json("inspect", name)
    layout, group = cgroups.detect(), f"{daemon.config.cgroup}/{row['id']}"
    file = "memory.limit_in_bytes" if layout.version("memory") == 1 else "memory.max"
    return int((layout.path("memory", group) / file).read_text()) - OVERHEAD["tcg"]


def recorded(daemon: Daemon, name: str) -> dict[str, int]:
    """The plan in the store."""
    plan: dict[str, int] = daemon.api("GET", f"/v1/instances/{name}").body["spec"]["plan"]
    return plan


def throttled(daemon: Daemon, name: str) -> dict[str, object]:
    """The disks' limits, as QEMU has them."""
    bundle = daemon.config.instances_dir / daemon.json("inspect", name)[0]["id"]
    with Qmp.open(bundle / "vm", "qmp.sock") as monitor:
        found = monitor.execute("qom-get", {"path": "/objects/plan", "property": "limits"})
    assert isinstance(found, dict)
    return {f"{kind}-{way}": found[f"{kind}-{way}"] for kind in ("iops", "bps") for way in ("read", "write")}


def test_up_and_down_again(vms: Daemon, vm: str) -> None:
    at_first = inside(vms, vm)
    vms.cli("update", "--memory", "256M", "--cpus", "2", "--pids", "77", vm)
    grown = inside(vms, vm)
    assert 120 <= grown["memory"] - at_first["memory"] <= 128
    assert (grown["processors"], grown["cpuset"], grown["pids"], grown["memory.max"]) == (2, 2, 77, allowed(256))
    assert held(vms, vm) == 256 * MIB
    vms.cli("update", "--memory", "128M", "--cpus", "1", "--pids", "512", vm)
    assert inside(vms, vm) == at_first
    assert held(vms, vm) == 128 * MIB
    # Below what it has started with, and from there up.
    vms.cli("update", "--memory", "112M", vm)
    assert at_first["memory"] - inside(vms, vm)["memory"] == 16
    assert held(vms, vm) == 112 * MIB
    vms.cli("update", "--memory", "160M", vm)
    assert 30 <= inside(vms, vm)["memory"] - at_first["memory"] <= 32
    assert recorded(vms, vm)["memory"] == 160 * MIB


def test_disk_limits_come_and_go(vms: Daemon, vm: str) -> None:
    assert not any(throttled(vms, vm).values())
    vms.cli("update", "--iops", "50", "--disk-bps", "1M", vm)
    limits = throttled(vms, vm)
    assert (limits["iops-read"], limits["iops-write"]) == (50, 50)
    assert (limits["bps-read"], limits["bps-write"]) == (MIB, MIB)


def test_a_disk_grows(vms: Daemon, vm: str) -> None:
    """While it runs and while it does not; what is in it stays."""
    vms.cli("exec", vm, "sh", "-c", "echo kept > /file")
    vms.cli("update", "--disk", "128M", vm)
    assert 110 < inside(vms, vm)["disk"] <= 128
    vms.cli("exec", vm, "sh", "-c", "dd if=/dev/zero of=/filled bs=1M count=90 && sync && rm /filled")
    vms.cli("stop", "-t", "0", vm)
    vms.cli("update", "--disk", "200M", vm)
    shrunk = vms.cli("update", "--disk", "64M", vm, check=False)
    assert "cannot shrink" in shrunk.stderr
    vms.cli("start", vm)
    assert 180 < inside(vms, vm)["disk"] <= 200
    assert vms.cli("exec", vm, "cat", "/file").stdout == "kept\n"
    bundle = vms.config.instances_dir / vms.json("inspect", vm)[0]["id"]
    assert (bundle / "disk.img").stat().st_size == 200 * MIB
    assert not (bundle / "disk.grown").exists()


def test_what_cannot_be_changed_is_refused_and_nothing_is(vms: Daemon, vm: str) -> None:
    before = (inside(vms, vm), held(vms, vm))
    refused = vms.cli("update", "--memory", "4G", "--pids", "9", vm, check=False)
    assert refused.returncode == 125
    assert "at most --memory 1G" in refused.stderr
    vms.cli("pause", vm)
    assert "unpause" in vms.cli("update", "--pids", "9", vm, check=False).stderr
    vms.cli("unpause", vm)
    assert (inside(vms, vm), held(vms, vm)) == before


def test_a_guest_that_gives_nothing_back_keeps_its_plan_and_gets_no_more(vms: Daemon, vm: str) -> None:
    """Its memory is full of what cannot be moved out; where its cgroup does not tell, what the guest has left does."""
    hog = "mkdir /hog; mount -t tmpfs -o size=60m none /hog; cat /dev/urandom > /hog/x 2> /dev/null; true"
    vms.cli("exec", vm, "sh", "-c", hog)
    refused = vms.cli("update", "--memory", "80M", vm, check=False)
    assert refused.returncode == 125
    assert "the instance uses more than the new limit allows" in refused.stderr
    assert inside(vms, vm)["memory.max"] == allowed(128)
    vms.cli("exec", vm, "sh", "-c", f"echo 0 > /sys/fs/cgroup/cgroup.procs; umount /hog; {hog}")
    refused = vms.cli("update", "--memory", "80M", vm, check=False)
    assert refused.returncode == 125
    assert "of memory available, 48M would be taken" in refused.stderr
    assert held(vms, vm) == 128 * MIB
    assert recorded(vms, vm)["memory"] == 128 * MIB
    assert vms.cli("exec", vm, "echo", "alive").stdout == "alive\n"


@pytest.mark.parametrize("point", ["update.begin", "update.enforced", "update.disk", "update.saved"])
def test_a_daemon_that_dies_on_the_way_is_followed_by_one_that_carries_it_out(vms: Daemon, vm: str, point: str) -> None:
    vms.restart(env={"BULKHEAD_CRASH_AT": point})
    vms.cli("update", "--memory", "160M", "--pids", "99", "--disk", "96M", vm, check=False)
    assert vms.wait() == -signal.SIGKILL
    vms.start()
    found = inside(vms, vm)
    assert (found["pids"], found["memory.max"]) == (99, allowed(160))
    assert 80 < found["disk"] <= 96
    assert held(vms, vm) == 160 * MIB
    plan = recorded(vms, vm)
    assert (plan["memory"], plan["pids"], plan["disk"]) == (160 * MIB, 99, 96 * MIB)
    bundle = vms.config.instances_dir / vms.json("inspect", vm)[0]["id"]
    assert (bundle / "disk.img").stat().st_size == 96 * MIB
    assert not (bundle / "update.json").exists()
