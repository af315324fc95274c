"""After a restart: what the kernel has of ours is made what the store says."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bulkhead.config import Config
from bulkhead.host import links
from bulkhead.host.netlink import Netlink
from bulkhead.model import Address, Network, PortMapping
from bulkhead.network.addresses import bridge_name
from bulkhead.network.bridges import Bridges
from bulkhead.network.filter import Filter, Wanted
from bulkhead.network.forwarding import Forwarding
from bulkhead.network.names import Names
from bulkhead.network.rules import Published
from bulkhead.network.shaping import rate_message
from bulkhead.network.wiring import alias_of, owner_in

Running = tuple[Address, Sequence[PortMapping], int | None]
"""Of an instance that runs: its address, its ports, its bandwidth in bits per second."""


@dataclass
class Recovery:
    """One pass. `up` are the networks that have a bridge afterwards."""

    config: Config
    netlink: Netlink
    filter: Filter
    forwarding: Forwarding
    bridges: Bridges
    names: Names
    up: list[Network] = field(default_factory=list)
    lodging: Mapping[str, str] = field(default_factory=dict)
    """Instances within VMs: the VM of each."""
    silent: Collection[str] = ()
    """Those by whose links nothing passes yet."""
    _links: dict[str, links.Link] = field(default_factory=dict)
    """By instance."""
    _repairs: list[str] = field(default_factory=list)

    def run(
        self, networks: Sequence[Network], running: Mapping[str, Running], askers: Collection[str] = ()
    ) -> list[str]:
        """Make everything agree; what was repaired, in words. Idempotent."""
        everything = links.find_all(self.netlink)
        bridges = {link.name for link in self.bridges.ours(everything)}
        occupied = {network.id for network in networks if any(_is_on(one[0], network) for one in running.values())}
        self.up = [
            network for network in networks if network.id in occupied or bridge_name(self.config, network) in bridges
        ]
        self._remove_strays(everything, running)
        for name in bridges - {bridge_name(self.config, network) for network in self.up}:
            self.bridges.remove(name)
            self._repairs.append(f"bridge {name} of no network removed")
        for network_id in set(self.names.served()) - {network.id for network in self.up}:
            if self.names.stop(network_id):
                self._repairs.append(f"name server of network {network_id} ended")
        if self.up:
            self._bring_back(running, askers)
        return self._repairs

    def _remove_strays(self, everything: Sequence[links.Link], running: Mapping[str, Running]) -> None:
        """Remove the links of nobody who runs; note the others."""
        start = f"{self.config.link_prefix}v"
        for link in everything:
            owner = owner_in(self.config, link)
            # A link that was made and got no alias yet is ours by its name.
            unnamed = not link.alias and link.kind == "veth" and len(link.name) == len(start) + 8
            if not link.name.startswith(start) or (owner is None and not unnamed):
                continue
            if owner is not None and owner in running and owner not in self.lodging:
                self._links[owner] = link
                continue
            self.netlink.send(links.delete_link(link.name))
            self._repairs.append(f"link {link.name} of {owner or 'no instance'} removed")

    def _bring_back(self, running: Mapping[str, Running], askers: Collection[str]) -> None:
        before = self.forwarding.file.exists()
        record = self.forwarding.enable(links.find_all(self.netlink))
        if not before and record.settings:
            self._repairs.append("forwarding switched on")
        if self.config.published_ports == "input":
            self.bridges.add_loop()
        wanted = Wanted(
            networks={network.id: network for network in self.up},
            senders={link.name: running[owner][0] for owner, link in self._links.items()},
            silent={link.name for owner, link in self._links.items() if owner in self.silent},
            lodgers={
                owner: (self._links[machine].name, running[owner][0])
                for owner, machine in self.lodging.items()
                if owner in running and machine in self._links
            },
            askers={link.name for owner, link in self._links.items() if owner in askers},
            published={
                owner: Published(owner, address, tuple(mappings))
                for owner, (address, mappings, _) in running.items()
                if mappings
            },
            closed=record.closed,
        )
        self._repairs += self.filter.adopt(wanted)
        for network in self.up:
            if self.bridges.add(network):
                self._repairs.append(f"bridge of network {network.name} made again")
            if self.names.start(network):
                self._repairs.append(f"name server of network {network.name} started again")
        for owner, (address, _, bandwidth) in running.items():
            if owner in self._links:
                self._reconnect(owner, address, self._links[owner], bandwidth)
            elif self.lodging.get(owner) not in self._links:
                self._repairs.append(f"instance {owner[:12]} has lost its link: it must be started again")

    def _reconnect(self, owner: str, address: Address, link: links.Link, bandwidth: int | None) -> None:
        network = next((each for each in self.up if _is_on(address, each)), None)
        if network is None:
            self._repairs.append(f"instance {owner[:12]} has an address of no network: {address.ipv4}")
            return
        bridge = links.index_of(bridge_name(self.config, network))
        if link.master != bridge:
            alias = alias_of(self.config, owner)
            self.netlink.send(links.attach(link.name, bridge, alias=alias), links.set_hairpin(link.name))
            self._repairs.append(f"link {link.name} attached to network {network.name} again")
        rates = [rate for kind, rate in links.queues(self.netlink, link.index) if kind == "tbf"]
        if rates != ([] if bandwidth is None else [bandwidth // 8]):
            self.netlink.send(rate_message(link.index, bandwidth, link.name))
            self._repairs.append(f"bandwidth of link {link.name} set again")


def _is_on(address: Address, network: Network) -> bool:
    return ipaddress.IPv4Address(address.ipv4) in ipaddress.IPv4Network(network.subnet4)
