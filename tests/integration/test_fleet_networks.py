"""Networks of a fleet: instances reach each other wherever they run, keep their addresses, and nobody else gets in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from bulkhead.model import Address
from tests.harness.abilities import require
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.hosts_link import Tap, ethernet, mac_of, send_frame, udp, vxlan
from tests.harness.kernels import kernel_layout
from tests.harness.namespaces import in_network
from tests.integration.frames import frames
from tests.integration.lives import often, until

pytestmark = [pytest.mark.timeout(900), pytest.mark.minutes(5)]
PORT = 8474
LARGE = 24 << 20


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts in a fleet, with an image and a network."""
    with laboratory(busybox_tar, tls=False) as made:
        made.hosts[0].cli("network", "create", "--fleet", "--unencrypted", "mesh")
        yield made
        for host in made.hosts:
            host.daemon.clear()
        until("its instances are gone", lambda: made.hosts[0].status()["instances"] == 0)
        made.hosts[0].cli("network", "rm", "mesh")
        for host in made.hosts:
            until("the network is gone everywhere", lambda host=host: "mesh" not in host.cli("network", "ls", "-q"))


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts; what a test has made is gone after it, and their links carry."""
    yield lab.hosts
    lab.reset()


def run(host: Host, name: str, *options: str, command: tuple[str, ...] = ("sleep", "10000")) -> None:
    """An instance on the network, on this host."""
    network = () if "--network" in options else ("--network", "mesh")
    host.cli("run", "-d", "--host", host.name, "--name", name, *network, *options, "box", *command)


def record(host: Host, name: str) -> dict[str, Any]:
    """An instance's record, from whichever host."""
    (found,) = [each for each in host.daemon.json("ps", "-a", "--format", "json") if each["spec"]["name"] == name]
    result: dict[str, Any] = found
    return result


def address(host: Host, name: str) -> Address:
    """Where it is."""
    return Address.model_validate(record(host, name)["address"])


def pings(host: Host, name: str, ip: str) -> bool:
    """Whether an instance is answered by an address. A container has no right to ask by itself."""
    ping = ("ping", "-c", "1", "-W", "1", ip)
    if record(host, name)["spec"]["isolation"] == "vm":
        return host.daemon.cli("exec", name, *ping, check=False).returncode == 0
    enter = ("nsenter", "-t", str(record(host, name)["pid"]), "-n", "busybox")
    return subprocess.run([*enter, *ping], check=False, capture_output=True).returncode == 0


def reaches(host: Host, name: str, ip: str) -> None:
    """Wait until it is."""
    until(f"{name} reaches {ip}", lambda: pings(host, name, ip))


def flood(host: Host) -> set[str]:
    """The hosts to which one sends what is for everybody."""
    said = host.daemon.sandbox.run("bridge", "fdb", "show").stdout
    lines = [line.split() for line in said.splitlines() if line.startswith("00:00:00:00:00:00") and " dst " in line]
    return {line[line.index("dst") + 1] for line in lines}


def serve_file(host: Host, name: str) -> str:
    """Let it serve a large file by HTTP; its digest."""
    host.cli("exec", name, "sh", "-c", f"mkdir -p /www; head -c {LARGE} /dev/urandom >/www/large; httpd -p 80 -h /www")
    return host.cli("exec", name, "sha256sum", "/www/large").split()[0]


def fetched(host: Host, name: str, url: str) -> str:
    """The digest of what it gets there."""
    return host.cli("exec", name, "sh", "-c", f"wget -q -O - {url} | sha256sum").split()[0]


