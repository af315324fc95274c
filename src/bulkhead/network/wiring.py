"""An instance's link: a network namespace with an interface `eth0` in it, whose other end is a port of the bridge."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack
from dataclasses import dataclass

from bulkhead.config import Config
from bulkhead.errors import HostError
from bulkhead.host import links, namespaces
from bulkhead.host.netlink import Message, Netlink
from bulkhead.model import Address, Network
from bulkhead.network.addresses import bridge_name, new_link_name
from bulkhead.network.filter import Filter
from bulkhead.network.shaping import rate_message

INSIDE = "eth0"
SETTINGS = {
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 2147483647",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_redirects": "0",
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/dad_transmits": "0",
    "ipv6/conf/default/disable_ipv6": "0",
}
"""Of a new namespace, before it gets eth0: every port for everyone (nobody else is there), pings without a
capability, and nothing believed that neighbours say about routes and addresses."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An instance's place on a network. `netns_fd` belongs to the caller: close it when the workload runs."""

    address: Address
    netns_fd: int
    link: str
    """The host's end."""


def alias_of(config: Config, owner: str) -> str:
    """What the alias of a link says: whose it is."""
    return f"bulkhead/{config.nft_table}/{owner}"


def owner_in(config: Config, link: links.Link) -> str | None:
    """The instance id (or other owner) in the alias of a link of ours; None: the link is not ours."""
    start = alias_of(config, "")
    ours = link.name.startswith(config.link_prefix) and link.alias.startswith(start)
    return link.alias[len(start) :] if ours else None


@dataclass(frozen=True, slots=True)
class Wiring:
    """Makes and removes links. One per daemon; used by many threads."""

    config: Config
    netlink: Netlink
    filter: Filter

    def make(self, network: Network, address: Address, *, owner: str, silent: bool = False) -> Connection:
        """A new namespace with its link, addresses and routes, ready to be entered. Leaves nothing on failure.

        `silent`: nothing that it sends passes, see `Filter.speak`.
        """
        link = new_link_name(self.config)
        bridge = links.index_of(bridge_name(self.config, network))
        if not bridge:
            raise HostError(f"the bridge of network {network.name} has gone", hint="restart bulkhead serve")
        with ExitStack() as undo:
            undo.callback(self.remove, link)
            self.filter.allow(link, address, silent=silent)
            netns_fd, _ = namespaces.make(lambda fd: self._wire(fd, bridge, link, address, owner))
            undo.pop_all()
        return Connection(address, netns_fd, link)

    def _wire(self, netns_fd: int, bridge: int, link: str, address: Address, owner: str) -> None:
        """Runs in the new namespace: a socket opened here belongs to it, `self.netlink` to the host's."""
        namespaces.set_sysctls(SETTINGS)
        alias = alias_of(self.config, owner)
        with Netlink() as inner:
            self.netlink.send(
                links.add_veth(link, peer=INSIDE, peer_netns_fd=netns_fd, peer_mac=address.mac, mtu=address.mtu),
                links.attach(link, bridge, alias=alias),
                links.set_hairpin(link),
            )
            inner.send(*inside_messages(address, links.index_of(INSIDE)))

    def remove(self, link: str) -> None:
        """Remove a link now, and what it may send. Idempotent. Takes some 16 ms, in which the kernel waits."""
        self.netlink.send(links.delete_link(link))
        self.filter.forbid(link)

    def shape(self, link: str, netns_fd: int, bandwidth: int | None) -> None:
        """Limit both directions, or with None lift the limits. The inner end is out of the instance's reach."""
        index = links.index_of(link)
        if not index:
            raise HostError(f"link {link} has gone", hint="restart the instance")

        def inner_end() -> None:
            with Netlink() as inner:
                other = links.find(inner, INSIDE)
                if other is None or other.peer != index:
                    raise HostError(f"the other end of link {link} is not where it was", hint="restart the instance")
                inner.send(rate_message(other.index, bandwidth, f"{INSIDE} behind {link}"))

        namespaces.inside(netns_fd, inner_end)
        self.netlink.send(rate_message(index, bandwidth, link))

    def shape_of_process(self, link: str, pid: int, bandwidth: int | None) -> None:
        """The same for an instance that runs."""
        netns_fd = namespaces.open_of(pid)
        try:
            self.shape(link, netns_fd, bandwidth)
        finally:
            os.close(netns_fd)


def inside_messages(address: Address, index: int) -> list[Message]:
    """What is done within the namespace: lo and eth0 (of that index) up, addresses, default routes."""
    return [
        links.set_index_up(links.LOOPBACK_INDEX, "lo"),
        links.set_index_up(index, INSIDE),
        links.add_address(index, ipaddress.ip_address(address.ipv4), address.prefix4),
        links.add_address(index, ipaddress.ip_address(address.ipv6), address.prefix6),
        links.add_default_route(ipaddress.ip_address(address.gateway4), index),
        links.add_default_route(ipaddress.ip_address(address.gateway6), index),
    ]
