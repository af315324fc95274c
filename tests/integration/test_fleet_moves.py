"""Instances go from one host of a fleet to another: exactly one copy, whatever is killed on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.engine.faults import ARRIVING, LEAVING, STAYING
from tests.harness import computers
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.kernels import kernel_layout
from tests.integration.lives import until
from tests.integration.passages import Slow, arriving, begin, guard_of, listed, move, own, where

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(6)]


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Two hosts in a fleet, the first of which has an image."""
    with laboratory(busybox_tar, 2, options=("--lease", "120s")) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it, and their links carry."""
    yield lab.hosts
    lab.reset()
    for host in lab.hosts:
        until("nothing arrives", lambda host=host: not arriving(host))


def spec(host: Host) -> dict[str, Any]:
    """Of the only instance."""
    (found,) = host.daemon.json("ps", "-a", "--format", "json")
    result: dict[str, Any] = found["spec"]
    return result


@pytest.mark.parametrize("level", ["container", "chroot"])
def test_a_running_instance_goes_with_its_data_and_its_log(hosts: list[Host], level: str) -> None:
    alpha, beta = hosts
    script = "echo began; id -u; exec sleep 1000"
    alpha.cli("run", "-d", "--host", "alpha", "--name", "one", "--isolation", level, "box", "sh", "-c", script)
    alpha.cli("exec", "one", "sh", "-c", "echo kept >/kept; chown 7:8 /kept; chmod 640 /kept; mkdir /dir; ln -s x /l")
    before = spec(alpha)
    moved = move(beta, "one", beta)  # asked for at another host than the one that has it
    passage = moved["hosts"]
    assert (passage["source"], passage["target"], passage["done"]) == ("alpha", "beta", True)
    assert set(passage["phases"]) == {"prepare", "stop", "send", "hand-over", "start", "erase"}
    assert moved["downtime"] > 0
    assert passage["sent"] > 0
    assert moved["dropped"] == []
    for host in hosts:
        assert listed(host) == {"one": ("beta", "running")}
    assert spec(alpha) == before
    found = alpha.cli("exec", "one", "sh", "-c", "cat /kept; stat -c %u:%g:%a /kept; readlink /l; test -d /dir")
    assert found == "kept\n7:8:640\nx\n"
    assert alpha.cli("logs", "one").count("began") == 2
    assert not list(alpha.daemon.config.instances_dir.iterdir())
    assert {each["name"]: each["instances"] for each in alpha.status()["hosts"]} == {"alpha": 0, "beta": 1}
    # And back.
    move(alpha, "one", alpha)
    assert beta.cli("exec", "one", "cat", "/kept") == "kept\n"
    assert listed(beta) == {"one": ("alpha", "running")}


def test_a_stopped_instance_goes_as_it_is(hosts: list[Host], tmp_path: Path) -> None:
    alpha, beta = hosts
    alpha.cli("run", "--host", "alpha", "--name", "one", "box", "sh", "-c", "echo kept >/kept; exit 3", check=False)
    alpha.cli("create", "--host", "alpha", "--name", "two", "box", "echo", "runs")
    assert move(alpha, "one", beta)["downtime"] == 0
    move(alpha, "two", beta)
    assert listed(alpha) == {"one": ("beta", "exited"), "two": ("beta", "created")}
    beta.cli("cp", "one:/kept", str(tmp_path / "kept"))
    assert (tmp_path / "kept").read_text() == "kept\n"
    beta.cli("start", "two")
    until("it has run", lambda: beta.cli("logs", "two") == "runs\n")


def test_everything_that_stands_in_the_way_is_told_at_once(hosts: list[Host], tmp_path: Path) -> None:
    alpha, beta = hosts
    alpha.cli("network", "create", "own")
    alpha.cli("volume", "create", "data")
    alpha.cli(
        *(
            "run",
            "-d",
            "--host",
            "alpha",
            "--name",
            "one",
            "--rm",
            "--network",
            "own",
            "-v",
            "data:/data",
            "-v",
            f"{tmp_path}:/host",
        ),
        *("-p", "127.0.0.1:8099:80", "box", "sleep", "1000"),
    )
    beta.cli("run", "-d", "--host", "beta", "--name", "other", "-p", "127.0.0.1:8099:80", "box", "sleep", "1000")
    refused = alpha.cli("move", "one", "--host", "beta", "--dry-run", check=False)
    for word in ("volume data", f"host's {tmp_path}", "removed as soon as it has ended", "network 'own'", "8099"):
        assert word in refused, refused
    assert listed(beta)["one"] == ("alpha", "running")
    alpha.cli("stop", "-t", "0", "one")
    alpha.cli("network", "rm", "own")
    alpha.cli("volume", "rm", "data")
    alpha.cli("run", "-d", "--host", "alpha", "--name", "two", "box", "sleep", "1000")
    alpha.cli("snapshot", "create", "two")
    assert "snapshots, which stay" in alpha.cli("move", "two", "--host", "beta", check=False)
    assert "is on host alpha already" in alpha.cli("move", "two", "--host", "alpha", check=False)
    assert "do one after the other" in alpha.cli("move", "two", "--host", "beta", "--isolation", "vm", check=False)
    assert "no such host: gamma" in alpha.cli("move", "two", "--host", "gamma", check=False)


def test_what_would_happen_is_said_without_doing_it(hosts: list[Host]) -> None:
    alpha, beta = hosts
    alpha.cli("run", "-d", "--host", "alpha", "--name", "one", "box", "sleep", "1000")
    moved = move(alpha, "one", beta, "--dry-run")
    passage = moved["hosts"]
    assert passage["done"] is False
    assert passage["predicted"] > 0
    assert passage["rate"] > 0
    assert passage["sent"] == 0
    assert "nothing stands in the way" in alpha.cli("move", "one", "--host", "beta", "--dry-run")
    assert listed(alpha) == {"one": ("alpha", "running")}
    assert not arriving(beta)


def settled(hosts: list[Host], name: str) -> str:
    """Wait until one host has it, running, with what was written, and the other has nothing; which one that is."""
    found = where(hosts, name)
    for host in hosts:
        assert host.cli("exec", name, "cat", "/kept") == "kept\n"
    return found


def test_a_daemon_that_is_back_in_time_changes_nothing(hosts: list[Host]) -> None:
    """Before its lease ends, that is: nothing of what would be started elsewhere is ended."""
    alpha, beta = hosts
    beta.cli("run", "-d", "--host", "beta", "--name", "one", "--on-host-loss", "recreate", "box", "sleep", "1000")
    pid = beta.daemon.json("inspect", "one")[0]["pid"]
    assert guard_of(beta)
    beta.daemon.kill9()
    beta.daemon.start()
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    until("it runs", lambda: own(beta).get("one") == "running")
    assert beta.daemon.json("inspect", "one")[0]["pid"] == pid
    beta.cli("rm", "-f", "one")
    until("its guard has ended", lambda: guard_of(beta) == 0)


AFTER = LEAVING.index("leave.handed")


@pytest.mark.parametrize("point", LEAVING)
def test_the_source_s_daemon_dies(hosts: list[Host], point: str) -> None:
    alpha = hosts[0]
    begin(alpha, "one")
    alpha.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    alpha.cli("move", "one", "--host", "beta", check=False)
    alpha.daemon.wait()
    alpha.daemon.start()
    assert settled(hosts, "one") == ("beta" if LEAVING.index(point) >= AFTER else "alpha")


@pytest.mark.parametrize("point", ARRIVING)
def test_the_target_s_daemon_dies(hosts: list[Host], point: str) -> None:
    alpha, beta = hosts
    begin(alpha, "one")
    beta.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    alpha.cli("move", "one", "--host", "beta", check=False)
    beta.daemon.wait()
    beta.daemon.start()
    assert settled(hosts, "one") == ("alpha" if point in ("arrive.begun", "arrive.received") else "beta")


@pytest.mark.parametrize("point", STAYING)
def test_the_source_s_daemon_dies_while_it_takes_back(hosts: list[Host], point: str) -> None:
    alpha, beta = hosts
    begin(alpha, "one")
    beta.daemon.restart(env={"BULKHEAD_CRASH_AT": "arrive.begun"})
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    alpha.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    alpha.cli("move", "one", "--host", "beta", check=False)
    beta.daemon.wait()
    alpha.daemon.wait()
    beta.daemon.start()
    alpha.daemon.start()
    assert settled(hosts, "one") == "alpha"


def begin_slow(hosts: list[Host], megabytes: int) -> Slow:
    """A move of so much from the first host to the second, once bytes of it arrive there."""
    alpha, beta = hosts
    begin(alpha, "one")
    alpha.cli("exec", "one", "dd", "if=/dev/urandom", "of=/large", "bs=1M", f"count={megabytes}")
    slow = Slow(alpha, "one", "beta")
    until("it arrives", lambda: arriving(beta))
    return slow


def test_a_move_that_nobody_wants_any_more_leads_back(hosts: list[Host]) -> None:
    slow = begin_slow(hosts, 40)
    slow.interrupt()
    slow.end()
    assert settled(hosts, "one") == "alpha"


@pytest.mark.parametrize("number", [0, 1])
def test_a_link_is_cut_while_it_is_sent(hosts: list[Host], number: int) -> None:
    slow = begin_slow(hosts, 30)
    hosts[number].cut()
    told = slow.end()
    hosts[number].mend()
    assert "moved" in told
    until("all live", lambda: all(each["alive"] for each in hosts[0].status()["hosts"]))
    assert settled(hosts, "one") == "alpha"


def test_the_target_is_cut_off_after_it_was_handed_over(hosts: list[Host]) -> None:
    alpha, beta = hosts
    begin(alpha, "one")
    beta.daemon.restart(env={"BULKHEAD_CRASH_AT": "arrive.recorded"})
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    told = alpha.cli("move", "one", "--host", "beta", check=False)
    assert "does not say yet whether it runs" in told
    beta.daemon.wait()
    beta.cut()
    beta.daemon.start()
    assert listed(alpha) == {}
    beta.mend()
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    assert settled(hosts, "one") == "beta"


def test_etcd_is_away_when_it_is_to_be_handed_over(lab: Fleet, hosts: list[Host]) -> None:
    alpha = hosts[0]
    slow = begin_slow(hosts, 12)
    alpha.cli("run", "-d", "--host", "alpha", "--name", "other", "box", "sleep", "1000")
    for number in range(3):
        lab.etcd.kill(number)
    told = slow.end()
    assert "is not known yet" in told
    # Nobody may start it now, nor may a daemon that begins: all others run.
    assert "may be there by now" in alpha.cli("start", "one", check=False)
    alpha.daemon.restart()
    assert "may be there by now" in alpha.cli("start", "one", check=False)
    assert alpha.cli("exec", "other", "echo", "runs") == "runs\n"
    for number in range(3):
        lab.etcd.restart(number, wait=False)
    lab.etcd.wait_for_leader()
    until("etcd is back", lambda: not alpha.status().get("error", "not yet"))
    alpha.cli("rm", "-f", "other")
    assert settled(hosts, "one") == "alpha"


def test_nobody_but_a_host_with_a_move_can_send_an_instance(hosts: list[Host]) -> None:
    alpha, beta = hosts
    begin(alpha, "one")
    arrivals = f"/v1/fleet/arrivals/{spec(alpha)['id']}"
    for method, path in (
        ("POST", "/v1/fleet/arrivals"),
        ("PUT", arrivals),
        ("POST", f"{arrivals}/settle?move={'a' * 32}"),
        ("POST", f"{arrivals}/stream?move={'a' * 32}&to=disk"),
        ("PUT", f"{arrivals}/rest?move={'a' * 32}"),
    ):
        answer = beta.daemon.api(method, path, {})
        assert answer.status == 403, answer
    assert not arriving(beta)


def test_a_machine_goes_with_what_its_guest_has_written(hosts: list[Host]) -> None:
    alpha, beta = hosts
    for host in hosts:
        host.daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    alpha.cli("run", "-d", "--host", "alpha", "--name", "one", "--isolation", "vm", "box", "sleep", "10000")
    alpha.cli("exec", "one", "sh", "-c", "echo kept >/kept; sync")
    told = alpha.cli("move", "one", "--host", "beta", check=False)
    assert "network default" in told and "--stop" in told
    moved = move(alpha, "one", beta, "--stop")
    assert (moved["dropped"], moved["hosts"]["way"]) == ([], "stop-copy-start")
    assert settled(hosts, "one") == "beta"


def test_what_was_removed_where_it_went_does_not_come_back(hosts: list[Host]) -> None:
    alpha, beta = hosts
    begin(alpha, "one")
    alpha.daemon.restart(env={"BULKHEAD_CRASH_AT": "leave.handed"})
    alpha.cli("move", "one", "--host", "beta", check=False)
    alpha.daemon.wait()
    until("it has arrived", lambda: listed(beta).get("one") == ("beta", "running"))
    beta.cli("rm", "-f", "one")
    alpha.daemon.start()
    until("its old copy is gone", lambda: not list(alpha.daemon.config.instances_dir.iterdir()))
    assert listed(beta) == {}
    assert beta.status()["instances"] == 0


def test_an_unmodified_system_goes_with_its_disk(hosts: list[Host], tmp_path: Path) -> None:
    alpha, beta = hosts
    alpha.cli("image", "import", str(computers.make(tmp_path / "disk.raw")), "disk/small")
    size = ("--memory", "48M", "--cpus", "1", "--disk", "40M")
    alpha.cli("run", "-d", "--host", "alpha", "--isolation", "vm", *size, "--name", "small", "disk/small")
    alpha.cli("stop", "-t", "0", "small")

    def files(host: Host) -> dict[str, str]:
        (bundle,) = host.daemon.config.instances_dir.iterdir()
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.glob("*.img")}

    before = files(alpha)
    assert set(before) == {"disk.img", "seed.img"}
    move(alpha, "small", beta)
    assert files(beta) == before
    assert not list(alpha.daemon.config.instances_dir.iterdir())
    beta.cli("start", "small")
    assert move(beta, "small", alpha, "--stop")["dropped"] == []
    assert listed(beta) == {"small": ("alpha", "running")}


def test_a_host_is_emptied_and_what_cannot_go_says_why(hosts: list[Host]) -> None:
    alpha, beta = hosts
    alpha.cli("volume", "create", "data")
    try:
        alpha.cli("run", "-d", "--host", "alpha", "--name", "one", "box", "sh", "-c", "echo x >/kept; exec sleep 1000")
        alpha.cli("create", "--host", "alpha", "--name", "two", "box")
        alpha.cli("create", "--host", "alpha", "--name", "bound", "-v", "data:/data", "box")
        alpha.cli("create", "--host", "alpha", "--name", "here", "--constraint", "!far", "box")
        alpha.cli("host", "label", "beta", "far=")
        told = alpha.daemon.cli("host", "drain", "--dry-run", "--format", "json", "alpha", check=False)
        plan = json.loads(told.stdout)
        assert {each["name"]: each["host"] for each in plan["went"]} == {"one": "beta", "two": "beta"}
        assert {each["name"] for each in plan["stays"]} == {"bound", "here"}
        assert {at for at, _ in listed(beta).values()} == {"alpha"}
        assert {each["name"]: each["state"] for each in beta.status()["hosts"]}["alpha"] == "ready"
        done = beta.daemon.cli("host", "drain", "alpha", check=False)  # from another host
        assert done.returncode == 1
        assert "2 of its instances stay" in done.stderr
        assert "bound stays" in done.stderr and "volume" in done.stderr
        assert "here stays" in done.stderr
        found = listed(beta)
        assert found["one"] == ("beta", "running")
        assert found["two"] == ("beta", "created")
        assert {found["bound"], found["here"]} == {("alpha", "created")}
        assert alpha.cli("exec", "one", "cat", "/kept") == "x\n"
        assert {each["name"]: each["state"] for each in beta.status()["hosts"]}["alpha"] == "draining"
        for name in ("bound", "here"):
            beta.cli("rm", name)
        assert "nothing is there any more" in alpha.daemon.cli("host", "drain", "alpha").stderr
    finally:
        alpha.cli("host", "undrain", "alpha")
        alpha.cli("host", "label", "beta", "far-")
        for name in ("one", "two", "bound", "here"):
            alpha.cli("rm", "-f", name, check=False)
        alpha.cli("volume", "rm", "data", check=False)
