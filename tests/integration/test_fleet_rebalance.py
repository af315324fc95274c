"""bulkhead rebalance on a real fleet: load goes where there is less of it, once; whole hosts are freed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.fleet import Fleet, Host, laboratory
from tests.integration.lives import until
from tests.integration.passages import listed

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(5)]


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts in a fleet, each with an image."""
    with laboratory(busybox_tar, everywhere=True, tls=False, overcommit_memory=1.0) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it, and all take instances."""
    yield lab.hosts
    for host in lab.hosts:
        lab.hosts[0].cli("host", "undrain", host.name)
    lab.reset()


def rebalance(host: Host, *options: str, code: int = 0) -> dict[str, Any]:
    done = host.daemon.cli("rebalance", "--format", "json", *options, check=False)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def sells(host: Host) -> int:
    """Bytes of memory that a host has to sell."""
    (found,) = [each for each in host.daemon.json("host", "ls", "--format", "json") if each["name"] == host.name]
    memory: int = found["sellable"]["memory"]
    return memory


def fill(host: Host, count: int, part: float, *, prefix: str = "i") -> None:
    """So many instances, each with that part of the host's memory."""
    size = f"{int(sells(host) * part) >> 20}M"
    for number in range(count):
        words = ("run", "-d", "--host", host.name, "--name", f"{prefix}{number}", "-m", size, "--disk", "64M")
        host.cli(*words, "box", "sleep", "100000")


def test_load_goes_where_there_is_less_of_it_and_only_once(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    fill(alpha, 6, 0.1)
    table = beta.daemon.cli("rebalance", "--dry-run", "--by", "sold")
    assert table.stdout.splitlines()[0].split() == ["NAME", "FROM", "TO", "HOW", "GAIN", "DOWN", "SIZE"]
    assert "above the mean" in table.stderr
    assert {at for at, _ in listed(alpha).values()} == {"alpha"}
    done = rebalance(beta, "--by", "sold")  # asked of a host that has none of them
    assert done["done"] and len(done["moves"]) >= 2
    assert all(each["done"] and each["downtime"] > 0 and each["gain"] >= 0.03 for each in done["moves"])
    found = listed(gamma)
    assert {at for at, _ in found.values()} == {"alpha", "beta", "gamma"}
    assert {state for _, state in found.values()} == {"running"}
    again = rebalance(gamma, "--by", "sold")
    assert again["moves"] == []
    assert again["reason"].startswith("nothing worth moving")
    assert listed(gamma) == found
    assert "nothing worth moving" in alpha.daemon.cli("rebalance").stderr  # they only sleep


def test_a_whole_host_is_freed_and_the_power_told(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    fill(alpha, 3, 0.05)
    fill(beta, 1, 0.05, prefix="j")
    assert "what hosts draw is not known" in alpha.daemon.cli("rebalance", "--consolidate", "--dry-run").stderr
    refused = alpha.cli("host", "label", "alpha", "power.idle=much", check=False)
    assert "no number of watts" in refused
    for host in hosts:
        alpha.cli("host", "label", host.name, "power.idle=100", "power.peak=250")
    found = rebalance(alpha, "--consolidate")
    assert [(each["host"], each["done"]) for each in found["freed"]] == [("beta", True)]
    assert 50 < found["watts"] <= 100
    assert {at for at, _ in listed(alpha).values()} == {"alpha"}
    states = {each["name"]: each["state"] for each in alpha.status()["hosts"]}
    assert states == {"alpha": "ready", "beta": "draining", "gamma": "ready"}
    assert rebalance(alpha, "--consolidate")["moves"] == []


def test_rules_hold_and_what_cannot_leave_stays(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    size = f"{int(sells(alpha) * 0.1) >> 20}M"
    words = ("run", "-d", "--host", "alpha", "-m", size, "--disk", "64M", "--label", "app=x")
    for number in range(3):
        alpha.cli(*words, "--name", f"a{number}", "box", "sleep", "100000")
    for host in (beta, gamma):
        at = ("run", "-d", "--host", host.name, "--disk", "64M", "--name", f"away-{host.name}")
        host.cli(*at, "--anti-affinity", "app=x", "box", "sleep", "100000")
    found = rebalance(alpha, "--by", "sold")
    assert found["moves"] == []
    assert "allowed" in found["reason"]
    assert {at for name, (at, _) in listed(beta).items() if name.startswith("a") and "-" not in name} == {"alpha"}


def test_it_is_an_operation_that_can_be_cancelled(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    fill(alpha, 6, 0.1)
    for name in listed(alpha):
        alpha.cli("exec", name, "sh", "-c", "dd if=/dev/urandom of=/data bs=1M count=40 2>/dev/null; sync")
    begun = beta.daemon.api("POST", "/v1/fleet/rebalance?detach=true", {"by": "sold"})
    assert begun.status == 202, begun
    path = f"/v1/operations/{begun.body['id']}"
    until("a move is under way", lambda: " goes from alpha to " in str(beta.daemon.api("GET", path).body["progress"]))
    assert beta.daemon.api("DELETE", path).status == 202
    until("it has ended", lambda: beta.daemon.api("GET", path).body["state"] != "running")
    assert beta.daemon.api("GET", path).body["state"] == "cancelled"
    until("all run", lambda: {state for _, state in listed(alpha).values()} == {"running"})
    found = [at for at, _ in listed(alpha).values()]
    assert len(found) == 6
    assert found.count("alpha") >= 4  # of three or more moves one at most was under way


def test_what_makes_no_sense_is_refused(hosts: list[Host]) -> None:
    alpha = hosts[0]
    assert "no number from 1 to 1000" in alpha.cli("rebalance", "--most-moves", "0", check=False)
    refused = alpha.daemon.api("POST", "/v1/fleet/rebalance", {"most_moves": 0, "by": "luck"})
    assert refused.status == 422
