"""A guest's place on a network: the same namespace and link that a container gets, with a tap behind them.

In the namespace a bridge joins the link's inner end with a tap that belongs to the instance's uid. The addresses are
the guest's, which sets them up itself: the namespace keeps none, so nothing of the host's can be reached in it.
"""

from __future__ import annotations

import ipaddress

from bulkhead.errors import HostError
from bulkhead.host import links, namespaces, tuntap
from bulkhead.host.netlink import Netlink
from bulkhead.model import Address
from bulkhead.network.wiring import INSIDE

BRIDGE, TAP = "vm0", "tap0"
_BRIDGE_MAC, _LINK_MAC = "02:69:00:00:00:01", "02:69:00:00:00:02"
"""Never seen outside: nothing is sent from these. The guest's own address must not be the link's."""


def make_alone(*, owner: int) -> int:
    """A network namespace with nothing but a tap for `owner`; its descriptor, which the caller closes."""
    descriptor, _ = namespaces.make(lambda _: tuntap.add_tap(TAP, owner=owner))
    return descriptor


def make(netns_fd: int, address: Address, *, owner: int) -> str:
    """Put a tap into an instance's new namespace, for the host uid `owner`; its name. Raises HostError."""

    def work() -> None:
        tuntap.add_tap(TAP, owner=owner)
        link = links.index_of(INSIDE)
        if not link:
            raise HostError(f"the namespace of {address.ipv4} has no {INSIDE}", hint="start the instance again")
        with Netlink() as inner:
            inner.send(links.add_bridge(BRIDGE, _BRIDGE_MAC))
            bridge = links.index_of(BRIDGE)
            inner.send(
                links.delete_address(link, ipaddress.ip_address(address.ipv4), address.prefix4),
                links.delete_address(link, ipaddress.ip_address(address.ipv6), address.prefix6),
                links.set_mac(link, _LINK_MAC, INSIDE),
                links.attach(INSIDE, bridge, alias=""),
                links.attach(TAP, bridge, alias=""),
                # What the guest broadcasts comes back by the link (its outer port is a hairpin): nothing is learnt.
                links.forget_senders(INSIDE),
                links.forget_senders(TAP),
                links.set_up(BRIDGE, arp=False, link_local=False),
            )

    namespaces.inside(netns_fd, work)
    return TAP
