"""Names of instances: one dnsmasq per network, on the gateway's addresses, for that network alone.

It tells unmodified systems their address as well (DHCP): each the one that it has been given, by its MAC. Nobody else
is told one.

It answers `name` and `name.bulkhead` from a file that is written anew with every change, and passes everything else
on to the host's name servers. It gives its privileges up before it reads the file, and must be able to reach it
whatever the permissions above `run_dir` are: the files lie in `/run/<nft_table>-names`.
"""

from __future__ import annotations

import grp
import ipaddress
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bulkhead.config import Config
from bulkhead.errors import HostError
from bulkhead.host.services import Service
from bulkhead.model import Address, Network
from bulkhead.network.addresses import bridge_name

DOMAIN = "bulkhead"
LEASE = "1h"
Named = tuple[str, Address]
"""A name, and where it is."""
Asker = tuple[Address, str]
"""A system that learns its address by DHCP, and its host name."""


@dataclass(frozen=True, slots=True)
class Names:
    """The name servers of a daemon's networks."""

    config: Config

    @property
    def _files(self) -> Path:
        return Path("/run") / f"{self.config.nft_table}-names"

    def _hosts(self, network_id: str) -> Path:
        return self._files / f"{network_id}.hosts"

    def _askers(self, network_id: str) -> Path:
        return self._files / f"{network_id}.dhcp"

    def _directory(self, network_id: str) -> Path:
        return self.config.run_dir / "network" / network_id

    def _service(self, network_id: str) -> Service:
        return Service(self._directory(network_id) / "dnsmasq.pid")

    def start(self, network: Network) -> bool:
        """Serve the names of a network; False when that was the case already.

        Raises Unavailable when dnsmasq is not installed, HostError when it does not come up.
        """
        service = self._service(network.id)
        if service.running():
            return False
        self._files.mkdir(mode=0o755, exist_ok=True)
        hosts, askers = self._hosts(network.id), self._askers(network.id)
        for file in (hosts, askers):
            file.touch(mode=0o644)
        argv = command(self.config, network, hosts=hosts, askers=askers, pid_file=service.pid_file)
        service.start(argv, package="dnsmasq-base")
        return True

    def set(self, network: Network, names: Sequence[Named], askers: Sequence[Asker]) -> None:
        """Serve these names, tell these systems where they are. Starts the server where it has ended."""
        self._files.mkdir(mode=0o755, exist_ok=True)
        changed = [
            _replace(self._askers(network.id), askers_file(askers)),
            _replace(self._hosts(network.id), hosts_file(names)),
        ]
        same = not any(changed)
        started = self.start(network)
        if not (same or started or self._service(network.id).signal(signal.SIGHUP)):
            raise HostError(f"the name server of network {network.name} has ended", hint="see the system's log")

    def stop(self, network_id: str) -> bool:
        """Serve the names of a network no more; False when nobody did. Idempotent."""
        ran = self._service(network_id).stop()
        shutil.rmtree(self._directory(network_id), ignore_errors=True)
        for suffix in (".hosts", ".dhcp", ".new"):
            self._hosts(network_id).with_suffix(suffix).unlink(missing_ok=True)
        if self._files.exists() and not any(self._files.iterdir()):
            self._files.rmdir()
        return ran

    def served(self) -> list[str]:
        """Ids of the networks that have, or had, a name server."""
        directory = self.config.run_dir / "network"
        return [each.name for each in sorted(directory.iterdir()) if each.is_dir()] if directory.exists() else []


def _replace(file: Path, text: str) -> bool:
    """Write it, where that is a change."""
    if file.exists() and file.read_text() == text:
        return False
    temporary = file.with_suffix(".new")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(file)
    return True


def askers_file(askers: Sequence[Asker]) -> str:
    """Who is told which address and name, as dnsmasq's --dhcp-hostsfile has it, in a stable order."""
    return "".join(sorted(f"{address.mac},{address.ipv4},{name}\n" for address, name in askers))


def hosts_file(names: Sequence[Named]) -> str:
    """The names in the form of hosts(5), in a stable order. A name with several addresses is answered with all."""
    lines = []
    for name, address in sorted(set(names), key=lambda named: (named[0], named[1].ipv4)):
        lines += [f"{ip}\t{name} {name}.{DOMAIN}\n" for ip in (address.ipv4, address.ipv6)]
    return "".join(lines)


def command(config: Config, network: Network, *, hosts: Path, askers: Path, pid_file: Path) -> list[str]:
    """The arguments of dnsmasq for a network."""
    subnet4 = ipaddress.IPv4Network(network.subnet4)
    own = [reverse_zone(subnet) for subnet in (network.subnet4, network.subnet6)]
    return [
        "dnsmasq",
        "--conf-file=",
        f"--pid-file={pid_file}",
        f"--interface={bridge_name(config, network)}",
        "--except-interface=lo",
        "--bind-interfaces",
        "--no-hosts",
        f"--addn-hosts={hosts}",
        f"--local=/{DOMAIN}/",
        *(f"--local=/{zone}/" for zone in own if zone),
        "--domain-needed",
        "--cache-size=1000",
        # Only those of the file, without a pool; router and name server are the gateway. Nothing is to be remembered.
        f"--dhcp-range={subnet4.network_address},static,{subnet4.netmask},{LEASE}",
        f"--dhcp-hostsfile={askers}",
        *([f"--dhcp-option=option:mtu,{network.overlay.mtu}"] if network.overlay else []),
        "--dhcp-authoritative",
        # Or a system could take a name that nobody has yet.
        "--dhcp-ignore-names",
        "--leasefile-ro",
        "--quiet-dhcp",
        "--user=nobody",
        f"--group={_group()}",
    ]


def reverse_zone(subnet: str) -> str:
    """The reverse zone that covers a subnet and no more, "" where there is none (the prefix is within a label)."""
    network = ipaddress.ip_network(subnet)
    step = 8 if network.version == 4 else 4
    if network.prefixlen % step:
        return ""
    labels = network.network_address.reverse_pointer.split(".")
    return ".".join(labels[(network.max_prefixlen - network.prefixlen) // step :])


def _group() -> str:
    """The group without rights: "nogroup" in Debian, "nobody" elsewhere."""
    known = {group.gr_name for group in grp.getgrall()}
    return "nogroup" if "nogroup" in known else "nobody"
