"""A container or a kernel gone mad within one VM: every other VM, and what is in it, stays well."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.integration.lives import state, until
from tests.integration.machines import run, with_machines
from tests.integration.test_inside import HOME, SERVE, inner, says

BOMB = "bomb() { bomb | bomb & }; bomb; while :; do :; done"
SECONDS = 5.0
"""For which it may do its worst."""


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Iterator[Daemon]:
    """Two VMs with a container in each."""
    with_machines(shared_daemon, busybox_tar)
    for home, name in (("bad", "rogue"), ("good", "victim")):
        run(shared_daemon, home, "sleep 100000", *HOME)
        inner(shared_daemon, name, SERVE, inside=home)
        until(f"{name} serves", partial(serves, shared_daemon, home, name))
    yield shared_daemon


def serves(daemon: Daemon, home: str, name: str) -> bool:
    """Whether it answers its own VM."""
    return daemon.cli("exec", home, "wget", "-qO-", f"http://{name}/", check=False).stdout == "here\n"


def check_the_others(daemon: Daemon) -> None:
    """The neighbour's VM runs and answers, as does what is in it."""
    assert [state(daemon, name) for name in ("good", "victim")] == ["running", "running"]
    assert daemon.cli("exec", "good", "wget", "-qO-", "http://victim/").stdout == "here\n"
    assert daemon.cli("exec", "victim", "cat", "/tmp/index.html").stdout == "here\n"


def test_a_panic_ends_what_is_in_that_machine_alone(bulkhead: Daemon) -> None:
    command = ["sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"]
    answer = bulkhead.api("POST", "/v1/instances/bad/exec", {"command": command, "detach": True})
    assert answer.status < 300, answer
    until("both have ended", lambda: [state(bulkhead, name) for name in ("bad", "rogue")] == ["exited", "exited"])
    ended = bulkhead.json("inspect", "rogue")[0]["exit"]
    assert ended["code"] == 255
    assert "the virtual machine that it was in has ended" in ended["error"]
    check_the_others(bulkhead)
    bulkhead.cli("start", "bad")
    bulkhead.cli("start", "rogue")
    says(bulkhead, "rogue", "serving")


PRY = """
echo c > /proc/sysrq-trigger; echo 1 > /sys/fs/cgroup/memory.max; echo 0 > /sys/fs/cgroup/cgroup.procs
mknod /tmp/disk b 254 0 && cat /tmp/disk | head -c 16; cat /dev/vda; cat /proc/kcore | head -c 16
insmod /x.ko; reboot -f; hostname other; ip link set eth0 address 02:00:00:00:00:01; ip addr add 10.9.9.9/24 dev eth0
unshare -U true && echo unshared; chroot /proc/1/root true; nsenter -t 1 -m true && echo entered
ls /proc | grep -c '^[0-9]'; echo /proc/[0-9]*/root/sys/fs/cgroup/bulkhead
"""


def test_a_containers_root_gets_nowhere_in_its_machine(bulkhead: Daemon) -> None:
    """Nothing that it tries succeeds, its machine goes on, and there is nobody else to be seen."""
    said = bulkhead.cli("exec", "rogue", "sh", "-c", PRY, check=False)
    assert not {"unshared", "ELF"} & set(said.stdout.split()), said
    assert int(next(word for word in said.stdout.split() if word.isdigit())) < 12, "its own processes"
    assert bulkhead.cli("exec", "rogue", "cat", "/sys/fs/cgroup/memory.max").stdout == f"{48 << 20}\n"
    address = bulkhead.json("inspect", "rogue")[0]["address"]
    seen = bulkhead.cli("exec", "rogue", "ip", "addr", "show", "eth0").stdout
    assert address["mac"] in seen
    assert "10.9.9.9" not in seen
    assert [state(bulkhead, name) for name in ("bad", "rogue")] == ["running", "running"]
    check_the_others(bulkhead)


@pytest.mark.parametrize("script", [BOMB, "tail /dev/zero & dd if=/dev/zero of=/fill bs=1M & wait"])
def test_a_rogue_container_is_held_by_its_own_plan(bulkhead: Daemon, script: str) -> None:
    answer = bulkhead.api("POST", "/v1/instances/rogue/exec", {"command": ["sh", "-c", script], "detach": True})
    assert answer.status < 300, answer
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        check_the_others(bulkhead)
    assert state(bulkhead, "bad") == "running"
    bulkhead.cli("rm", "-f", "rogue")
    assert bulkhead.cli("exec", "bad", "echo", "free").stdout == "free\n"
    inner(bulkhead, "next", "echo begun; sleep 1000", inside="bad")
    says(bulkhead, "next", "begun")


def test_a_container_cannot_send_as_its_neighbours(bulkhead: Daemon) -> None:
    """Neither within a VM nor outside of it: nothing comes back to an address that is another's."""
    bulkhead.cli("rm", "-f", "rogue")
    stolen = str(bulkhead.json("inspect", "victim")[0]["address"]["ipv4"])
    gateway = str(bulkhead.json("inspect", "victim")[0]["address"]["gateway4"])
    script = f"ip addr add {stolen}/24 dev eth0; ping -c 2 -W 1 -I {stolen} {gateway}"
    done = bulkhead.cli("exec", "bad", "sh", "-c", script, check=False)
    assert done.returncode != 0
    check_the_others(bulkhead)
