"""Links that are slow: nothing wrong is decided for it, and what was promised of a rate is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkhead.engine.fleet.member import LEASE_SECONDS
from tests.harness.fleet import Fleet, Host, laboratory
from tests.integration.lives import until
from tests.integration.passages import homes

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(5)]
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Two hosts, each of which has the image."""
    with laboratory(busybox_tar, 2, everywhere=True) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it."""
    lab.wait_for_all()
    yield lab.hosts
    lab.reset()


def begin(host: Host, megabytes: int = 0) -> None:
    host.cli("run", "-d", "--host", host.name, "--name", "one", "box", "sleep", "1000")
    if megabytes:
        host.cli("exec", "one", "dd", "if=/dev/urandom", "of=/large", "bs=1M", f"count={megabytes}")


def digest(host: Host) -> str:
    return host.cli("exec", "one", "sha256sum", "/large")


def alive(host: Host) -> dict[str, bool]:
    return {each["name"]: each["alive"] for each in host.status().get("hosts", [])}


def test_a_late_link_is_no_lost_host(hosts: list[Host]) -> None:
    """Everything takes longer; no lease runs out, and every verb works from both sides."""
    alpha, beta = hosts
    begin(beta)
    pid = beta.daemon.json("inspect", "one")[0]["pid"]
    with beta.slowed(delay=0.15) as link:
        deadline = time.monotonic() + 2.5 * LEASE_SECONDS
        looks = 0
        while time.monotonic() < deadline:
            assert alive(alpha) == {"alpha": True, "beta": True}
            looks += 1
        assert looks > 2
        assert alpha.cli("exec", "one", "echo", "answers") == "answers\n"
        beta.cli("create", "--name", "two", "--host", "alpha", "box")
        assert homes(alpha) == {"one": "beta", "two": "alpha"}
        assert link.carried > 0
    assert beta.daemon.json("inspect", "one")[0]["pid"] == pid


@pytest.mark.thorough
def test_a_link_that_is_too_late_is_missed_and_heals(hosts: list[Host]) -> None:
    """No answer of etcd's comes in time: the host is not heard of. It knows that it knows nothing, and runs on."""
    alpha, beta = hosts
    begin(beta)
    pid = beta.daemon.json("inspect", "one")[0]["pid"]
    with beta.slowed(delay=6.0):
        until("it is missed", lambda: alive(alpha).get("beta") is False)
        refused = beta.daemon.cli("create", "--name", "two", "box", check=False)
        assert refused.returncode == 125
        assert "etcd" in refused.stderr
        assert beta.daemon.cli("exec", "one", "echo", "runs on").stdout == "runs on\n"
    until("all live", lambda: all(alive(alpha).values()))
    assert homes(alpha) == {"one": "beta"}
    assert beta.daemon.json("inspect", "one")[0]["pid"] == pid


def test_a_move_over_a_thin_link_is_foreseen_and_arrives_whole(hosts: list[Host]) -> None:
    alpha, beta = hosts
    begin(alpha, 12)
    before = digest(alpha)
    with beta.slowed(delay=0.02, rate=2 * MEGABYTE) as link:
        moved = json.loads(alpha.cli("move", "one", "--host", "beta", "--format", "json"))
    passage = moved["hosts"]
    assert passage["done"] is True
    assert passage["rate"] < 4 * MEGABYTE, "it was measured what the link takes"
    assert passage["predicted"] > passage["size"] / (4 * MEGABYTE)
    assert passage["sent"] >= 12 * MEGABYTE
    assert link.carried > passage["sent"]
    assert digest(beta) == before
    assert homes(alpha) == {"one": "beta"}


@pytest.mark.thorough
def test_a_rate_that_was_asked_for_is_not_exceeded(hosts: list[Host]) -> None:
    alpha, beta = hosts
    begin(alpha, 12)
    before, rate = digest(alpha), 3 * MEGABYTE
    with beta.slowed(delay=0.05):
        options = ("--host", "beta", "--rate", "3M", "--format", "json")
        passage = json.loads(alpha.cli("move", "one", *options))["hosts"]
    assert passage["sent"] >= 12 * MEGABYTE
    # One portion may go before the first is counted.
    assert passage["phases"]["send"] >= (passage["sent"] - 2 * MEGABYTE) / rate
    assert digest(beta) == before


def test_a_link_that_fails_in_the_middle_of_a_slow_move_leaves_one_copy(hosts: list[Host]) -> None:
    alpha, beta = hosts
    begin(alpha, 12)
    before = digest(alpha)
    with beta.slowed(rate=MEGABYTE) as link:
        argv, seen = ("move", "one", "--host", "beta"), link.carried
        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(lambda: alpha.daemon.cli(*argv, check=False, timeout=600.0))
            # The way is measured by eight of them first.
            until("its disk is on its way", lambda: link.carried > seen + 10 * MEGABYTE)
            link.end()
            told = moving.result()
        assert told.returncode != 0, told.stdout
    until("all live", lambda: all(alive(alpha).values()))
    until("it runs where it was", lambda: homes(alpha) == {"one": "alpha"})
    until("it answers", lambda: alpha.daemon.cli("exec", "one", "true", check=False).returncode == 0)
    assert digest(alpha) == before
