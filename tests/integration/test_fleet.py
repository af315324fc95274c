"""Hosts with daemons of their own as one fleet on a real etcd: they join, and any verb works from any of them."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from bulkhead.api.browsers import TERMINAL
from bulkhead.api.relay import REQUEST, api_frame
from bulkhead.engine.faults import FLEET
from bulkhead.fleet import Invited, parse_invitation
from bulkhead.tenancy import certificates
from tests.harness.fleet import Fleet, Host, laboratory
from tests.integration.lives import until
from tests.integration.passages import asked, away, homes

pytestmark = pytest.mark.timeout(600)
ROOT = '{"user": "root", "role": "admin", "tenant": null, "token_id": "", "scopes": [], "source": ""}'


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts in a fleet, the first of which has an image."""
    with laboratory(busybox_tar) as made:
        yield made


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it, and their links carry."""
    yield lab.hosts
    lab.reset()


def test_all_see_the_same_fleet(hosts: list[Host]) -> None:
    for host in hosts:
        until("all live", lambda host=host: all(each["alive"] for each in host.status()["hosts"]))
        found = host.status()
        assert [each["name"] for each in found["hosts"]] == ["alpha", "beta", "gamma"]
        assert [each["name"] for each in found["hosts"] if each["here"]] == [host.name]
        assert found["error"] == ""
    assert "3 of 3 hosts live" in hosts[2].cli("cluster", "status")
    hosts[1].cli("host", "label", "gamma", "zone=b", "ssd=")
    assert {each["name"]: each["labels"] for each in hosts[0].daemon.json("host", "ls", "--format", "json")} == {
        "alpha": {},
        "beta": {},
        "gamma": {"zone": "b", "ssd": ""},
    }
    hosts[0].cli("host", "label", "gamma", "zone-", "ssd-")
    assert "no such host: gama" in hosts[0].cli("host", "label", "gama", "x=y", check=False)


def test_every_verb_works_from_every_host(hosts: list[Host], tmp_path: Path) -> None:
    alpha, beta, gamma = (host.daemon for host in hosts)
    # The image is alpha's alone: beta fetches it from there.
    alpha.cli("run", "-d", "--name", "one", "--host", "beta", "box", "sh", "-c", "echo began; exec sleep 1000")
    assert [homes(host) for host in hosts] == [{"one": "beta"}] * 3
    assert beta.json("inspect", "one")[0]["id"] == gamma.json("inspect", "one")[0]["id"]
    assert gamma.cli("exec", "-i", "one", "sh", "-c", "cat; exit 3", stdin="through", check=False).stdout == "through"
    assert gamma.cli("exec", "one", "sh", "-c", "exit 3", check=False).returncode == 3
    until("its log", lambda: alpha.cli("logs", "one").stdout == "began\n")
    (tmp_path / "file").write_text("content")
    gamma.cli("cp", tmp_path / "file", "one:/file")
    assert alpha.cli("exec", "one", "cat", "/file").stdout == "content"
    alpha.cli("update", "--pids", "77", "one")
    assert gamma.json("inspect", "one")[0]["plan"]["pids"] == 77
    gamma.cli("pause", "one")
    assert alpha.cli("ps").stdout.count("(paused)") == 1
    alpha.cli("unpause", "one")
    gamma.cli("run", "-d", "--host", "gamma", "--name", "two", "box", "sleep", "1000")
    for names in ((), ("one", "two")):
        used = alpha.json("stats", "--no-stream", "--format", "json", *names)
        assert {each["name"]: each["host"] for each in used} == {"one": "beta", "two": "gamma"}
    assert "no such instance: three" in alpha.cli("stats", "--no-stream", "one", "three", check=False).stderr
    gamma.cli("rm", "-f", "two")
    follower = subprocess.Popen(
        [*alpha.cli("ps").args[:1], "logs", "-f", "one"], stdout=subprocess.PIPE, env=gamma.environment()
    )
    alpha.cli("stop", "-t", "0", "one")
    assert follower.communicate(timeout=60)[0] == b"began\n"
    gamma.cli("rm", "one")
    assert [homes(host) for host in hosts] == [{}] * 3
    done = gamma.cli("run", "--rm", "--host", "alpha", "box", "sh", "-c", "echo out; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "no such instance: one" in gamma.cli("logs", "one", check=False).stderr


def test_a_browser_s_terminal_leads_to_the_host_of_its_instance(hosts: list[Host]) -> None:
    hosts[1].cli("run", "-d", "--name", "one", "--host", "beta", "box", "sleep", "1000")

    def said(command: list[str], name: str = "one") -> bytes:
        found, path = b"", f"ws://localhost/v1/instances/{name}/exec"
        with unix_connect(str(hosts[0].daemon.config.socket_path), path, subprotocols=[TERMINAL]) as opened:  # type: ignore[list-item]
            opened.send(api_frame(REQUEST, json.dumps({"command": command}).encode()))
            with suppress(ConnectionClosed):
                while True:
                    found += bytes(opened.recv(timeout=60))
        return found

    assert b"from beta\n" in said(["echo", "from beta"])
    assert b"command-not-found" in said(["nothing"])
    assert b"no such instance" in said(["true"], "two")


def test_a_name_is_one_instance_s_in_the_whole_fleet(hosts: list[Host]) -> None:
    hosts[0].cli("create", "--name", "web", "--host", "alpha", "box")
    refused = hosts[1].cli("create", "--name", "web", "--host", "gamma", "box", check=False)
    assert "the name web is taken" in refused
    assert homes(hosts[1]) == {"web": "alpha"}
    hosts[2].cli("rm", "web")
    hosts[1].cli("create", "--name", "web", "--host", "gamma", "box")
    assert homes(hosts[0]) == {"web": "gamma"}


@pytest.mark.parametrize("point", FLEET)
def test_a_daemon_that_dies_between_the_two_records_leaves_them_in_agreement(hosts: list[Host], point: str) -> None:
    beta = hosts[1].daemon
    if point.startswith("delete"):
        beta.cli("create", "--name", "one", "--host", "beta", "box")
    beta.restart(env={"BULKHEAD_CRASH_AT": point})
    if point.startswith("delete"):
        beta.cli("rm", "one", check=False)
    else:
        hosts[0].cli("create", "--name", "one", "--host", "beta", "box", check=False)
    beta.wait()
    beta.start()
    there = {each["spec"]["name"] for each in beta.json("ps", "-a", "--format", "json") if each["host"] == "beta"}
    assert there == ({"one"} if point == "create.unconfirmed" else set())
    until("the records agree", lambda: hosts[0].status()["instances"] == len(there))
    sold = {each["name"]: each["instances"] for each in hosts[2].status()["hosts"]}
    assert sold["beta"] == len(there)
    if not there:  # its name is free again
        hosts[0].cli("create", "--name", "one", "box")


def test_without_etcd_instances_run_on_and_what_would_change_the_fleet_is_refused(
    lab: Fleet, hosts: list[Host]
) -> None:
    alpha = hosts[0].daemon
    alpha.cli("run", "-d", "--name", "one", "--host", "alpha", "box", "sleep", "1000")
    hosts[1].cli("run", "-d", "--name", "two", "--host", "beta", "box", "sleep", "1000")
    hosts[0].status()
    for number in range(3):
        lab.etcd.kill(number)
    assert alpha.cli("exec", "one", "echo", "alive").stdout == "alive\n"
    assert hosts[0].cli("exec", "two", "echo", "alive") == "alive\n"
    told = alpha.cli("cluster", "status", check=False)
    assert told.returncode == 1
    assert "warning: this is" in told.stderr
    assert "3 of 3 hosts live" in told.stdout or "beta" in told.stdout
    refused = alpha.cli("create", "--name", "three", "box", check=False)
    assert refused.returncode == 125
    assert "etcd" in refused.stderr
    assert set(homes(hosts[0])) == {"one", "two"}
    # A daemon that starts now knows its own, and runs them.
    alpha.restart()
    assert alpha.cli("exec", "one", "echo", "alive").stdout == "alive\n"
    for number in range(3):
        lab.etcd.restart(number, wait=False)
    lab.etcd.wait_for_leader()
    until("etcd is back", lambda: not hosts[0].status().get("error", "not yet"))
    hosts[2].cli("create", "--name", "three", "--host", "alpha", "box")
    assert homes(hosts[1]) == {"one": "alpha", "two": "beta", "three": "alpha"}


def test_a_host_that_cannot_be_reached_is_said_to_be_so(hosts: list[Host]) -> None:
    hosts[1].cli("run", "-d", "--name", "two", "--host", "beta", "box", "sleep", "1000")
    hosts[1].cut()
    refused = hosts[0].cli("exec", "two", "true", check=False)
    assert "does not answer" in refused
    assert away(hosts[0])["two"] == ("beta", "unheard")
    until("it is missed", lambda: not {each["name"]: each["alive"] for each in hosts[0].status()["hosts"]}["beta"])
    assert "not heard of" in hosts[0].cli("host", "ls")
    assert "1 instances are placed on this host" in hosts[0].cli("host", "rm", "beta", check=False)
    assert hosts[1].daemon.cli("exec", "two", "echo", "runs on").stdout == "runs on\n"
    # What is known of it is told all the same.
    until("it counts as lost", lambda: {each["name"]: each["lost"] for each in hosts[0].status()["hosts"]}["beta"])
    why = "it waits for beta, which alone has its disk"
    assert away(hosts[0])["two"] == ("beta", "lost")
    assert f"Error: two: {why}" in hosts[0].cli("exec", "two", "true", check=False)
    (found,) = hosts[0].daemon.json("inspect", "two")
    assert (found["host"], found["state"], found["spec"]["name"]) == ("beta", "lost", "two")
    listing = hosts[0].cli("ps", check=False)
    assert "Lost with its host" in listing and f"two: {why}" in listing
    assert why in hosts[0].cli("cluster", "status")
    hosts[1].mend()
    until("all live", lambda: all(each["alive"] for each in hosts[0].status()["hosts"]))
    assert hosts[0].cli("exec", "two", "echo", "back") == "back\n"


def test_a_token_lets_one_host_in_once(lab: Fleet, hosts: list[Host]) -> None:
    alpha, gamma = hosts[0], hosts[2]
    gamma.cli("cluster", "leave")
    assert "this host is in no fleet" in gamma.cli("cluster", "status", check=False)
    token = alpha.cli("cluster", "invite").strip()
    arguments = ("--address", gamma.address, "--name", "gamma")
    assert "there is a host beta already" in gamma.cli(
        "cluster", "join", "--address", gamma.address, "--name", "beta", token, check=False
    )
    real = parse_invitation(token)
    liar = Invited(real.address, "0" * 64, real.secret).encode()
    assert "is not of the fleet that the token is from" in gamma.cli("cluster", "join", *arguments, liar, check=False)
    guess = Invited(real.address, real.fingerprint, "A" * 43).encode()
    assert "is not good" in gamma.cli("cluster", "join", *arguments, guess, check=False)
    gamma.cli("cluster", "join", *arguments, token)
    assert "in the fleet lab already" in gamma.cli("cluster", "join", *arguments, token, check=False)
    gamma.cli("cluster", "leave")
    assert "is not good" in gamma.cli("cluster", "join", *arguments, token, check=False)
    lab.join(gamma)
    until("all live", lambda: all(each["alive"] for each in alpha.status()["hosts"]))
    for host in hosts:
        for file in (host.daemon.config.state_dir / "fleet").iterdir():
            assert file.stat().st_mode & 0o077 == 0
        assert real.secret not in host.daemon.log()


def test_a_host_with_something_on_it_does_not_leave(hosts: list[Host]) -> None:
    hosts[2].cli("create", "--name", "kept", "--host", "gamma", "box")
    assert "1 instances are placed on this host: kept" in hosts[2].cli("cluster", "leave", check=False)
    assert "host gamma lives" in hosts[0].cli("host", "rm", "gamma", check=False)
    assert homes(hosts[0]) == {"kept": "gamma"}


def test_only_hosts_are_served_where_hosts_ask_one_another(hosts: list[Host], tmp_path: Path) -> None:
    """Whoever can reach the port: no certificate, another authority's, one of a host that never was."""
    alpha, beta = hosts[0], hosts[1]
    files = beta.daemon.config.state_dir / "fleet"
    forged = f"bulkhead-principal: {ROOT}\r\n"

    def context() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(files / "ca.pem"))

    assert "401" in asked(beta, alpha.address, "/v1/instances", context())
    assert "401" in asked(beta, alpha.address, "/v1/instances", context(), forged)
    assert "200" in asked(beta, alpha.address, "/v1/fleet/authority", context())
    member = context()
    member.load_cert_chain(files / "host.pem", files / "host.key")
    assert "200" in asked(beta, alpha.address, "/v1/instances", member, forged)
    assert "401" in asked(beta, alpha.address, "/v1/instances", member, "bulkhead-principal: {}\r\n")
    other = certificates.make_ca(days=1)
    certificate, key = certificates.issue_client(other, "host:" + "0" * 32, days=1)
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    stranger = context()
    stranger.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert not asked(beta, alpha.address, "/v1/instances", stranger, forged)
        raise ConnectionError  # it was closed without a word
    assert "403" not in alpha.cli("ps")


def test_a_tenant_s_instance_is_found_from_other_hosts_by_its_whole_name(hosts: list[Host]) -> None:
    for host in hosts[:2]:
        host.cli("tenant", "create", "acme")
    try:
        hosts[0].cli("image", "share", "box")
        hosts[0].cli("create", "--name", "web", "--host", "alpha", "box")
        hosts[0].cli("create", "--tenant", "acme", "--name", "web", "--host", "beta", "box")
        found = hosts[2].daemon.json("ps", "-a", "--format", "json")
        assert {each["spec"]["tenant"]: each["host"] for each in found} == {"default": "alpha", "acme": "beta"}
        hosts[2].cli("rm", "acme@web")
        assert homes(hosts[2]) == {"web": "alpha"}
    finally:
        for host in hosts[:2]:
            host.cli("tenant", "rm", "acme", check=False)
