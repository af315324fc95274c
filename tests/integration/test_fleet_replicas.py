"""Copies of disks on other hosts: whole or none, only what has changed, and what is started from them."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.engine.faults import COPIES, REPLICATING, RESTORING
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.kernels import kernel_layout
from tests.harness.witness import Witness
from tests.integration.lives import PLAN, often, until
from tests.integration.passages import LEASE, alone, listed, own, runs_elsewhere, until_running

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(8)]
COPIED = ("--replicas", "1", "--replica-interval", "5s")
SLEEP = ("box", "sleep", "10000")


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts in a fleet, all of which have an image."""
    with laboratory(busybox_tar, everywhere=True, options=("--lease", LEASE)) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it, replicas too."""
    yield lab.hosts
    lab.reset()
    for host in lab.hosts:
        until("no replica is left", lambda host=host: not kept(host))


def kept(host: Host) -> list[str]:
    """Ids of the instances of which a host has a replica, or had."""
    top = host.daemon.config.state_dir / "replicas"
    return [path.name for path in top.iterdir()] if top.exists() else []


def replica(host: Host, name: str = "one") -> dict[str, Any]:
    found = [each for each in host.daemon.json("cluster", "replicas", "--format", "json") if each["name"] == name]
    return dict(found[0]) if found else {}


def begin(host: Host, *options: str) -> str:
    """An instance that runs on a host, with a copy that is whole; its id."""
    host.cli("run", "-d", "--host", host.name, "--name", "one", *COPIED, *PLAN, *options, *SLEEP)
    until("there is a whole copy", lambda: replica(host).get("at"))
    return str(replica(host)["id"])


def write(host: Host, text: str) -> None:
    """Write something, and wait until it is in the copy."""
    host.cli("exec", "one", "sh", "-c", f"echo {text} >>/kept; sync")
    before = replica(host)["at"]
    until("it is copied", lambda: replica(host)["at"] > before)
    before = replica(host)["at"]  # what was under way may have begun earlier
    until("it is copied once more", lambda: replica(host)["at"] > before)


def disk_of(host: Host, instance: str) -> bytes:
    (disk,) = (host.daemon.config.state_dir / "replicas" / instance).glob("disk.*.img")
    return disk.read_bytes()


def test_a_lost_host_s_instance_goes_on_with_its_data(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta)
    write(beta, "first")
    line = replica(alpha)
    assert (line["source"], line["interval"]) == ("beta", 5.0)
    assert line["target"] != "beta"
    assert line["target"] in alpha.cli("cluster", "replicas")
    sold = {each["name"]: each["sold"]["disk"] for each in alpha.status()["hosts"]}
    assert sold[line["target"]] == 64 << 20
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        assert runs_elsewhere(alpha, "one", than=beta) == line["target"]
        assert alpha.cli("exec", "one", "cat", "/kept") == "first\n"
        beta.daemon.start()
        alone(hosts, "one", on=line["target"])
    assert (witness.route, witness.twice) == (["beta", line["target"]], 0)
    # And from there to another one.
    until("there is another copy", lambda: replica(alpha).get("at") and replica(alpha)["source"] == line["target"])
    assert replica(alpha)["target"] != line["target"]


def test_only_what_has_changed_goes_over(hosts: list[Host]) -> None:
    _, beta, _ = hosts
    instance = begin(beta)
    beta.cli("exec", "one", "sh", "-c", "dd if=/dev/urandom of=/large bs=1M count=20; sync")
    write(beta, "second")
    target = next(each for each in hosts if each.name == replica(beta)["target"])
    before = hashlib.sha256(disk_of(target, instance)).hexdigest()
    beta.cli("stop", "-t", "0", "one")
    at = replica(beta)["at"]
    until("it is copied as it ended", lambda: replica(beta)["at"] > at)
    at = replica(beta)["at"]
    until("it is copied again", lambda: replica(beta)["at"] > at)
    disk = beta.daemon.config.instances_dir / instance / "disk.img"
    assert hashlib.sha256(disk_of(target, instance)).digest() == hashlib.sha256(disk.read_bytes()).digest()
    assert hashlib.sha256(disk_of(target, instance)).hexdigest() != before


@pytest.mark.parametrize("point", often([*REPLICATING, *COPIES], ("replicate.copied", "replica.received")))
def test_a_daemon_dies_while_it_is_copied(hosts: list[Host], point: str) -> None:
    alpha, beta, gamma = hosts
    dying = [beta] if point in REPLICATING else [alpha, gamma]
    for host in dying:
        host.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    until("all live", lambda: all(each["alive"] for each in beta.status()["hosts"]))
    beta.cli("run", "-d", "--host", "beta", "--name", "one", *COPIED, *PLAN, *SLEEP, check=False)
    first = until("one of them dies", lambda: next((each for each in dying if each.ended()), None))
    for host in dying:
        if host is first:
            host.daemon.wait()
            host.daemon.start()
        else:
            host.daemon.restart()
    until("there is a whole copy", lambda: replica(alpha).get("at"))
    write(beta, "kept")
    beta.daemon.kill9()
    where = runs_elsewhere(alpha, "one", than=beta)
    assert alpha.cli("exec", "one", "cat", "/kept") == "kept\n"
    beta.daemon.start()
    alone(hosts, "one", on=where)


@pytest.mark.parametrize("point", often([*RESTORING, "recover.created", "recover.started"], RESTORING))
def test_a_daemon_dies_while_it_is_restored(hosts: list[Host], point: str) -> None:
    alpha, beta, gamma = hosts
    instance = begin(beta)
    write(beta, "kept")
    for host in (alpha, gamma):
        host.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    until("all live", lambda: all(each["alive"] for each in beta.status()["hosts"]))
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        first = until("it dies", lambda: next((each for each in (alpha, gamma) if each.ended()), None))
        first.daemon.wait()
        first.daemon.start()
        where = until_running(hosts, "one", but=beta)
        assert alpha.cli("exec", "one", "cat", "/kept") == "kept\n"
        beta.daemon.start()
        alone(hosts, "one", on=where)
    assert witness.twice == 0
    for host in (alpha, gamma):
        host.daemon.restart()


@pytest.mark.thorough
def test_a_replica_s_host_is_lost_and_there_is_another(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    begin(beta)
    first = next(each for each in hosts if each.name == replica(beta)["target"])
    first.daemon.kill9()
    until("there is another copy", lambda: replica(beta)["target"] != first.name and replica(beta)["at"])
    first.daemon.start()
    until("the older one is gone", lambda: not kept(first))
    assert own(beta) == {"one": "running"}
    assert listed(alpha) == {"one": ("beta", "running")}


def test_a_machine_goes_on_with_what_its_guest_has_written(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    for host in hosts:
        host.daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    instance = begin(beta, "--isolation", "vm", "--memory", "128M")
    write(beta, "kept")
    with Witness(hosts, instance) as witness:
        os.kill(beta.daemon.pid, signal.SIGKILL)
        beta.daemon.wait()
        where = runs_elsewhere(alpha, "one", than=beta)
    assert (witness.route, witness.twice) == (["beta", where], 0)
    assert alpha.cli("exec", "one", "cat", "/kept") == "kept\n"


def test_a_moved_instance_keeps_its_copy(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    begin(beta)
    where = replica(beta)["target"]
    beta.cli("move", "one", "--host", where)
    until("the copy is elsewhere", lambda: replica(alpha)["target"] != where and replica(alpha)["at"])
    alpha.cli("rm", "-f", "one")
    until("none is left", lambda: alpha.daemon.json("cluster", "replicas", "--format", "json") == [])


def test_nobody_but_the_instance_s_host_can_send_a_copy(hosts: list[Host]) -> None:
    _, beta, _ = hosts
    instance = begin(beta)
    for host in hosts:
        for method, path in (("POST", f"{instance}/digests"), ("PUT", instance)):
            answer = host.daemon.api(method, f"/v1/fleet/replicas/{path}", {})
            assert answer.status == 403, answer


def test_replicas_are_for_what_is_restarted(hosts: list[Host]) -> None:
    alpha = hosts[0]
    refused = alpha.cli("run", "-d", "--on-host-loss", "restart", *SLEEP, check=False)
    assert "restart needs replicas 1" in refused
    refused = alpha.cli("run", "-d", "--on-host-loss", "stay", "--replicas", "1", *SLEEP, check=False)
    assert "replicas are for on_host_loss restart" in refused
