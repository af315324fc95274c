"""A host of a fleet is lost: what asked for it runs elsewhere, never twice, and all else waits for its host."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.engine.faults import FINISHING, LOSING, RECOVERING, RETURNING
from bulkhead.host import cgroups
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.witness import Witness
from tests.integration.lives import PLAN, often, until
from tests.integration.passages import LEASE, alone, guard_of, listed, own, runs_elsewhere, until_running

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(10)]
RECREATE = ("--on-host-loss", "recreate")
SLEEP = ("box", "sh", "-c", "test -e /kept || echo new >/kept; exec sleep 10000")


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts in a fleet, all of which have an image."""
    with laboratory(busybox_tar, everywhere=True, options=("--lease", LEASE), overcommit_memory=1.0) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it, and their links carry."""
    yield lab.hosts
    lab.reset()


def begin(host: Host, *options: str, name: str = "one") -> str:
    """An instance that runs on a host; its id."""
    host.cli("run", "-d", "--host", host.name, "--name", name, *options, *PLAN, *SLEEP)
    return next(spec["id"] for spec in specs(host) if spec["name"] == name)


def specs(host: Host) -> list[dict[str, Any]]:
    return [each["spec"] for each in host.daemon.json("ps", "-a", "--format", "json")]


def events(host: Host, action: str) -> list[dict[str, Any]]:
    found = map(json.loads, host.cli("events", "--format", "json").splitlines())
    return [each for each in found if each["action"] == action]


def test_the_daemon_of_a_host_is_killed(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE)
    alpha.daemon.cli("run", "-d", "--host", "beta", "--name", "stays", *PLAN, *SLEEP)
    beta.cli("exec", "one", "sh", "-c", "echo written >/kept")
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        where = runs_elsewhere(alpha, "one", than=beta)
    assert (witness.route, witness.twice) == (["beta", where], 0)
    assert witness.gap > 0
    assert alpha.cli("exec", "one", "cat", "/kept") == "new\n"
    layout = cgroups.detect()
    assert any(cgroups.processes(layout, beta.daemon.config.cgroup)), "what stays has not run on"
    beta.daemon.start()
    alpha.daemon.cli("exec", "stays", "true")
    beta.cli("rm", "-f", "stays")
    alone(hosts, "one", on=where)


def test_a_host_is_cut_off(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE)
    beta.cli("run", "-d", "--host", "beta", "--name", "stays", *PLAN, *SLEEP)
    with Witness(hosts, instance) as witness:
        beta.cut()
        where = runs_elsewhere(alpha, "one", than=beta)
        assert "this host's lease is not held" in beta.cli("start", "one", check=False)
        assert beta.cli("exec", "stays", "echo", "runs") == "runs\n"
        beta.mend()
        until("beta is heard of", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
        beta.cli("rm", "-f", "stays")
        alone(hosts, "one", on=where)
    assert (witness.route, witness.twice) == (["beta", where], 0)


def test_the_daemon_of_a_host_stands_still(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE)
    with Witness(hosts, instance) as witness:
        os.kill(beta.daemon.pid, signal.SIGSTOP)
        where = runs_elsewhere(alpha, "one", than=beta)
        assert beta.daemon.wait() == -signal.SIGKILL  # it might have gone on in the middle of a start
        beta.daemon.start()
        alone(hosts, "one", on=where)
    assert (witness.route, witness.twice) == (["beta", where], 0)


@pytest.mark.thorough
def test_everything_of_a_host_is_killed(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE, "--restart", "always")
    layout = cgroups.detect()
    with Witness(hosts, instance) as witness:
        os.kill(guard_of(beta), signal.SIGKILL)
        beta.daemon.kill9()
        for pid in cgroups.processes(layout, beta.daemon.config.cgroup):
            os.kill(pid, signal.SIGKILL)
        where = runs_elsewhere(alpha, "one", than=beta)
        beta.daemon.start()
        alone(hosts, "one", on=where)
    assert (witness.route, witness.twice) == (["beta", where], 0)


@pytest.mark.thorough
def test_a_guard_that_is_killed_is_there_again(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE)
    first = guard_of(beta)
    os.kill(first, signal.SIGKILL)
    until("there is another guard", lambda: guard_of(beta) not in (0, first))
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        where = runs_elsewhere(alpha, "one", than=beta)
    assert (witness.route, witness.twice) == (["beta", where], 0)


def test_etcd_is_gone_for_all(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    begin(beta, *RECREATE)
    beta.cli("exec", "one", "sh", "-c", "echo written >/kept")
    beta.cli("run", "-d", "--host", "beta", "--name", "stays", *PLAN, *SLEEP)
    for number in range(3):
        lab.etcd.kill(number)
    until("what may not run has ended", lambda: own(beta)["one"] == "exited")
    assert beta.cli("exec", "stays", "echo", "runs") == "runs\n"
    assert own(alpha) == {}
    for number in range(3):
        lab.etcd.restart(number, wait=False)
    lab.etcd.wait_for_leader()
    # Nobody has taken it: it goes on, with what it had written.
    until("it runs again", lambda: listed(alpha).get("one") == ("beta", "running"))
    assert alpha.cli("exec", "one", "cat", "/kept") == "written\n"


@pytest.mark.thorough
def test_the_leader_of_etcd_is_killed(lab: Fleet, hosts: list[Host]) -> None:
    _, beta, _ = hosts
    begin(beta, *RECREATE)
    pid = beta.daemon.json("inspect", "one")[0]["pid"]
    leader = lab.etcd.leader()
    lab.etcd.kill(leader)
    lab.etcd.wait_for_leader(other_than=leader)
    until("beta is heard of", lambda: all(each["alive"] for each in beta.status()["hosts"]))
    lab.etcd.restart(leader)
    assert beta.daemon.json("inspect", "one")[0]["pid"] == pid


def test_what_was_stopped_stays_stopped(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    begin(beta, *RECREATE, name="stopped")
    beta.cli("stop", "-t", "0", "stopped")
    until("nothing is to be ended", lambda: guard_of(beta) == 0)
    begin(beta, *RECREATE)
    beta.daemon.kill9()
    runs_elsewhere(alpha, "one", than=beta)
    assert "stopped" not in listed(alpha)
    beta.daemon.start()
    until("beta is heard of", lambda: listed(alpha).get("stopped") == ("beta", "exited"))


def test_the_highest_priority_comes_first_where_room_is_short(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    memory = next(each["sellable"]["memory"] for each in alpha.status()["hosts"] if each["name"] == "alpha")
    third = memory * 3 // 10 >> 20
    for name, priority in (("low", "1"), ("high", "9"), ("middle", "5")):
        plan = ("--memory", f"{third}M", "--cpus", "0.1", "--disk", "32M")
        beta.cli("run", "-d", "--host", "beta", "--name", name, *RECREATE, "--priority", priority, *plan, *SLEEP)
    alpha.cli("run", "-d", "--host", "alpha", "--name", "there", "--memory", f"{third}M", "--disk", "32M", *SLEEP)
    gamma.cli("run", "-d", "--host", "gamma", "--name", "full", "--memory", f"{third * 3}M", "--disk", "32M", *SLEEP)
    beta.daemon.kill9()
    runs_elsewhere(alpha, "high", than=beta)
    runs_elsewhere(alpha, "middle", than=beta)

    def refusals() -> list[dict[str, Any]]:
        return [each for host in (alpha, gamma) for each in events(host, "lost") if each["name"] == "low"]

    (told,) = until("why it is not", refusals)
    assert "memory" in told["attributes"]["why"]
    assert "low" not in listed(alpha)
    alpha.cli("rm", "-f", "there")  # and with room it runs
    runs_elsewhere(alpha, "low", than=beta)
    beta.daemon.start()
    until("beta has nothing", lambda: own(beta) == {})


def test_what_one_host_refuses_the_next_best_starts(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    port = ("-p", "8088:80")
    gamma.cli("run", "-d", "--host", "gamma", "--name", "there", *port, *PLAN, *SLEEP)  # which only gamma knows of
    alpha.cli("run", "-d", "--host", "alpha", "--name", "full", "--memory", "1G", "--disk", "2G", *SLEEP)
    begin(beta, *RECREATE, *port)
    beta.daemon.kill9()
    runs_elsewhere(alpha, "one", than=beta)
    assert listed(alpha)["one"] == ("alpha", "running")
    (taken,) = alpha.status()["taken"]
    assert (taken["name"], taken["lost"], taken["host"]) == ("one", "beta", "alpha")
    first = [each["attributes"]["target"] for host in (alpha, gamma) for each in events(host, "take-over")]
    assert "gamma" in first, "it was not gamma that was asked first"
    (inspected,) = alpha.daemon.json("inspect", "one")
    assert inspected["state"] == "running"
    beta.daemon.start()
    until("beta has nothing", lambda: own(beta) == {})
    until("nothing of it is left on gamma", lambda: list(own(gamma)) == ["there"])
    until("that is told no more", lambda: alpha.status()["taken"] == [])


@pytest.mark.parametrize("point", [*LOSING, *often(RECOVERING, ("recover.created", "recover.confirmed"))])
def test_who_sees_to_it_or_starts_it_dies(hosts: list[Host], point: str) -> None:
    alpha, beta, gamma = hosts
    instance = begin(beta, *RECREATE)
    for host in (alpha, gamma):
        host.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        until("one of them dies", lambda: any(each.ended() for each in (alpha, gamma)))
        for host in (alpha, gamma):  # the other one is not to die as well
            host.daemon.restart()
        where = until_running(hosts, "one", but=beta)
        beta.daemon.start()
        alone(hosts, "one", on=where)
    assert witness.twice == 0
    if point in LOSING:  # of those where it is started the first may have begun it, and the second have it
        assert witness.route == ["beta", where]


@pytest.mark.parametrize("point", often(RETURNING, ("return.erased",)))
def test_a_host_that_returns_dies_again(hosts: list[Host], point: str) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE)
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        where = runs_elsewhere(alpha, "one", than=beta)
        beta.daemon.start(env={"BULKHEAD_CRASH_AT": point})
        beta.daemon.wait()
        beta.daemon.start()
        alone(hosts, "one", on=where)
    assert (witness.route, witness.twice) == (["beta", where], 0)


def test_what_was_removed_while_its_first_host_was_lost_does_not_come_back(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    begin(beta, *RECREATE)
    beta.daemon.kill9()
    runs_elsewhere(alpha, "one", than=beta)
    alpha.cli("rm", "-f", "one")
    beta.daemon.start()
    until("its copy is gone", lambda: not list(beta.daemon.config.instances_dir.iterdir()))
    assert listed(alpha) == {}
    assert alpha.status()["instances"] == 0


@pytest.mark.thorough
def test_it_comes_back_to_a_host_that_had_lost_it(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    instance = begin(beta, *RECREATE)
    with Witness(hosts, instance) as witness:
        beta.daemon.kill9()
        first = runs_elsewhere(alpha, "one", than=beta)
        beta.daemon.start()
        alone(hosts, "one", on=first)
        alpha.cli("move", "one", "--host", "beta")
        alone(hosts, "one", on="beta")
        beta.daemon.kill9()
        second = runs_elsewhere(alpha, "one", than=beta)
        beta.daemon.start()
        alone(hosts, "one", on=second)
    assert (witness.route, witness.twice) == (["beta", first, "beta", second], 0)


def test_what_could_not_be_made_anew_is_refused(hosts: list[Host], tmp_path: Path) -> None:
    alpha = hosts[0]
    options = ("-v", "data:/data", "-v", f"{tmp_path}:/host", "--rm", "--host", "alpha", *RECREATE)
    told = alpha.cli("run", "-d", *options, *PLAN, *SLEEP, check=False)
    for word in ("volume data is lost with the host", str(tmp_path), "removed as soon as it has ended"):
        assert word in told, told
    assert "decides nothing of what waits" in alpha.cli("run", "-d", "--priority", "5", *SLEEP, check=False)
    assert listed(alpha) == {}


@pytest.mark.parametrize("point", ["leave.sent", *FINISHING])
def test_the_source_of_a_move_is_lost_after_it_was_sent(hosts: list[Host], point: str) -> None:
    """Of what waits for its host as well: it had been stopped there before it was sent."""
    alpha, beta, gamma = hosts
    instance = begin(beta)
    beta.cli("exec", "one", "sh", "-c", "echo written >/kept")
    beta.daemon.restart(env={"BULKHEAD_CRASH_AT": "leave.sent"})
    if point in FINISHING:
        gamma.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    with Witness(hosts, instance) as witness:
        beta.cli("move", "one", "--host", "gamma", check=False)
        beta.daemon.wait()
        if point in FINISHING:
            gamma.daemon.wait(timeout=120)
            gamma.daemon.start()
        until("it runs there", lambda: listed(alpha).get("one") == ("gamma", "running"))
        assert alpha.cli("exec", "one", "cat", "/kept") == "written\n"
        beta.daemon.start()
        alone(hosts, "one", on="gamma")
    assert (witness.route, witness.twice) == (["beta", "gamma"], 0)
