"""A machine on a network of the fleet goes to another host while it runs, and whoever talks to it talks on."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from bulkhead.model import Address
from bulkhead.network.announcing import announcement
from tests.harness.fleet import Fleet, Host, laboratory
from tests.harness.kernels import kernel_layout
from tests.harness.namespaces import in_network
from tests.integration.lives import until
from tests.integration.passages import Slow, bundles, listed, move

pytestmark = pytest.mark.timeout(900)
SIZE = ("--memory", "96M", "--cpus", "1", "--disk", "64M")
SERVE = "mkdir -p /www; echo here >/www/name; httpd -p 80 -h /www; exec nc -ll -p 7777 -e cat"
PORT = 8099


@pytest.fixture(scope="module")
def lab(busybox_tar: Path) -> Iterator[Fleet]:
    """Three hosts; on a network of all of them a machine that answers, and a client on the first and the last."""
    with laboratory(busybox_tar, tls=False) as made:
        alpha, _, gamma = made.hosts
        alpha.cli("image", "import", kernel_layout(), "kernel/debian:latest")
        alpha.cli("network", "create", "--fleet", "--unencrypted", "mesh")
        for host in (alpha, gamma):
            where = ("--host", host.name, "--name", f"on-{host.name}", "--network", "mesh")
            host.cli("run", "-d", *where, "box", "sleep", "100000")
        where = ("--host", "alpha", "--name", "one", "--network", "mesh", "-p", f"{PORT}:80")
        alpha.cli("run", "-d", "--isolation", "vm", *where, *SIZE, "box", "sh", "-c", SERVE)
        yield made
        for host in made.hosts:
            host.daemon.clear()
        until("its instances are gone", lambda: made.hosts[0].status()["instances"] == 0)
        alpha.cli("network", "rm", "mesh")
        for host in made.hosts:
            until("the network is gone everywhere", lambda host=host: "mesh" not in host.cli("network", "ls", "-q"))


@pytest.fixture
def hosts(lab: Fleet) -> Iterator[list[Host]]:
    """The hosts: daemons that run, links that carry; the machine stays where the last test has left it."""
    yield lab.hosts
    for host in lab.hosts:
        if host.daemon.pid == 0:
            host.daemon.start()
    lab.wait_for_all()


def tell(figure: str) -> None:
    """For whoever reads the output (-s): nothing is asserted of it."""
    sys.stdout.write(f"{figure}\n")


def record(host: Host, name: str) -> dict[str, Any]:
    """An instance's record, from whichever host."""
    (found,) = [each for each in host.daemon.json("ps", "-a", "--format", "json") if each["spec"]["name"] == name]
    result: dict[str, Any] = found
    return result


def address(host: Host) -> Address:
    """The machine's."""
    return Address.model_validate(record(host, "one")["address"])


def ends(hosts: list[Host]) -> tuple[Host, Host]:
    """Where the machine is, and where it can go: one of the first two."""
    at = listed(hosts[0])["one"][0]
    source, target = sorted(hosts[:2], key=lambda host: host.name != at)
    assert source.name == at
    return source, target


def is_at(hosts: list[Host], host: Host) -> None:
    """Wait until this host has it, running, and no other has anything of it."""
    until(f"it is on {host.name}", lambda: listed(hosts[0]).get("one") == (host.name, "running"))
    instance = record(hosts[0], "one")["spec"]["id"]
    until("no other has it", lambda: [each.name for each in hosts if instance in bundles(each)] == [host.name])


class Talk:
    """One connection from a container to the machine, and numbered lines on it, each of which must come back."""

    def __init__(self, host: Host, name: str, to: str) -> None:
        def connect() -> socket.socket:
            return socket.create_connection((to, 7777), timeout=300.0)

        space = f"/proc/{record(host, name)['pid']}/ns/net"
        self._socket: socket.socket = until("it is connected", lambda: _tried(space, connect))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name, self.count, self.gap = name, 0, 0.0
        """Lines that have come back; the longest wait for one, in seconds."""
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._socket.makefile("rwb") as file:
                while not self._stop.is_set():
                    line, began = b"%d\n" % (self.count + 1), time.monotonic()
                    file.write(line)
                    file.flush()
                    assert file.readline() == line, "a line is lost, or came twice"
                    self.count += 1
                    self.gap = max(self.gap, time.monotonic() - began)
                    self._stop.wait(0.02)
        except BaseException as error:
            self._error = error

    def goes_on(self) -> None:
        """Wait until some more lines have come back."""
        seen = self.count
        until(f"{self.name} is answered", lambda: self._error or self.count > seen + 5)
        assert self._error is None, self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=300.0)
        self._socket.close()
        tell(f"{self.name}: {self.count} lines, the longest wait {self.gap:.3f} s")


def _tried(space: str, connect: Any) -> Any:
    try:
        return in_network(space, connect)
    except OSError:
        return None


