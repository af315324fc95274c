"""The links that only hosts have: a host passes on by them what comes to a port that leads to another's instance.

Gateways are the same everywhere, so a host has no address of its own on a network of the fleet. Here each has: a VXLAN
link beside those of the networks, without a bridge, one plain and one within WireGuard. Nothing is learnt on it: which
host has which addresses follows from the hosts' numbers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.config import Config
from bulkhead.host import links, namespaces, tunnels
from bulkhead.host.links import IpAddress
from bulkhead.host.netlink import Netlink
from bulkhead.model import Address
from bulkhead.network.wiring import alias_of
from bulkhead.overlay import Endpoint

SUBNETS = {
    False: (ipaddress.ip_network("169.254.192.0/19"), ipaddress.ip_network("fd42:b01c:fffd::/64")),
    True: (ipaddress.ip_network("169.254.224.0/19"), ipaddress.ip_network("fd42:b01c:fffe::/64")),
}
"""Of the plain link and of the encrypted one. Link-local: nobody routes them; clouds' 169.254.169.254 is elsewhere."""
WITHIN_WIREGUARD = ipaddress.IPv6Network("fd42:b01c:ffff::/64")
NUMBERS = {False: 1, True: 2}
"""In VXLAN; networks begin at 4096."""
OWNER = "between hosts"


@dataclass(frozen=True, slots=True)
class Hops:
    """Makes and removes them. One per daemon."""

    config: Config
    netlink: Netlink

    def name(self, *, encrypted: bool) -> str:
        """The link."""
        return f"{self.config.link_prefix}hop{'s' if encrypted else ''}"

    def add(self, own: Endpoint, others: Sequence[Endpoint], *, encrypted: bool) -> None:
        """Have the link, and reach these hosts by it. Idempotent."""
        name = self.name(encrypted=encrypted)
        if not links.index_of(name):
            made = tunnels.add_vxlan(
                name,
                number=NUMBERS[encrypted],
                local=carrier(own, encrypted=encrypted),
                port=port_of(self.config, encrypted=encrypted),
                mtu=own.room(encrypted=encrypted),
                mac=_mac(own),
                learns=False,
            )
            self.netlink.send(made, tunnels.no_link_local(name))
            self.netlink.send(links.set_up(name, alias=alias_of(self.config, OWNER)))
        namespaces.set_sysctls(
            {
                f"ipv6/conf/{name}/disable_ipv6": "0",
                f"ipv6/conf/{name}/accept_ra": "0",
                f"ipv4/conf/{name}/send_redirects": "0",
                f"ipv4/conf/{name}/route_localnet": "1",  # rules.py lets answers through alone
                f"ipv4/conf/{name}/accept_redirects": "0",
                f"ipv6/conf/{name}/accept_redirects": "0",
            }
        )
        index = links.index_of(name)
        messages = [links.add_address(index, net[own.number], net.prefixlen) for net in SUBNETS[encrypted]]
        for other in others:
            if encrypted and not other.key:
                continue
            messages.append(tunnels.put_behind(index, _mac(other), carrier(other, encrypted=encrypted), for_good=True))
            messages += [tunnels.put_neighbour(index, net[other.number], _mac(other)) for net in SUBNETS[encrypted]]
        self.netlink.send(*messages)

    def remove(self, *, encrypted: bool) -> None:
        """Have the link no more, nor what goes by it. Idempotent."""
        self.netlink.send(links.delete_link(self.name(encrypted=encrypted)))

    def route(self, address: Address, host: Endpoint, *, encrypted: bool) -> None:
        """Send what is for this address to its host, which delivers it."""
        index = links.index_of(self.name(encrypted=encrypted))
        gateways = [net[host.number] for net in SUBNETS[encrypted]]
        ips = (ipaddress.ip_address(address.ipv4), ipaddress.ip_address(address.ipv6))
        self.netlink.send(
            *(tunnels.add_route(ip, gateway, index) for ip, gateway in zip(ips, gateways, strict=True)),
        )

    def unroute(self, address: Address, *, encrypted: bool) -> None:
        """The address is nowhere else (any more). Idempotent."""
        index = links.index_of(self.name(encrypted=encrypted))
        if index:
            ips = (ipaddress.ip_address(address.ipv4), ipaddress.ip_address(address.ipv6))
            self.netlink.send(*(tunnels.delete_route(ip, index) for ip in ips))


def carrier(host: Endpoint, *, encrypted: bool) -> IpAddress:
    """The address that a host's packets of networks come from and go to."""
    return WITHIN_WIREGUARD[host.number] if encrypted else host.ip


def port_of(config: Config, *, encrypted: bool) -> int:
    """The UDP port that they go to."""
    return config.fleet_port + encrypted


def _mac(host: Endpoint) -> str:
    return (b"\x02\x6a\0\0" + host.number.to_bytes(2, "big")).hex(":")
