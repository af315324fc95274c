"""Audits of real instances: what must hold behind each wall, that nothing is left, and that a tenant cannot lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness import unikernels
from tests.harness.daemon import Daemon
from tests.integration.lives import PLAN, client, until, with_image
from tests.integration.machines import IMAGE, SIZE, with_machines

USELESS = {"init_module", "bpf", "mount", "unshare", "setns", "keyctl", "io_uring_setup", "userfaultfd", "kexec_load"}
IDLE = ("sleep", "infinity")


@pytest.fixture
def bulkhead(shared_daemon: Daemon, busybox_tar: Path) -> Daemon:
    """A daemon that has the image busybox."""
    return with_image(shared_daemon, busybox_tar, "busybox")


def audit(daemon: Daemon, *words: str) -> dict[str, Any]:
    """A report."""
    found: dict[str, Any] = daemon.json("audit", "--format", "json", *words)
    return found


def rules(report: dict[str, Any]) -> set[str]:
    """What costs points."""
    return {finding["rule"] for finding in report["findings"] if finding["weight"]}


def calls(report: dict[str, Any], abi: str = "x86_64", user: str = "root") -> dict[str, Any]:
    """System calls of an architecture, tried as a user."""
    return next(dict(each) for each in report["calls"] if (each["abi"], each["user"]) == (abi, user))


def test_a_container(bulkhead: Daemon) -> None:
    bulkhead.cli("run", "-d", "--name", "other", *PLAN, "busybox", *IDLE)
    bulkhead.cli("run", "-d", "--name", "web", "--user", "1000", *PLAN, "busybox", *IDLE)
    before = bulkhead.cli("exec", "--user", "0", "web", "find", "/", "-xdev").stdout
    found = audit(bulkhead, "web")
    assert found["complete"] and found["score"] >= 80, found["deductions"]
    assert found["process"]["shared"] == [] and found["process"]["root_uid"] >= bulkhead.config.uid_base
    assert not rules(found) - {"kernel", "i386", "reaches-host", "reaches-network"}, found["findings"]
    for user in ("root", "workload"):
        reached = calls(found, user=user)
        assert not USELESS & set(reached["reachable"]), user
        assert {"unshare", "mount", "bpf"} <= {*reached["filtered"], *reached["guarded"]}
        assert reached["counts"]["reachable"] < 300 and reached["counts"]["closed"] == 0, "there was a reference"
        assert not calls(found, "i386", user)["counts"]["closed"]
    gone = [each["cve"] for each in found["exploits"] if not each["reachable"]]
    assert {"CVE-2022-0185", "CVE-2024-1086", "CVE-2022-2602", "CVE-2021-3490", "CVE-2024-50264"} <= set(gone)
    network = next(each["detail"] for each in found["findings"] if each["rule"] == "reaches-network")
    address = bulkhead.json("inspect", "other")[0]["address"]["ipv4"]
    assert network == address, "an instance of its network answers, as networking.md says"
    assert bulkhead.cli("exec", "--user", "0", "web", "find", "/", "-xdev").stdout == before, "nothing is left"
    assert bulkhead.cli("exec", "web", "ps").stdout.count("audit") == 0
    bulkhead.cli("rm", "-f", "web", "other")


def test_networks_are_apart(bulkhead: Daemon) -> None:
    bulkhead.cli("network", "create", "apart")
    bulkhead.cli("run", "-d", "--name", "far", "--network", "apart", *PLAN, "busybox", *IDLE)
    found = audit(bulkhead, "--level", "container", "--image", "busybox")
    assert not rules(found) & {"reaches-others", "reaches-tenants"}
    assert len(bulkhead.json("ps", "-a", "--format", "json")) == 1
    bulkhead.cli("rm", "-f", "far")
    bulkhead.cli("network", "rm", "apart")


def test_what_is_opened_by_hand_is_found(bulkhead: Daemon, tmp_path: Path) -> None:
    options = ("-v", f"{tmp_path}:/srv", "--network", "host")
    bulkhead.cli("run", "-d", "--name", "loose", *options, *PLAN, "busybox", *IDLE)
    found = audit(bulkhead, "loose")
    assert {"host-path /srv", "namespace-net"} <= rules(found)
    (path,) = found["process"]["host_paths"]
    assert path == {"target": "/srv", "source": str(tmp_path), "read_only": False}
    assert "mount it with :ro, or use a volume" in found["raises"]
    bulkhead.cli("rm", "-f", "loose")


def test_a_chroot(bulkhead: Daemon) -> None:
    found = audit(bulkhead, "--level", "chroot", "--image", "busybox")
    assert found["score"] < 30
    shared = set(found["process"]["shared"])
    assert {"user", "pid", "net", "ipc", "uts"} <= shared and "mnt" not in shared
    assert {"namespace-user", "no-filter", "userns", "mounts"} <= rules(found)
    assert not {rule for rule in rules(found) if rule.startswith(("device", "node-opened"))}, "no device of the host's"


def test_a_workload_that_lies_gets_no_score(bulkhead: Daemon) -> None:
    """It shares its user with the probe, and stops or ends whatever it sees beside itself."""
    script = "while :; do for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p -gt 1 ] && kill -9 $p; done; done"
    bulkhead.cli("run", "-d", "--name", "liar", *PLAN, "busybox", "sh", "-c", script)
    found = audit(bulkhead, "liar")
    assert found["score"] is None and not found["complete"]
    assert found["process"]["shared"] == [], "the host's word is there all the same"
    bulkhead.cli("rm", "-f", "liar")


def test_what_does_not_run_is_refused(bulkhead: Daemon) -> None:
    bulkhead.cli("create", "--name", "idle", *PLAN, "busybox", *IDLE)
    done = bulkhead.cli("audit", "idle", check=False)
    assert done.returncode == 125 and "not running" in done.stderr and "bulkhead start idle" in done.stderr
    bulkhead.cli("rm", "idle")


def test_a_daemon_that_dies_meanwhile_leaves_nothing(bulkhead: Daemon) -> None:
    with client(bulkhead, "audit", "--level", "container", "--image", "busybox"):
        until("the instance runs", lambda: "running" in bulkhead.cli("ps", "--format", "json").stdout)
        bulkhead.kill9()
    bulkhead.start()
    assert bulkhead.json("ps", "-a", "--format", "json") == []


@pytest.mark.timeout(900)
def test_a_machine_what_is_in_it_and_a_unikernel(module_daemon: Daemon, busybox_tar: Path, tmp_path: Path) -> None:
    with_machines(module_daemon, busybox_tar)
    module_daemon.cli("run", "-d", "--name", "vm", "--isolation", "vm", *SIZE, "--network", "none", IMAGE, *IDLE)
    found = audit(module_daemon, "vm")
    assert found["score"] >= 95 and found["process"] is None and found["kernel"] != found["host_kernel"]
    jail = found["hypervisor"]
    assert jail["shared"] == [] and jail["bounding"] == [] and jail["seccomp"] == 2 and jail["no_new_privs"]
    assert jail["root_uid"] >= module_daemon.config.uid_base and jail["host_paths"] == []
    assert {each["side"] for each in found["findings"] if each["rule"] == "module_load"} == {"guest"}
    assert "init_module" in calls(found)["reachable"]
    module_daemon.cli("rm", "-f", "vm")

    kernel = unikernels.banner(tmp_path, multiboot=False)
    module_daemon.cli("image", "import", "--unikernel", kernel, "others/pvh")
    least = ("--memory", "8M", "--cpus", "1", "--disk", "16M", "--network", "none")
    module_daemon.cli("run", "-d", "--name", "uni", "--isolation", "unikernel", *least, "others/pvh")
    found = audit(module_daemon, "uni")
    assert found["score"] >= 95 and not found["probed"] and found["calls"] == [] and found["notes"]
    assert found["hypervisor"]["shared"] == [] and found["hypervisor"]["bounding"] == []
    module_daemon.cli("rm", "-f", "uni")
