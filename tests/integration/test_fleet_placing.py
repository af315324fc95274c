"""A fleet chooses the host: by policy, room, labels, affinity and tenants, whichever host is asked."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bulkhead.engine.faults import PLACING
from tests.harness.fleet import Fleet, Host, laboratory
from tests.integration.lives import until
from tests.integration.passages import asked, homes

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts in a fleet, all of which live; the first has an image."""
    with laboratory(busybox_tar, overcommit_memory=1.0) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts, as they were; what a test has made is gone after it."""
    until("all live", lambda: all(each["alive"] for each in lab.hosts[0].status()["hosts"]))
    yield lab.hosts
    lab.reset()
    first = lab.hosts[0]
    first.cli("cluster", "set", "--policy", "balance", "--spare", "no")
    for host in lab.hosts:
        first.cli("host", "undrain", host.name)
        first.cli("host", "label", host.name, "zone-")


def explained(host: Host, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        host.daemon.cli("run", "--explain", "--format", "json", *arguments, "box", "true", check=False).stdout
    )
    return found


def test_policies_choose_whichever_host_is_asked(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    alpha.cli("cluster", "set", "--policy", "spread")
    assert "policy spread" in beta.cli("cluster", "status")
    for number, host in enumerate(hosts):
        host.cli("create", "--name", f"s{number}", "-m", "256M", "box", "true")
    assert set(homes(alpha).values()) == {"alpha", "beta", "gamma"}
    for number in range(3):
        hosts[number].cli("rm", f"s{number}")
    beta.cli("cluster", "set", "--policy", "pack")
    for number, host in enumerate(hosts):
        host.cli("create", "--name", f"p{number}", "box", "true")
    assert len(set(homes(alpha).values())) == 1


def test_a_run_elsewhere_is_joined_to_the_terminal_here(hosts: list[Host]) -> None:
    """The request's first frame is read to judge by, and all that follows it gets where it belongs."""
    hosts[0].cli("host", "label", "gamma", "zone=c")
    text = "x" * 300_000 + "end"
    run = ("run", "-i", "--rm", "--constraint", "zone=c", "--name", "cat")
    done = hosts[1].daemon.cli(*run, "box", "sh", "-c", "cat; exit 5", stdin=text, check=False)
    assert (done.returncode, done.stdout) == (5, text)
    until("it is gone", lambda: homes(hosts[0]) == {})
    hosts[1].cli("run", "-d", "--constraint", "zone=c", "--name", "stays", "box", "sleep", "1000")
    assert homes(hosts[0]) == {"stays": "gamma"}


