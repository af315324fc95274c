"""Bridges, and the pair of links that published ports go through."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from bulkhead.config import Config
from bulkhead.errors import HostError
from bulkhead.host import links, namespaces
from bulkhead.host.netlink import Netlink
from bulkhead.model import Network
from bulkhead.network.addresses import bridge_name, mac_of
from bulkhead.network.forwarding import bridge_alias
from bulkhead.network.rules import DUMMY

_LOOP_MAC = "02:68:00:00:00:01"
_LINK_LOCAL = ipaddress.ip_address("fe80::1")
"""Of every bridge: what the kernel asks its neighbours from when it forwards, and it asks nobody without one."""


@dataclass(frozen=True, slots=True)
class Bridges:
    """Makes and removes them. One per daemon."""

    config: Config
    netlink: Netlink

    def add(self, network: Network) -> bool:
        """Make a bridge with its addresses; what is there is completed. False when the bridge was there."""
        name = bridge_name(self.config, network)
        gateway4, gateway6 = (ipaddress.ip_network(subnet)[1] for subnet in (network.subnet4, network.subnet6))
        there = links.find(self.netlink, name)
        if there is not None and (there.kind != "bridge" or there.alias not in ("", bridge_alias(self.config))):
            raise HostError(f"link {name} belongs to somebody else", hint=f"ip link show {name}")
        self.netlink.send(
            links.add_bridge(name, mac_of(str(gateway4))),
            links.set_up(name, alias=bridge_alias(self.config), link_local=False),
        )
        index = links.index_of(name)
        namespaces.set_sysctls(
            {
                f"ipv6/conf/{name}/disable_ipv6": "0",
                f"ipv6/conf/{name}/accept_ra": "0",
                f"ipv4/conf/{name}/send_redirects": "0",
                f"ipv4/conf/{name}/route_localnet": "1",  # rules.py lets answers through alone
            }
        )
        prefixes = (int(subnet.partition("/")[2]) for subnet in (network.subnet4, network.subnet6))
        self.netlink.send(
            *(links.add_address(index, ip, prefix) for ip, prefix in zip((gateway4, gateway6), prefixes, strict=True)),
            links.add_address(index, _LINK_LOCAL, 64),
        )
        return there is None

    def remove(self, name: str) -> None:
        """Remove a bridge. Idempotent."""
        self.netlink.send(links.delete_link(name))

    def ours(self, everything: list[links.Link]) -> list[links.Link]:
        """The bridges of this daemon among all links."""
        start = f"{self.config.link_prefix}-"
        alias = bridge_alias(self.config)
        return [link for link in everything if link.name.startswith(start) and link.alias == alias]

    def add_loop(self) -> None:
        """Make the pair of links that lets a packet arrive a second time (see rules.py). Idempotent."""
        out, back = self._loop()
        self.netlink.send(links.add_loop(out, back=back, mac=_LOOP_MAC))
        alias = f"bulkhead/{self.config.nft_table}/published ports"
        self.netlink.send(*(links.set_up(name, alias=alias, arp=False, link_local=False) for name in (out, back)))
        namespaces.set_sysctls(
            {
                f"ipv4/conf/{back}/accept_local": "1",
                f"ipv4/conf/{back}/route_localnet": "1",
                f"ipv4/conf/{back}/rp_filter": "0",
                f"ipv4/conf/{back}/send_redirects": "0",
                **{f"ipv6/conf/{name}/{key}": "0" for name in (out, back) for key in ("disable_ipv6", "accept_ra")},
            }
        )
        index = links.index_of(out)
        self.netlink.send(*(links.add_host_route(ipaddress.ip_address(ip), index) for ip in DUMMY.values()))

    def remove_loop(self) -> None:
        """Remove that pair. Idempotent."""
        self.netlink.send(links.delete_link(self._loop()[0]))

    def _loop(self) -> tuple[str, str]:
        return f"{self.config.link_prefix}out", f"{self.config.link_prefix}in"
