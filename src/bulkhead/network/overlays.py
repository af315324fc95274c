"""Networks of a fleet on this host: a VXLAN link per network, as one more port of its bridge, to all other hosts.

The gateway is each host's own: its addresses and its MAC address are the same everywhere, so nothing that it sends
goes to other hosts, and nothing is taken from there that claims to be it (rules.py). Which hosts there are `know`
says; what is for everybody is sent to each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress

from bulkhead.config import Config
from bulkhead.errors import BulkheadError, Problem, Refused
from bulkhead.host import links, tunnels
from bulkhead.host.links import IpAddress
from bulkhead.host.netlink import Netlink
from bulkhead.model import Address, Network
from bulkhead.network.addresses import bridge_name
from bulkhead.network.announcing import announcement
from bulkhead.network.filter import Filter
from bulkhead.network.hops import Hops, carrier, port_of
from bulkhead.network.wireguard import WireGuard
from bulkhead.network.wiring import alias_of
from bulkhead.overlay import Endpoint, Overlay

OWNER = "to other hosts"


class Overlays:
    """The links of one daemon to other hosts. Thread-safe."""

    def __init__(self, config: Config, netlink: Netlink, packet_filter: Filter) -> None:
        self._config, self._netlink, self._filter = config, netlink, packet_filter
        self._hops = Hops(config, netlink)
        self.wireguard = WireGuard(config, netlink)
        self._lock = threading.RLock()
        self._own: Endpoint | None = None
        self._others: tuple[Endpoint, ...] = ()
        self._up: dict[str, Network] = {}

    def know(self, own: Endpoint | None, others: Sequence[Endpoint]) -> None:
        """Send to these hosts from now on, and take packets from no others. `own`: None in no fleet."""
        with self._lock:
            self._own, self._others = own, tuple(others)
            self._filter.set_members(each.ip for each in others)
            if own is not None:
                able = [network for network in self._up.values() if not self.problems(network)]
                self._carry({_require(network).encrypted for network in able})
                for network in able:
                    self._make(network)
                    self._reach(network)

    def mend(self) -> None:
        """Have the encrypted link again where what carries it has ended. Raises Unavailable, HostError."""
        with self._lock:
            sealed = any(_require(network).encrypted for network in self._up.values())
            if sealed and not links.index_of(self.wireguard.name):
                self._carry({True})

    def _carry(self, kinds: set[bool]) -> None:
        """Have what packets go by: encrypted ones (True), plain ones (False)."""
        own = self._own
        assert own is not None
        if True in kinds:
            self.wireguard.up(own, self._others)
        for encrypted in kinds:
            self._hops.add(own, self._others, encrypted=encrypted)

    def problems(self, network: Network) -> list[Problem]:
        """Why this host cannot be on a network of the fleet."""
        overlay, own = network.overlay, self._own
        if overlay is None:
            return []
        if own is None:
            what = f"network {network.name} is a fleet's, and this host takes no packets of one"
            return [Problem(what, "see: bulkhead cluster status, and the daemon's log")]
        if overlay.encrypted and not own.key:
            what = f"network {network.name} is encrypted, and this host cannot do that: {own.problem}"
            return [Problem(what, "apt install wireguard-go wireguard-tools")]
        room = own.room(encrypted=overlay.encrypted)
        if overlay.mtu > room:
            what = f"network {network.name} has packets of {overlay.mtu} bytes, of which {room} fit to other hosts"
            return [Problem(what, f"a larger MTU of the link that has {own.address}")]
        return []

    def add(self, network: Network) -> None:
        """Make the network's bridge reach the other hosts. Idempotent. Raises Refused where it cannot."""
        with self._lock:
            if problems := self.problems(network):
                raise Refused(problems)
            self._carry({_require(network).encrypted})
            self._make(network)
            self._up[network.id] = network
            self._reach(network)

    def _make(self, network: Network) -> None:
        overlay, own = _require(network), self._own
        assert own is not None
        name = self.link_of(network)
        bridge = links.index_of(bridge_name(self._config, network))
        self._netlink.send(
            tunnels.add_vxlan(
                name,
                number=overlay.vni,
                local=carrier(own, encrypted=overlay.encrypted),
                port=port_of(self._config, encrypted=overlay.encrypted),
                mtu=overlay.mtu,
                mac=_MAC,
            ),
            tunnels.no_link_local(name),
            links.attach(name, bridge, alias=alias_of(self._config, OWNER)),
        )

    def remove(self, network: Network) -> None:
        """Reach nobody any more. Idempotent."""
        with self._lock:
            if not network.overlay:
                return
            self._up.pop(network.id, None)
            self._netlink.send(links.delete_link(self.link_of(network)))
            self._drop_unused()

    def _drop_unused(self) -> None:
        kinds = {_require(network).encrypted for network in self._up.values()}
        for encrypted in {True, False} - kinds:
            self._hops.remove(encrypted=encrypted)
        if True not in kinds:
            self.wireguard.down()

    def recover(self, networks: Iterable[Network]) -> list[str]:
        """Have the links of these networks, which are up, and no others; what was repaired, in words."""
        repairs = []
        with self._lock:
            wanted = {self.link_of(network): network for network in networks if network.overlay}
            start = f"{self._config.link_prefix}x"
            there = {
                each.name
                for each in links.find_all(self._netlink)
                if each.kind == "vxlan" and each.name.startswith(start) and len(each.name) == len(start) + 8
            }
            for name in there - wanted.keys():
                self._netlink.send(links.delete_link(name))
                repairs.append(f"link {name} of no network removed")
            for name, network in wanted.items():
                self._up[network.id] = network
                try:
                    self.add(network)
                except BulkheadError as error:
                    repairs.append(f"network {network.name} does not reach the other hosts: {error.what}")
                    continue
                repairs += [] if name in there else [f"link {name} of network {network.name} made again"]
            self._drop_unused()
        return repairs

    def link_of(self, network: Network) -> str:
        """The port of its bridge that leads to other hosts."""
        return f"{self._config.link_prefix}x{network.id}"

    def announce(self, network: Network, link: str, address: Address) -> None:
        """Let every host know that an address is at this link of this host from now on; nothing on other networks."""
        with self._lock:
            index = links.index_of(link)
            if network.id not in self._up or not index:
                return
            self.unroute(network, address)
            self._netlink.send(tunnels.put_at_port(index, address.mac))
            with suppress(OSError):  # who does not hear of it learns it from the first packet
                tunnels.send_frames(self.link_of(network), announcement(address))

    def route(self, network: Network, address: Address, host: Endpoint) -> None:
        """Send what comes here for an instance of another host to that one."""
        with self._lock:
            self._hops.route(address, host, encrypted=_require(network).encrypted)

    def unroute(self, network: Network, address: Address) -> None:
        """It is no other host's (any more). Idempotent."""
        with self._lock:
            self._hops.unroute(address, encrypted=_require(network).encrypted)

    def _reach(self, network: Network) -> None:
        """Send to each host what is for all of them."""
        index = links.index_of(self.link_of(network))
        if not index:
            return
        encrypted = _require(network).encrypted
        others = [each for each in self._others if each.key or not encrypted]
        wanted: set[IpAddress] = {carrier(each, encrypted=encrypted) for each in others}
        there = tunnels.floods(self._netlink, index)
        self._netlink.send(
            *(tunnels.remove_flood(index, host) for host in there - wanted),
            *(tunnels.add_flood(index, host) for host in wanted - there),
        )


_MAC = "02:69:00:00:00:03"
"""Of the links themselves: nothing is sent from it."""


def _require(network: Network) -> Overlay:
    assert network.overlay is not None, f"{network.name} is this host's own"
    return network.overlay