def test_constraints_and_affinity_hold(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    alpha.cli("host", "label", "beta", "zone=b")
    create = ("create", "--label", "app=db")
    alpha.cli(*create, "--name", "db", "--constraint", "zone=b", "box", "true")
    gamma.cli("create", "--name", "near", "--affinity", "app=db", "box", "true")
    gamma.cli("create", "--name", "away", "--anti-affinity", "db", "box", "true")
    where = homes(alpha)
    assert (where["db"], where["near"]) == ("beta", "beta")
    assert where["away"] != "beta"
    # What is there keeps others off as well.
    beta.cli(
        "create", "--name", "lone", "--label", "lone=1", "--anti-affinity", "lone=1", "--host", "alpha", "box", "true"
    )
    refused = beta.cli("create", "--host", "alpha", "--label", "lone=1", "box", "true", check=False)
    assert "what it must be away from is there" in refused
    assert "zone=x" in alpha.cli("create", "--constraint", "zone=x", "box", "true", check=False)
    assert "constraint" in alpha.cli("create", "--constraint", "a=b=c", "box", "true", check=False)
    assert set(homes(alpha)) == {"db", "near", "away", "lone"}


def test_explain_says_all_and_makes_nothing(hosts: list[Host]) -> None:
    alpha = hosts[0]
    assert "beta takes nothing new; nothing is there" in alpha.daemon.cli("host", "drain", "--keep", "beta").stderr
    found = explained(alpha)
    assert {line["host"]: line["verdict"] for line in found["hosts"]}["beta"] == "refused"
    assert sorted(line["verdict"] for line in found["hosts"]) == ["chosen", "fits", "refused"]
    table = alpha.cli("run", "--explain", "--isolation", "container", "box", "true")
    assert "beta is draining" in table
    none = alpha.daemon.cli("run", "--explain", "-m", "1T", "box", "true", check=False)
    assert none.returncode == 1
    assert none.stdout.count("memory: 1T asked for") == 3
    assert "exclude each other" in alpha.cli("run", "--explain", "--dry-run", "box", "true", check=False)
    assert "of --explain alone" in alpha.cli("run", "--format", "json", "box", "true", check=False)
    assert homes(alpha) == {}
    assert alpha.status()["instances"] == 0


def test_a_host_that_is_drained_takes_nothing_new_and_tells_what_is_there(hosts: list[Host]) -> None:
    alpha = hosts[0]
    alpha.cli("create", "--name", "old", "--host", "beta", "box", "true")
    told = alpha.daemon.cli("host", "drain", "--keep", "beta").stderr
    assert "1 instance: old" in told
    for number in range(4):
        hosts[number % 3].cli("create", "--name", f"new{number}", "box", "true")
    assert "beta" not in {host for name, host in homes(alpha).items() if name != "old"}
    assert "beta is draining" in alpha.cli("create", "--host", "beta", "box", "true", check=False)
    alpha.cli("host", "undrain", "beta")
    alpha.cli("create", "--name", "again", "--host", "beta", "box", "true")


def test_what_is_made_elsewhere_in_the_background_is_followed_from_here(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    alpha.cli("host", "label", "gamma", "zone=c")
    body = {"image": "box", "command": ["true"], "name": "late", "where": {"constraints": ["zone=c"]}}
    begun = beta.daemon.api("POST", "/v1/instances?detach=true", body)
    assert begun.status == 202, begun
    path = f"/v1/operations/{begun.body['id']}"
    until("it is made", lambda: beta.daemon.api("GET", path).body["state"] != "running")
    assert beta.daemon.api("GET", path).body["state"] == "succeeded"
    assert homes(beta) == {"late": "gamma"}
    assert '"operation"' in str(alpha.daemon.api("GET", f"{path}/events").body)
    assert alpha.daemon.api("DELETE", path).status == 204
    assert beta.daemon.api("GET", path).status == 404
    # What comes to nothing after it was answered leaves its name and its place.
    begun = beta.daemon.api("POST", "/v1/instances?detach=true", {**body, "name": "never", "network": "nowhere"})
    path = f"/v1/operations/{begun.body['id']}"
    until("it has failed", lambda: beta.daemon.api("GET", path).body["state"] == "failed")
    assert beta.status()["instances"] == 1


def test_a_move_keeps_the_rules_as_well(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    alpha.cli("host", "label", "alpha", "zone=a")
    alpha.cli("create", "--name", "one", "--constraint", "zone=a", "--label", "app=x", "box", "true")
    alpha.cli("create", "--name", "two", "--host", "beta", "--anti-affinity", "app=x", "box", "true")
    alpha.cli("host", "drain", "--keep", "beta")
    refused = beta.cli("move", "one", "--host", "beta", check=False)
    for why in ("beta is draining", "beta is not labelled zone=a", "two on beta is to be away from app=x"):
        assert why in refused
    assert homes(alpha) == {"one": "alpha", "two": "beta"}


def test_what_one_host_refuses_another_makes(hosts: list[Host]) -> None:
    """A network is each host's own: the fleet's records say nothing of it, the hosts' own admission does."""
    alpha, beta, gamma = hosts
    gamma.cli("network", "create", "only")
    try:
        for number, host in enumerate(hosts):
            host.cli("create", "--name", f"n{number}", "--network", "only", "box", "true")
        assert set(homes(alpha).values()) == {"gamma"}
        alpha.cli("network", "create", "only")  # another one: what is asked for here is for this one
        alpha.cli("create", "--name", "here", "--network", "only", "box", "true")
        assert homes(beta)["here"] == "alpha"
        alpha.cli("rm", "here")
        alpha.cli("network", "rm", "only")
        done = beta.daemon.cli("run", "-i", "--rm", "--network", "only", "box", "cat", stdin="through", check=False)
        assert (done.returncode, done.stdout) == (0, "through")
        refused = alpha.cli("create", "--network", "nowhere", "box", "true", check=False)
        assert "network 'nowhere' does not exist" in refused
        gamma.cli("host", "drain", "--keep", "gamma")
        refused = alpha.cli("create", "--network", "only", "box", "true", check=False)
        assert "'only' does not exist" in refused
        assert alpha.status()["instances"] == 3
    finally:
        for number in range(3):
            alpha.cli("rm", f"n{number}", check=False)
        until("nothing uses it", lambda: "only" not in gamma.cli("network", "rm", "only", check=False).split(":")[0])


def test_a_start_that_fails_is_not_begun_anew_elsewhere(hosts: list[Host]) -> None:
    refused = hosts[0].daemon.cli("run", "--name", "x", "box", "/no/such/program", check=False)
    assert refused.returncode == 127
    assert sum(host.daemon.log().count("/no/such/program") > 0 for host in hosts) <= 1
    assert homes(hosts[0]) == {}
    until("its place is free", lambda: hosts[0].status()["instances"] == 0)


def test_what_uses_volumes_and_paths_is_made_where_it_was_asked_for(hosts: list[Host]) -> None:
    for number, host in enumerate(hosts):
        host.cli("create", "--name", f"v{number}", "-v", f"data{number}:/data", "box", "true")
    assert homes(hosts[0]) == {"v0": "alpha", "v1": "beta", "v2": "gamma"}
    hosts[0].cli("host", "drain", "--keep", "beta")
    refused = hosts[1].cli("create", "-v", "data1:/data", "box", "true", check=False)
    assert "volumes are each host's own" in refused
    for number, host in enumerate(hosts):
        host.cli("rm", f"v{number}")
        host.cli("volume", "rm", f"data{number}")


def test_tenants_are_placed_and_told_nothing_of_hosts(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    for host in hosts:
        host.cli("tenant", "create", "acme")
        host.cli("tenant", "create", "other")
    try:
        alpha.cli("image", "share", "box")
        alpha.cli("create", "--tenant", "acme", "--name", "a", "--host", "alpha", "box", "true")
        # A container that is not trusted never shares a kernel with another tenant's.
        assert "the kernel would be shared" in beta.cli(
            "create", "--tenant", "other", "--host", "alpha", "box", "true", check=False
        )
        for number in range(3):
            alpha.cli("create", "--tenant", "other", "--name", f"o{number}", "box", "true")
        beta.cli("create", "--tenant", "acme", "--name", "a2", "box", "true")
        by_tenant: dict[str, set[str]] = {"acme": set(), "other": set()}
        for each in alpha.daemon.json("ps", "-a", "--format", "json"):
            by_tenant[each["spec"]["tenant"]].add(each["host"])
        assert not by_tenant["acme"] & by_tenant["other"]
    finally:
        for host in hosts:
            host.daemon.clear()
        for host in hosts:
            host.cli("tenant", "rm", "acme", check=False)
            host.cli("tenant", "rm", "other", check=False)


def test_many_hosts_that_are_asked_at_once_never_sell_more_than_there_is(hosts: list[Host]) -> None:
    """All of a host's memory is sold in parts that fit a whole number of times."""
    alpha = hosts[0]
    sellable = {each["name"]: each["sellable"]["memory"] for each in alpha.status()["hosts"]}
    part = min(sellable.values()) // 3
    fits = sum(has // part for has in sellable.values())

    def create(number: int) -> str:
        return hosts[number % 3].cli(
            "create", "--name", f"c{number}", "-m", str(part), "--disk", "32M", "box", "true", check=False
        )

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(create, range(fits + 4)))
    made = homes(alpha)
    refused = [each for each in told if "not enough memory left" in each]
    assert len(made) == fits, told
    assert len(refused) == 4, told
    for each in alpha.status()["hosts"]:
        assert each["sold"]["memory"] <= sellable[each["name"]]


def test_a_placer_that_dies_and_a_host_that_does_not_answer_leave_nothing(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    alpha.cli("host", "drain", "--keep", "alpha")
    alpha.cli("host", "drain", "--keep", "gamma")
    beta.cut()  # it still has its lease: it is chosen, and does not answer
    refused = alpha.cli("create", "--name", "x", "box", "true", check=False)
    assert "does not answer" in refused or "beta is unreachable" in refused
    assert alpha.status()["instances"] == 0
    beta.mend()
    alpha.cli("host", "undrain", "gamma")
    alpha.cli("create", "--name", "x", "box", "true")
    assert "x" in homes(alpha)
    assert gamma.cli("ps", "-a", "-q").count("\n") == 1


@pytest.mark.parametrize("point", PLACING)
def test_what_was_reserved_when_a_daemon_died_is_free_again(hosts: list[Host], point: str) -> None:
    """The one that judged, before the other host has heard of it, and the other, once it has taken the place over."""
    alpha, beta, _ = hosts
    dies = (alpha if point == "place.reserved" else beta).daemon
    dies.restart(env={"BULKHEAD_CRASH_AT": point})
    alpha.daemon.cli("create", "--name", "x", "--host", "beta", "box", "true", check=False)
    dies.wait()
    assert hosts[2].status()["instances"] == 1
    dies.start()
    until("its place is free", lambda: hosts[2].status()["instances"] == 0, seconds=300)
    assert {each["sold"]["memory"] for each in hosts[2].status()["hosts"]} == {0}
    alpha.cli("create", "--name", "x", "--host", "beta", "box", "true")
    assert homes(alpha) == {"x": "beta"}


def test_nobody_claims_a_place_by_a_header(hosts: list[Host]) -> None:
    """It is believed of a host alone, and only of what is reserved for this one."""
    alpha, beta = hosts[0], hosts[1]
    found = alpha.daemon.api(
        "POST",
        "/v1/instances",
        {"image": "box", "command": ["true"], "name": "h"},
        headers={"bulkhead-place": "0" * 32},
    )
    assert found.status == 201, found
    assert alpha.status()["instances"] == 1
    files = beta.daemon.config.state_dir / "fleet"
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    assert "401" in asked(beta, alpha.address, "/v1/instances", context, f"bulkhead-place: {'0' * 32}\r\n")