@contextmanager
def talks(hosts: list[Host], to: Address) -> Iterator[list[Talk]]:
    """A connection from the first host, over IPv6, and one from the last."""
    with Talk(hosts[0], "on-alpha", to.ipv6) as near, Talk(hosts[2], "on-gamma", to.ipv4) as far:
        both = [near, far]
        for each in both:
            each.goes_on()
        yield both
        for each in both:
            each.goes_on()


def fetch(host: Host) -> str:
    """What the machine's published port answers on this host to somebody outside; "" where it does not."""
    assert host.daemon.outside
    try:
        status, body = host.daemon.outside.fetch(PORT, "/name", timeout=3.0)
    except OSError:
        return ""
    return body.decode().strip() if status == 200 else ""


def test_its_connections_stay_up(hosts: list[Host]) -> None:
    before = address(hosts[0])
    with talks(hosts, before) as both:
        for _ in range(2):  # there and back
            source, target = ends(hosts)
            foreseen = move(source, "one", target, "--dry-run")["hosts"]
            assert foreseen["way"] == "live"
            for each in both:
                each.gap = 0.0
            moved = move(source, "one", target)
            assert (moved["hosts"]["way"], moved["dropped"]) == ("live", [])
            is_at(hosts, target)
            assert address(hosts[0]) == before
            for each in both:
                each.goes_on()
                tell(f"{each.name}, {source.name} to {target.name}: the longest wait {each.gap:.3f} s")
            tell(f"stood still for {moved['downtime']:.3f} s")
            for host in hosts:
                until(f"its port answers on {host.name}", lambda host=host: fetch(host) == "here")
    assert target.cli("exec", "one", "cat", "/sys/class/net/eth0/address").strip() == before.mac


def hypervisor(host: Host, instance: str) -> int:
    """Pid of the machine's, once it is there."""
    path = host.daemon.config.instances_dir / instance / "handle.json"
    until("its machine waits", path.exists)
    return int(json.loads(path.read_text())["pid"])


def test_nobody_hears_it_at_the_target_before_it_is_there(hosts: list[Host]) -> None:
    source, target = ends(hosts)
    instance, there = record(source, "one")["spec"]["id"], address(source)
    frames = announcement(there)

    def listen() -> socket.socket:
        # ARP alone: what the connections carry would fill its buffer, and nothing more be heard.
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        made.bind(("eth0", 0x0806))
        made.setblocking(False)
        return made

    def send() -> None:
        """As the machine at the target, or somebody in its place, would."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind(("eth0", 0))
            for frame in frames:
                made.send(frame)

    def heard(listener: socket.socket) -> set[bytes]:
        found = set()
        try:
            while True:
                found.add(listener.recv(2000))
        except BlockingIOError:
            return found & set(frames)

    with (
        talks(hosts, there) as both,
        in_network(f"/proc/{record(hosts[2], 'on-gamma')['pid']}/ns/net", listen) as listener,
    ):
        slow = Slow(source, "one", target.name)
        try:
            space = f"/proc/{hypervisor(target, instance)}/ns/net"
            for _ in range(3):
                in_network(space, send)
                for each in both:
                    each.goes_on()
            assert heard(listener) == set()
        finally:
            slow.interrupt()
            slow.end()
        is_at(hosts, source)
        until("all of it is gone there", lambda: instance not in bundles(target))
        move(source, "one", target)
        is_at(hosts, target)
        space = f"/proc/{hypervisor(target, instance)}/ns/net"
        heard(listener)  # what its host has announced
        until("it is heard now", lambda: in_network(space, send) or heard(listener))


@pytest.mark.parametrize(
    ("point", "goes"),
    [("expect.waiting", False), ("expect.whole", False), ("arrive.recorded", True), ("arrive.heard", True)],
)
def test_the_target_s_daemon_dies_and_its_connections_stay_up(
    lab: Fleet, hosts: list[Host], point: str, goes: bool
) -> None:
    source, target = ends(hosts)
    there = address(source)
    target.daemon.restart(env={"BULKHEAD_CRASH_AT": point})
    lab.wait_for_all()
    with talks(hosts, there):
        source.cli("move", "one", "--host", target.name, check=False)
        target.daemon.wait()
        target.daemon.start()
        is_at(hosts, target if goes else source)
        assert address(hosts[0]) == there
    for host in hosts:
        until(f"its port answers on {host.name}", lambda host=host: fetch(host) == "here")
    if not goes:  # nothing is left there that would be in the way
        assert move(source, "one", target)["hosts"]["way"] == "live"
        is_at(hosts, target)


def test_a_machine_on_a_network_of_its_host_alone_does_not_go(hosts: list[Host]) -> None:
    alpha, beta, _ = hosts
    alpha.cli("run", "-d", "--host", "alpha", "--isolation", "vm", "--name", "local", *SIZE, "box", "sleep", "1000")
    try:
        told = alpha.cli("move", "local", "--host", beta.name, check=False)
        assert "would be left behind" in told and "--stop" in told
    finally:
        alpha.cli("rm", "-f", "local")
