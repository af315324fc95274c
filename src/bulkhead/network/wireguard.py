"""What goes between hosts, encrypted: one WireGuard link per daemon, by which the networks' packets go.

The kernel's where it has it, else the program wireguard-go, which does the same with a tun link and runs on when the
daemon ends. wireguard-go and `wg` meet at a socket below /run, which is a directory of this daemon's for both: two
daemons on one machine may have links of the same name.
"""

from __future__ import annotations

import ipaddress
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bulkhead.config import FLEET_DIRECTORY, Config
from bulkhead.errors import HostError, Unavailable
from bulkhead.host import links, namespaces, private, processes, tunnels, tuntap
from bulkhead.host.netlink import Netlink, NetlinkError
from bulkhead.host.services import Service
from bulkhead.network.hops import WITHIN_WIREGUARD
from bulkhead.network.wiring import alias_of
from bulkhead.overlay import Endpoint

PROGRAM, PACKAGE = "wireguard-go", "wireguard-go"
OWNER = "encrypted, between hosts"
START_SECONDS = 20.0
_APART = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c")
_WITH_RUN = 'mount --bind "$0" /run && exec "$@"'
# It keeps the one right that tun links need. The shell's pid is the program's in the end.
_START = (
    'echo $$ >"$1" && mount --bind "$0" /run && '
    'exec setpriv --bounding-set -all,+net_admin --no-new-privs -- "$2" -f "$3"'
)
_IN_BACKGROUND = ("sh", "-c", 'exec setsid --fork "$@" </dev/null >/dev/null 2>&1', "sh")


class WireGuard:
    """The link of one daemon. Thread-safe."""

    def __init__(self, config: Config, netlink: Netlink) -> None:
        self._config, self._netlink = config, netlink
        self._lock = threading.RLock()
        self._pair = (b"", "")
        """The private key, and the public one that goes with it."""
        self._kernel: bool | None = None
        """Whether the kernel has it; None: not asked yet."""
        self.name = f"{config.link_prefix}wg"

    @property
    def _directory(self) -> Path:
        return self._config.run_dir / "wireguard"

    @property
    def _service(self) -> Service:
        return Service(self._directory / "wireguard-go.pid")

    @property
    def _key_file(self) -> Path:
        return self._config.state_dir / FLEET_DIRECTORY / "wireguard.key"

    def problem(self) -> str:
        """Why nothing can be encrypted here, in words; "" where it can."""
        if processes.find("wg") is None:
            return "wg is not installed (wireguard-tools)"
        if self._in_kernel() or (processes.find(PROGRAM) and tuntap.TUN.exists()):
            return ""
        return f"the kernel has no wireguard, and {PROGRAM} is not installed"

    def _in_kernel(self) -> bool:
        with self._lock:
            if self._kernel is None:
                trial = f"{self.name}0"
                try:
                    self._netlink.send(tunnels.add_wireguard(trial))
                    self._kernel = True
                except NetlinkError:
                    self._kernel = False
                self._netlink.send(links.delete_link(trial))
            return self._kernel

    def public_key(self) -> str:
        """This host's; its private key is made where there is none. Raises Unavailable, HostError."""
        with self._lock:
            if not self._key_file.exists():
                made = processes.run(["wg", "genkey"], package="wireguard-tools")
                private.write(self._key_file, made)
            key = self._key_file.read_bytes()
            if key != self._pair[0]:
                public = processes.run(["wg", "pubkey"], stdin=key, package="wireguard-tools")
                self._pair = key, public.decode().strip()
            return self._pair[1]

    def up(self, own: Endpoint, others: Sequence[Endpoint]) -> bool:
        """Have the link, and these peers at its other end; False where it was there already. Raises Unavailable."""
        with self._lock:
            self.public_key()  # which makes it where somebody has taken it away
            made = not links.index_of(self.name)
            if made:
                self._make()
            namespaces.set_sysctls({f"ipv6/conf/{self.name}/{key}": value for key, value in _SETTINGS.items()})
            self._netlink.send(
                tunnels.set_mtu(self.name, own.sealed_mtu),
                links.set_up(self.name, alias=alias_of(self._config, OWNER), link_local=False),
                links.add_address(links.index_of(self.name), WITHIN_WIREGUARD[own.number], WITHIN_WIREGUARD.prefixlen),
            )
            said = configuration(self._key_file.read_text().strip(), self._config.fleet_port + 2, others)
            self._wg("syncconf", self.name, "/dev/stdin", stdin=said.encode())
            return made

    def _make(self) -> None:
        if problem := self.problem():
            raise Unavailable(problem, hint=f"apt install {PACKAGE} wireguard-tools")
        if self._in_kernel():
            self._netlink.send(tunnels.add_wireguard(self.name))
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        service = self._service
        service.stop()
        program = processes.require(PROGRAM, PACKAGE)
        argv = [*_IN_BACKGROUND, *_APART, _START, *map(str, (self._directory, service.pid_file, program)), self.name]
        service.start(argv, program=PROGRAM, env={"BULKHEAD_PID_FILE": str(service.pid_file)})
        deadline = time.monotonic() + START_SECONDS
        socket = self._directory / "wireguard" / f"{self.name}.sock"
        while not (links.index_of(self.name) and socket.exists()):
            if not service.running() or time.monotonic() > deadline:
                service.stop()
                hint = f"run it by hand: {PROGRAM} -f {self.name}"
                raise HostError(f"{PROGRAM} has not made link {self.name}", hint=hint)
            time.sleep(0.02)

    def down(self) -> None:
        """Have the link no more. Idempotent."""
        with self._lock:
            self._netlink.send(links.delete_link(self.name))
            if self._directory.exists():
                self._service.stop()
                shutil.rmtree(self._directory)

    def _wg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = ["wg", *arguments]
        if not self._in_kernel():
            argv = [*_APART, _WITH_RUN, str(self._directory), *argv]
        return processes.run(argv, stdin=stdin, package="wireguard-tools")


_SETTINGS = {"disable_ipv6": "0", "accept_ra": "0", "accept_redirects": "0"}


def configuration(private_key: str, port: int, others: Sequence[Endpoint]) -> str:
    """What `wg` is told: each other host may send from its own address alone. Pure."""
    lines = ["[Interface]", f"PrivateKey = {private_key}", f"ListenPort = {port}"]
    for other in others:
        if other.key:
            where = f"[{other.ip}]" if isinstance(other.ip, ipaddress.IPv6Address) else str(other.ip)
            lines += ["[Peer]", f"PublicKey = {other.key}", f"AllowedIPs = {WITHIN_WIREGUARD[other.number]}/128"]
            lines += [f"Endpoint = {where}:{port}"]
    return "\n".join(lines) + "\n"