def test_instances_reach_each_other_over_hosts(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    for host in hosts:
        run(host, f"on-{host.name}")
    there = {host.name: address(alpha, f"on-{host.name}") for host in hosts}
    assert len({each.ipv4 for each in there.values()}) == 3
    assert {each.gateway4 for each in there.values()} == {there["alpha"].gateway4}
    assert {each.mtu for each in there.values()} == {1450}
    for host in hosts:
        for other in there.values():
            reaches(host, f"on-{host.name}", other.ipv4)
            reaches(host, f"on-{host.name}", other.ipv6)
    # Much at once, both ways, in both families: packets that are as large as can be, and their checksums.
    digest = serve_file(beta, "on-beta")
    assert fetched(alpha, "on-alpha", f"http://{there['beta'].ipv4}/large") == digest
    assert fetched(gamma, "on-gamma", f"http://[{there['beta'].ipv6}]/large") == digest
    # Its gateway is its own host's: the outside is reached by way of that.
    for host in hosts:
        reaches(host, f"on-{host.name}", there[host.name].gateway4)
    outside = beta.daemon.outside
    assert outside
    reaches(beta, "on-beta", outside.outside4)
    # Each host sends to the others alone.
    assert flood(beta) == {alpha.address, gamma.address}


def test_nobody_of_another_network_is_reached(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    alpha.cli("network", "create", "--fleet", "--unencrypted", "other")
    try:
        run(alpha, "one")
        run(beta, "two", "--network", "other")
        run(beta, "three")
        reaches(alpha, "one", address(alpha, "three").ipv4)
        target = address(alpha, "two")
        assert not pings(alpha, "one", target.ipv4)
        assert not pings(alpha, "one", target.ipv6)
        assert not pings(beta, "three", target.ipv4)
        assert "instances are on network other: two" in alpha.cli("network", "rm", "other", check=False)
        assert "other" in alpha.cli("network", "ls", "-q")
        beta.cli("rm", "-f", "two")
    finally:
        beta.cli("rm", "-f", "two", check=False)
        alpha.cli("network", "rm", "other")


def test_what_moves_keeps_its_address_and_answers_at_once(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    run(alpha, "goes")
    run(beta, "stays")
    before = address(alpha, "goes")
    reaches(beta, "stays", before.ipv4)
    reaches(beta, "stays", before.ipv6)
    for target in (gamma, beta, alpha):
        alpha.cli("move", "goes", "--host", target.name)
        assert record(alpha, "goes")["host"] == target.name
        assert address(alpha, "goes") == before
        # Whoever had sent to it where it was before finds it: the new host has said where it is.
        reaches(beta, "stays", before.ipv4)
        reaches(beta, "stays", before.ipv6)
        reaches(target, "goes", address(alpha, "stays").ipv4)
    alpha.cli("stop", "-t", "0", "goes")
    alpha.cli("start", "goes")
    assert address(alpha, "goes") == before


def test_a_machine_and_a_container(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    for host in (beta, gamma):
        host.daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    run(alpha, "small")
    run(beta, "machine", "--isolation", "vm")
    machine = address(alpha, "machine")
    reaches(alpha, "small", machine.ipv4)
    assert beta.cli("exec", "machine", "cat", "/sys/class/net/eth0/mtu").strip() == "1450"
    digest = serve_file(beta, "machine")
    assert fetched(alpha, "small", f"http://{machine.ipv4}/large") == digest
    digest = serve_file(alpha, "small")
    assert fetched(beta, "machine", f"http://{address(alpha, 'small').ipv4}/large") == digest
    alpha.cli("move", "machine", "--host", "gamma")
    assert address(alpha, "machine") == machine
    reaches(alpha, "small", machine.ipv4)
    reaches(gamma, "machine", address(alpha, "small").ipv6)


def test_no_two_instances_get_the_same_address(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    alpha.cli("network", "create", "--fleet", "--unencrypted", "--subnet", "10.77.0.0/29", "narrow")
    try:
        for number, host in enumerate((alpha, beta, gamma, alpha, beta)):
            run(host, f"n{number}", "--network", "narrow")
        given = {address(alpha, f"n{number}").ipv4 for number in range(5)}
        assert given == {f"10.77.0.{number}" for number in range(2, 7)}
        full = gamma.cli("run", "-d", "--network", "narrow", "--host", "gamma", "box", "sleep", "1", check=False)
        assert "network narrow has no free address: all 5 of 10.77.0.0/29 are in use" in full
        beta.cli("rm", "-f", "n1")
        run(gamma, "again", "--network", "narrow")
        assert address(alpha, "again").ipv4 in given
    finally:
        for host in hosts:
            host.daemon.clear()
        until("no instance is left", lambda: alpha.status()["instances"] == 0)
        alpha.cli("network", "rm", "narrow")


def test_an_instance_sends_as_itself_to_other_hosts_too(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    run(alpha, "attacker")
    run(beta, "victim")
    run(beta, "watcher")
    mine, theirs = address(alpha, "attacker"), address(alpha, "victim")
    reaches(alpha, "attacker", theirs.ipv4)

    def raw(host: Host, name: str) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            made.bind(("eth0", 0))
            made.settimeout(3.0)
            return made

        return in_network(f"/proc/{record(host, name)['pid']}/ns/net", make)

    true, false = frames(mine, theirs)
    with raw(alpha, "attacker") as sender, raw(beta, "watcher") as receiver:
        for each in [*false, *true]:
            sender.send(each)
        seen = []
        try:
            while not (len(seen) > 2 and true[-1] in seen):
                seen.append(receiver.recv(2000))
        except TimeoutError:
            pass
    assert [each for each in seen if each in [*true, *false]] == true


class Listener:
    """What comes to UDP port 7777 of a container."""

    def __init__(self, host: Host, name: str) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("0.0.0.0", 7777))
            made.setblocking(False)
            return made

        self._socket = in_network(f"/proc/{record(host, name)['pid']}/ns/net", make)
        self.got: set[bytes] = set()

    def has(self, text: bytes) -> bool:
        """Whether this has come by now."""
        with suppress(BlockingIOError):
            while True:
                self.got.add(self._socket.recv(2000))
        return text in self.got

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def send(host: Host, name: str, text: bytes, to: tuple[str, int]) -> bool:
    """Send a datagram from a container; false, to be waited with."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(text, to)

    in_network(f"/proc/{record(host, name)['pid']}/ns/net", work)
    return False


def test_packets_of_the_network_are_taken_from_hosts_of_the_fleet_alone(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    run(beta, "victim")
    run(alpha, "friend")
    target = address(alpha, "victim")
    source = address(alpha, "friend")
    (network,) = [each for each in alpha.daemon.json("network", "ls", "--format", "json") if each["name"] == "mesh"]
    number = network["overlay"]["vni"]
    beta_mac = mac_of(beta.daemon.sandbox, "fleet")

    def forged(text: bytes, sender: str) -> bytes:
        inner = ethernet(source.mac, target.mac, udp(source.ipv4, target.ipv4, 7777, text))
        return ethernet("02:00:00:00:00:99", beta_mac, udp(sender, beta.address, PORT, vxlan(number, inner)))

    # Of a stranger on the link, of the host itself, and only then as a host of the fleet would send it.
    with Listener(beta, "victim") as victim:
        for text, sender in ((b"stranger", "10.99.0.77"), (b"etcd", "10.99.0.1"), (b"itself", beta.address)):
            send_frame(lab.switch, "port1", forged(text, sender))
        fine = forged(b"host", gamma.address)
        until("what a host sends arrives", lambda: _resent(lab, fine) or victim.has(b"host"))
        assert victim.got == {b"host"}


def _resent(lab: Fleet, frame: bytes) -> bool:
    send_frame(lab.switch, "port1", frame)
    return False


def test_neither_an_instance_nor_a_program_sends_as_its_host(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    run(alpha, "attacker")
    run(alpha, "shares", "--network", "host")
    with Tap(lab.switch, "port0") as tap:
        for name in ("attacker", "shares"):
            for port, text in ((PORT, f"evil-{name}"), (9, f"fine-{name}")):
                ask = ("timeout", "2", "nslookup", text, f"{beta.address}:{port}")
                alpha.cli("exec", name, *ask, check=False)
            tap.wait_for(f"fine-{name}".encode())
            assert not tap.holds(f"evil-{name}".encode())

        def as_root() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made, pytest.raises(PermissionError):
                made.sendto(b"evil-root", (beta.address, PORT))

        in_network(f"/proc/{alpha.daemon.sandbox.pid}/ns/net", as_root)
        assert not tap.holds(b"evil-root")


def test_a_host_is_cut_off_and_comes_back(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    for host in hosts:
        run(host, f"on-{host.name}")
    there = {host.name: address(alpha, f"on-{host.name}") for host in hosts}
    reaches(alpha, "on-alpha", there["beta"].ipv4)
    beta.cut()
    assert not pings(alpha, "on-alpha", there["beta"].ipv4)
    reaches(alpha, "on-alpha", there["gamma"].ipv4)
    # What is there can be started again without the fleet's store, with its address.
    beta.daemon.restart()
    beta.cli("restart", "-t", "0", "on-beta")
    found = beta.daemon.api("GET", "/v1/instances/on-beta").body
    assert Address.model_validate(found["address"]) == there["beta"]
    refused = beta.cli("create", "--network", "mesh", "--host", "beta", "box", check=False)
    assert "etcd" in refused or "store" in refused
    beta.mend()
    reaches(alpha, "on-alpha", there["beta"].ipv4)
    reaches(beta, "on-beta", there["gamma"].ipv6)


@pytest.mark.thorough
def test_a_host_leaves_and_joins(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    run(alpha, "one")
    run(beta, "two")
    until("gamma knows the network", lambda: "mesh" in gamma.cli("network", "ls", "-q"))
    gamma.cli("cluster", "leave")
    try:
        assert "mesh" not in gamma.cli("network", "ls", "-q")
        until("nobody sends there", lambda: flood(alpha) == {beta.address})
        reaches(alpha, "one", address(alpha, "two").ipv4)
        said = alpha.daemon.sandbox.run("nft", "list", "ruleset").stdout
        assert beta.address in said
        assert gamma.address not in said
    finally:
        lab.join(gamma)
    run(gamma, "three")
    reaches(gamma, "three", address(alpha, "one").ipv4)
    assert flood(alpha) == {beta.address, gamma.address}


def test_the_daemon_dies_and_nothing_is_cut(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    run(alpha, "one")
    run(beta, "two")
    target = address(alpha, "two").ipv4
    reaches(alpha, "one", target)
    pid = record(alpha, "one")["pid"]
    alpha.daemon.kill9()
    # Instances go on as they were; the kernel knows the way.
    enter = ("nsenter", "-t", str(pid), "-n", "busybox")
    subprocess.run([*enter, "ping", "-c", "1", "-W", "5", target], check=True, capture_output=True)
    alpha.daemon.start()
    reaches(alpha, "one", target)
    # A link that somebody has taken away comes back with the daemon.
    link = next(name for name in alpha.daemon.sandbox.run("ls", "/sys/class/net").stdout.split() if is_tunnel(name))
    alpha.daemon.stop()
    alpha.daemon.sandbox.run("ip", "link", "delete", link)
    alpha.daemon.start()
    reaches(alpha, "one", target)


def is_tunnel(name: str) -> bool:
    return len(name) == 13 and name[4] == "x"


@pytest.mark.parametrize(
    "point", often(("create.placed", "create.reserved", "start.connected", "start.published"), ("create.reserved",))
)
def test_the_daemon_dies_while_an_instance_is_made(hosts: list[Host], point: str) -> None:
    alpha, beta, _ = hosts
    run(beta, "two")
    alpha.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    until("all live", lambda: all(each["alive"] for each in beta.status()["hosts"]))
    alpha.cli("run", "-d", "--host", "alpha", "--name", "one", "--network", "mesh", "box", "sleep", "1000", check=False)
    alpha.daemon.wait()
    alpha.daemon.start()
    alpha.cli("rm", "-f", "one", check=False)
    until("its place is free", lambda: alpha.status()["instances"] == 1)
    run(alpha, "one")
    reaches(alpha, "one", address(alpha, "two").ipv4)


def resolves(host: Host, name: str, asked: str) -> set[str]:
    """The addresses that an instance finds under a name."""
    said = host.cli("exec", name, "nslookup", f"{asked}.bulkhead", check=False)
    lines = [line for line in said.splitlines() if line.startswith("Address")][1:]
    return {line.split()[-1] for line in lines}


def test_names_are_known_on_every_host_and_follow_a_move(lab: Fleet, hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    run(alpha, "client")
    run(beta, "web", "--network-alias", "service", "--hostname", "www")
    run(gamma, "web2", "--network-alias", "service")
    one, two = address(alpha, "web"), address(alpha, "web2")
    for name in ("web", "www", record(alpha, "web")["spec"]["id"][:12]):
        until(f"{name} is known", lambda name=name: resolves(alpha, "client", name) == {one.ipv4, one.ipv6})
    both = {one.ipv4, one.ipv6, two.ipv4, two.ipv6}
    until("both have the alias", lambda: resolves(alpha, "client", "service") == both)
    alpha.cli("move", "web", "--host", "alpha")
    until("it is known where it went", lambda: resolves(gamma, "web2", "web") == {one.ipv4, one.ipv6})
    beta.cli("stop", "-t", "0", "web2")
    until("who ended is not", lambda: resolves(alpha, "client", "service") == {one.ipv4, one.ipv6})
    # Without etcd the names are as they were, also for a daemon that begins.
    run(beta, "other")
    until("other is known", lambda: resolves(alpha, "client", "other"))
    for number in range(3):
        lab.etcd.kill(number)
    try:
        alpha.daemon.restart()
        until("other is known still", lambda: resolves(alpha, "client", "other"))
    finally:
        for number in range(3):
            lab.etcd.restart(number, wait=False)
        lab.etcd.wait_for_leader()
        until("etcd is back", lambda: not alpha.status().get("error", "not yet"))


def fetch(host: Host, port: int, *, to: str = "") -> str:
    """What a published port of this host answers to somebody outside; "" where it does not."""
    assert host.daemon.outside
    try:
        status, body = host.daemon.outside.fetch(port, "/name", host=to, timeout=3.0)
    except OSError:
        return ""
    return body.decode().strip() if status == 200 else ""


WEB = ("sh", "-c", "mkdir -p /www; hostname >/www/name; exec httpd -f -p 80 -h /www")


def test_a_published_port_answers_on_every_host_and_follows_a_move(hosts: list[Host]) -> None:
    alpha, beta, gamma = hosts
    run(alpha, "web", "-p", "8088:80", "--hostname", "the-web", command=WEB)
    for host in hosts:
        until(f"it answers on {host.name}", lambda host=host: fetch(host, 8088) == "the-web")
        assert host.daemon.outside
        until("over IPv6 too", lambda host=host: fetch(host, 8088, to=host.daemon.outside.inside6) == "the-web")
    # Instances and hosts reach it too, by whichever host's address.
    run(beta, "client")
    for host in hosts:
        asked = f"http://{host.address}:8088/name"
        until(
            "for an instance",
            lambda asked=asked: "the-web" in beta.cli("exec", "client", "wget", "-q", "-O", "-", asked),
        )
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8088/name', timeout=5).read())"
    assert "the-web" in gamma.daemon.sandbox.run(sys.executable, "-c", ask).stdout
    taken = beta.cli("run", "-d", "--host", "beta", "--network", "mesh", "-p", "8088:80", "box", "true", check=False)
    assert "8088" in taken and "web" in taken
    alpha.cli("move", "web", "--host", "gamma")
    for host in hosts:
        until(f"it answers on {host.name} after the move", lambda host=host: fetch(host, 8088) == "the-web")
    gamma.cli("stop", "-t", "0", "web")
    for host in hosts:
        until(f"nothing answers on {host.name}", lambda host=host: fetch(host, 8088) == "")
    gamma.cli("rm", "web")
    until("the port is free", lambda: _published_by_another(beta))


def _published_by_another(host: Host) -> bool:
    done = host.daemon.cli(
        *("run", "-d", "--host", host.name, "--network", "mesh", "--name", "next", "-p", "8088:80", "box", *WEB),
        check=False,
    )
    return done.returncode == 0


def test_ports_of_a_host_s_own_network_and_of_one_address_are_on_that_host_alone(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    run(alpha, "own", "--network", "default", "-p", "8089:80", command=WEB)
    run(alpha, "one", "-p", "192.0.2.1:8090:80", command=WEB)
    run(alpha, "all", "-p", "8091:80", command=WEB)
    for port in (8089, 8090, 8091):
        until("it answers", lambda port=port: fetch(alpha, port))
    until("all answers there", lambda: fetch(beta, 8091))
    assert fetch(beta, 8089) == fetch(beta, 8090) == ""
    # No instance gets to another network's instance by way of the hosts.
    run(beta, "spy", "--network", "default")
    target = address(alpha, "all")
    for ip in (target.ipv4, f"[{target.ipv6}]"):
        done = beta.daemon.cli("exec", "spy", "wget", "-q", "-T", "2", "-O", "-", f"http://{ip}/name", check=False)
        assert done.returncode != 0, done


def test_between_hosts_nothing_can_be_read(lab: Fleet, hosts: list[Host]) -> None:
    require("wireguard-go", "wg")
    alpha, beta, gamma = hosts
    alpha.cli("network", "create", "--fleet", "secret")
    try:
        run(alpha, "one", "--network", "secret")
        run(beta, "two", "--network", "secret", "-p", "8092:80", command=WEB)
        run(beta, "plain")
        run(alpha, "open")
        target = address(alpha, "two")
        assert target.mtu == 1370
        reaches(alpha, "one", target.ipv4)
        reaches(alpha, "one", target.ipv6)
        reaches(alpha, "open", address(alpha, "plain").ipv4)
        digest = serve_file(alpha, "one")
        assert fetched(beta, "two", f"http://{address(alpha, 'one').ipv4}/large") == digest
        with Tap(lab.switch, "port0") as tap:
            for name, to in (("one", target.ipv4), ("open", address(alpha, "plain").ipv4)):
                send(alpha, name, f"readable-{name}".encode(), (to, 9))
            tap.wait_for(b"readable-open")
            assert not tap.holds(b"readable-one")
        until("its port answers on a third host", lambda: fetch(gamma, 8092))
        # What is sent as it was for a plain network is not taken for an encrypted one.
        number = next(
            each["overlay"]["vni"]
            for each in alpha.daemon.json("network", "ls", "--format", "json")
            if each["name"] == "secret"
        )
        source, there = address(alpha, "one"), mac_of(beta.daemon.sandbox, "fleet")
        with Listener(beta, "two") as two:
            for port in (PORT, PORT + 1):
                inner = ethernet(source.mac, target.mac, udp(source.ipv4, target.ipv4, 7777, b"forged"))
                outer = udp(alpha.address, beta.address, port, vxlan(number, inner))
                send_frame(lab.switch, "port1", ethernet("02:00:00:00:00:99", there, outer))
            to = (target.ipv4, 7777)
            until("what one sends arrives", lambda: send(alpha, "one", b"true", to) or two.has(b"true"))
            assert two.got == {b"true"}
        mended(alpha, beta, target)
    finally:
        for host in hosts:
            host.daemon.clear()
        until("no instance is left", lambda: alpha.status()["instances"] == 0)
        alpha.cli("network", "rm", "secret")
    for host in hosts:
        until("nothing of it runs any more", lambda host=host: not wireguard_of(host))


def wireguard_of(host: Host) -> list[int]:
    """The programs that encrypt for a host."""
    found = []
    for pid in host.daemon.sandbox.processes():
        try:
            if b"wireguard-go" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def mended(alpha: Host, beta: Host, target: Address) -> None:
    """A daemon that dies, a program that dies, and a key that changes: all of it heals."""
    (before,) = wireguard_of(alpha)
    alpha.daemon.kill9()
    alpha.daemon.start()
    assert wireguard_of(alpha) == [before]
    reaches(alpha, "one", target.ipv4)
    os.kill(before, signal.SIGKILL)
    until("another runs", lambda: (found := wireguard_of(alpha)) and found != [before])
    reaches(alpha, "one", target.ipv4)
    alpha.daemon.stop()
    (alpha.daemon.config.state_dir / "fleet" / "wireguard.key").unlink()
    alpha.daemon.start()
    reaches(alpha, "one", target.ipv4)


def test_without_wireguard_a_network_is_refused(hosts: list[Host]) -> None:
    require("wireguard-go", "wg")
    alpha, _, gamma = hosts
    gamma.daemon.sandbox.run("mount", "--bind", "/dev/null", "/usr/bin/wg")
    try:
        refused = "nothing can be encrypted on host 10.99.0.13: wg is not installed"

        def said() -> str:
            told = alpha.cli("network", "create", "--fleet", "no", check=False)
            alpha.cli("network", "rm", "no", check=False)  # until gamma has told that it cannot
            return told

        until("gamma says that it cannot", lambda: refused in said())
        assert "no" not in alpha.cli("network", "ls", "-q").split()
    finally:
        gamma.daemon.sandbox.run("umount", "/usr/bin/wg")
        alpha.cli("network", "rm", "no", check=False)


def test_what_cannot_be_is_refused(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    create = ("network", "create", "--fleet", "--unencrypted")
    assert "the fleet has a network mesh already" in alpha.cli(*create, "mesh", check=False)
    assert "built-in network" in alpha.cli(*create, "default", check=False)
    assert "says nothing of a network that is on one host" in alpha.cli(
        "network", "create", "--unencrypted", "own", check=False
    )
    beta.cli("network", "create", "--subnet", "10.78.0.0/24", "own")
    try:
        until("what beta has is known", lambda: "of its own" in alpha.cli(*create, "own", check=False))
        clash = alpha.cli(*create, "--subnet", "10.78.0.0/16", "wide", check=False)
        assert "overlaps" in clash and "10.78.0.0/24" in clash
    finally:
        beta.cli("network", "rm", "own")
        for name in ("own", "wide"):
            alpha.cli("network", "rm", name, check=False)
    inside = alpha.cli("run", "--inside", "new", "--network", "mesh", "box", "true", check=False)
    assert "network mesh is the fleet's" in inside
