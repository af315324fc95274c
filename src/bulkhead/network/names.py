"""Names of instances: one dnsmasq per network, on the gateway's addresses, for that network alone.

It answers `name` and `name.bulkhead` from a file that is written anew with every change, and passes everything else
on to the host's name servers. It gives its privileges up before it reads the file, and must be able to reach it
whatever the permissions above `run_dir` are: the files lie in `/run/<nft_table>-names`.
"""

from __future__ import annotations

import grp
import ipaddress
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bulkhead.config import Config
from bulkhead.errors import HostError
from bulkhead.host.services import Service
from bulkhead.model import Address, Network
from bulkhead.network.addresses import bridge_name

DOMAIN = "bulkhead"


@dataclass(frozen=True, slots=True)
class Names:
    """The name servers of a daemon's networks."""

    config: Config

    @property
    def _files(self) -> Path:
        return Path("/run") / f"{self.config.nft_table}-names"

    def _hosts(self, network_id: str) -> Path:
        return self._files / f"{network_id}.hosts"

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
        hosts = self._hosts(network.id)
        hosts.touch(mode=0o644)
        service.start(command(self.config, network, hosts=hosts, pid_file=service.pid_file), package="dnsmasq-base")
        return True

    def set(self, network: Network, names: Mapping[str, Address]) -> None:
        """Serve these names from now on. Starts the server where it has ended."""
        text = hosts_file(names)
        hosts = self._hosts(network.id)
        self._files.mkdir(mode=0o755, exist_ok=True)
        same = hosts.exists() and hosts.read_text() == text
        if not same:
            temporary = hosts.with_suffix(".new")
            temporary.write_text(text)
            temporary.chmod(0o644)
            temporary.replace(hosts)
        started = self.start(network)
        if not (same or started or self._service(network.id).signal(signal.SIGHUP)):
            raise HostError(f"the name server of network {network.name} has ended", hint="see the system's log")

    def stop(self, network_id: str) -> bool:
        """Serve the names of a network no more; False when nobody did. Idempotent."""
        ran = self._service(network_id).stop()
        shutil.rmtree(self._directory(network_id), ignore_errors=True)
        for suffix in (".hosts", ".new"):
            self._hosts(network_id).with_suffix(suffix).unlink(missing_ok=True)
        if self._files.exists() and not any(self._files.iterdir()):
            self._files.rmdir()
        return ran

    def served(self) -> list[str]:
        """Ids of the networks that have, or had, a name server."""
        directory = self.config.run_dir / "network"
        return [each.name for each in sorted(directory.iterdir()) if each.is_dir()] if directory.exists() else []


def hosts_file(names: Mapping[str, Address]) -> str:
    """The names in the form of hosts(5), in a stable order."""
    lines = []
    for name, address in sorted(names.items()):
        lines += [f"{ip}\t{name} {name}.{DOMAIN}\n" for ip in (address.ipv4, address.ipv6)]
    return "".join(lines)


def command(config: Config, network: Network, *, hosts: Path, pid_file: Path) -> list[str]:
    """The arguments of dnsmasq for a network."""
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
