"""Whoever asks for an instance that moves is answered by the host that has it, and never told that it is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.fleet import Fleet, Host, laboratory
from tests.integration.lives import until
from tests.integration.passages import Slow, arriving, begin, homes

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts: of a move between two of them the third is asked as well."""
    with laboratory(busybox_tar) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it."""
    yield lab.hosts
    lab.reset()


class Lookers:
    """Each host is asked for an instance again and again; `told` are the statuses of all answers."""

    def __init__(self, hosts: list[Host], name: str) -> None:
        self.told: dict[int, int] = {}
        self._name, self._stop = name, threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(host,)) for host in hosts]
        for thread in self._threads:
            thread.start()

    def end(self) -> dict[int, int]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.told

    def _look(self, host: Host) -> None:
        while not self._stop.is_set():
            status = host.daemon.api("GET", f"/v1/instances/{self._name}").status
            self.told[status] = self.told.get(status, 0) + 1


def test_it_is_there_all_the_time(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    begin(alpha, "one")
    lookers = Lookers(hosts, "one")
    try:
        for target in (beta, gamma, alpha, beta):
            gamma.cli("move", "one", "--host", target.name)
    finally:
        told = lookers.end()
    assert set(told) == {200}
    assert told[200] > 20
    assert homes(alpha) == {"one": "beta"}


def under_way(alpha: Host, beta: Host) -> Slow:
    """A slow move of a running instance, once it is being sent."""
    begin(alpha, "one")
    alpha.cli("exec", "one", "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=8")
    slow = Slow(alpha, "one", beta.name)
    until("it arrives", lambda: arriving(beta))
    return slow


@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize("forced", [True, False], ids=["forced", "in order"])
def test_it_is_removed_where_it_is_by_then(hosts: list[Host], asked: int, *, forced: bool) -> None:
    alpha, beta, _ = hosts
    if forced:
        slow = under_way(alpha, beta)
    else:
        begin(alpha, "one")
        alpha.cli("exec", "one", "dd", "if=/dev/urandom", "of=/large", "bs=1M", "count=8")
        alpha.cli("stop", "-t", "0", "one")
        slow = Slow(alpha, "one", "beta")
        until("it arrives", lambda: arriving(beta))
    hosts[asked].cli("rm", *(["-f"] if forced else []), "one")
    assert "moved" in slow.end() or homes(alpha) == {}
    assert [homes(host) for host in hosts] == [{}] * 3
    until("its name is free", lambda: alpha.status()["instances"] == 0)
    alpha.cli("create", "--name", "one", "box", "true")


def test_it_is_stopped_where_it_is_by_then(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    slow = under_way(alpha, beta)
    alpha.cli("stop", "-t", "0", "one")
    slow.end()
    found = gamma.daemon.json("inspect", "one")[0]
    assert found["state"] == "exited"
    assert homes(alpha) == {"one": "beta"}


def test_a_host_that_cannot_ask_does_not_say_that_there_is_none(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    begin(beta, "here")
    alpha.cut()
    try:
        until("it is cut off", lambda: alpha.status().get("error"))
        refused = alpha.daemon.cli("inspect", "nowhere", check=False)
        assert refused.returncode != 0
        assert "whether another one has it cannot be asked" in refused.stderr
        assert beta.cli("exec", "here", "echo", "runs") == "runs\n"
    finally:
        alpha.mend()
    lab.wait_for_all()
    assert "no such instance: nowhere" in alpha.cli("inspect", "nowhere", check=False)
