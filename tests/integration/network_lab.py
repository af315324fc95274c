"""A host of its own for a test of networks: fresh network, mount and pid namespaces, and a client outside of it."""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from bulkhead.config import Config
from bulkhead.host import links, namespaces, syscalls
from bulkhead.host.netlink import Netlink
from bulkhead.model import Address, Network, PortMapping
from bulkhead.network import Connection, Networks
from tests.harness.abilities import require
from tests.harness.namespaces import Outside

Result = TypeVar("Result")
PATIENCE = 5.0
"""Seconds to wait for an answer that is expected."""
PROTOCOLS = ("tcp", "udp")
LOST = 0.4
"""Seconds to wait for one that is not."""
ORDINARY = ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv6/conf/all/forwarding")
"""Settings that are off: a new namespace has some of the real host's, which may be on."""
_PR_SET_PDEATHSIG = 1


def private(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child that is the first process of namespaces of its own: what it leaves ends with it."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        require("root", "mount namespaces", "nft", "ip", "nsenter")
        _in_child(lambda: test(*args, **kwargs))

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


def _in_child(work: Callable[[], None]) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_host(writer, work)
    os.close(writer)
    try:
        said = b"".join(iter(lambda: os.read(reader, 65536), b""))
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if said != b"fine":
        raise AssertionError(said.decode() or "the test's process ended without a word")


def _become_host(writer: int, work: Callable[[], None]) -> None:
    """Never returns."""
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    first = os.fork()
    if first:
        os.close(writer)
        os.waitpid(first, 0)
        os._exit(0)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc")
        syscalls.mount("sysfs", "/sys", "sysfs")
        syscalls.mount("tmpfs", "/run", "tmpfs", data="mode=755")
        with Netlink() as netlink:
            netlink.send(links.set_index_up(links.LOOPBACK_INDEX, "lo"))
        for name in ORDINARY:
            setting(name, "0")
        work()
        said = b"fine"
    except BaseException:
        said = traceback.format_exc().encode()
    os.write(writer, said[-60000:])
    os._exit(0)


@dataclass
class Lab:
    """One host with networks on it."""

    directory: Path
    stack: ExitStack
    settings: dict[str, Any] = field(default_factory=dict)
    made: list[Network] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = Config(run_dir=self.directory / "run", **{"network_pool": 0, **self.settings})
        self.networks = Networks(self.config)
        self.outside = Outside.beside(SimpleNamespace(pid=os.getpid()))  # type: ignore[arg-type]
        self.stack.callback(self.outside.close)
        self.stack.callback(self._close)

    def _close(self) -> None:
        self.networks.close()  # which one that is may have changed

    def network(self, name: str = "default") -> Network:
        """A network that is up."""
        subnet4, subnet6 = self.networks.choose_subnets(self.made, None, None)
        network = Network(name=name, id=f"{len(self.made) + 0xA0:08x}", subnet4=subnet4, subnet6=subnet6)
        self.networks.up(network)
        self.made.append(network)
        return network

    def box(self, network: Network, bandwidth: int | None = None, *, asks: bool = False) -> Box:
        """An instance on a network, of which there is no more than its network."""
        number = f"{len(self.boxes) + 1:032x}"
        taken = {box.address.ipv4 for box in self.boxes}
        made = self.networks.connect(network, instance_id=number, taken=taken, bandwidth=bandwidth, asks=asks)
        box = Box(number, made)
        self.stack.callback(box.close)
        self.boxes.append(box)
        return box

    def finish(self) -> None:
        """Give everything back, networks included."""
        for box in self.boxes:
            self.networks.unpublish(box.id)
            self.networks.disconnect(box.link)
            box.close()
        for network in self.made:
            self.networks.down(network)


@contextmanager
def lab(directory: Path, **settings: Any) -> Iterator[Lab]:
    """A host, given back at the end."""
    with ExitStack() as stack:
        yield Lab(directory, stack, settings)


@dataclass
class Box:
    """The network of an instance."""

    id: str
    connection: Connection
    closed: bool = False

    @property
    def address(self) -> Address:
        """Where it is."""
        return self.connection.address

    @property
    def link(self) -> str:
        """The host's end of its link."""
        return self.connection.link

    def inside(self, function: Callable[[], Result]) -> Result:
        """Do something in its namespace; sockets made there stay there."""
        return namespaces.inside(self.connection.netns_fd, function)

    def run(self, *argv: str) -> str:
        """A program in its namespace."""
        net = f"--net=/proc/{os.getpid()}/fd/{self.connection.netns_fd}"
        return subprocess.run(["nsenter", net, *argv], check=True, capture_output=True, text=True).stdout

    def serve(self, port: int = 80) -> None:
        """Answer on TCP and UDP, both families, with who asked."""
        self.inside(lambda: serve(port))

    def ask(
        self, host: str, port: int = 80, protocol: str = "tcp", *, data: bytes = b"?", patience: float = PATIENCE
    ) -> str:
        """Ask such a server from here."""
        return ask(connector(self.inside, host, port, protocol, patience), data)

    def process(self) -> int:
        """A process in its namespace that sleeps; its pid."""
        net = f"--net=/proc/{os.getpid()}/fd/{self.connection.netns_fd}"
        sleeper = subprocess.Popen(["nsenter", net, "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
        assert sleeper.stdout and sleeper.stdout.readline()
        return sleeper.pid

    def close(self) -> None:
        """Let go of the namespace."""
        if not self.closed:
            os.close(self.connection.netns_fd)
            self.closed = True


def serve(port: int) -> None:
    """Sockets in the calling thread's namespace, served by threads that end with the process."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))

    def streams() -> None:
        while True:
            client, peer = listener.accept()
            client.settimeout(5)
            try:
                data = client.recv(1 << 20)
                client.sendall(_plain(peer[0]) + b" " + str(len(data)).encode())
            except OSError:
                pass
            client.close()

    def packets() -> None:
        while True:
            data, peer = datagrams.recvfrom(1 << 17)
            datagrams.sendto(_plain(peer[0]) + b" " + str(len(data)).encode(), peer)

    for work in (streams, packets):
        threading.Thread(target=work, daemon=True).start()


def _plain(peer: str) -> bytes:
    return peer.removeprefix("::ffff:").encode()


def connector(
    inside: Callable[[Callable[[], socket.socket]], socket.socket],
    host: str,
    port: int,
    protocol: str,
    patience: float = PATIENCE,
) -> Callable[[], socket.socket]:
    """Makes a connected socket where `inside` calls."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

    def connect() -> socket.socket:
        made = socket.socket(family, kind)
        made.settimeout(patience)
        try:
            made.connect((host, port))
        except BaseException:
            made.close()
            raise
        return made

    return lambda: inside(connect)


def ask(connect: Callable[[], socket.socket], data: bytes = b"?") -> str:
    """What the server says, "timeout" or "refused"."""
    try:
        with connect() as made:
            made.sendall(data)
            return made.recv(200).decode().partition(" ")[0]
    except TimeoutError:
        return "timeout"
    except (ConnectionRefusedError, ConnectionResetError):
        return "refused"
    except OSError as error:
        return str(error)


def ask_here(host: str, port: int, protocol: str = "tcp", *, data: bytes = b"?", patience: float = PATIENCE) -> str:
    """Ask from the host itself."""
    return ask(connector(lambda make: make(), host, port, protocol, patience), data)


def ask_outside(
    lab: Lab, host: str, port: int, protocol: str = "tcp", *, data: bytes = b"?", patience: float = PATIENCE
) -> str:
    """Ask from outside of the host."""
    make = functools.partial(namespaces.inside, lab.outside.descriptor)
    return ask(connector(make, host, port, protocol, patience), data)


def setting(name: str, value: str | None = None) -> str:
    """Read, or write, a setting below /proc/sys/net of the host."""
    path = Path("/proc/sys/net") / name
    if value is not None:
        path.write_text(value)
    return path.read_text().strip()


def set_bridge_filter(value: str) -> None:
    """Switch it, where the kernel has it."""
    for name in ("iptables", "ip6tables", "arptables"):
        if Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").exists():
            setting(f"bridge/bridge-nf-call-{name}", value)


def ip(words: str) -> None:
    """Run ip(8), in the calling thread's namespace."""
    subprocess.run(["ip", *words.split()], check=True)


def nft(script: str) -> None:
    """Somebody else's rules."""
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def eventually(check: Callable[[], bool], tries: int = 200) -> bool:
    """Whether it is so within a few seconds."""
    for _ in range(tries):
        if check():
            return True
        time.sleep(0.02)
    return False


WEB = [PortMapping(host_port=8080, port=80), PortMapping(host_port=8080, port=80, protocol="udp")]


def published(host: Lab, box: Box) -> None:
    """A server in a box, published as 8080 on both protocols."""
    box.serve()
    host.networks.publish(box.id, box.address, WEB)
