"""Networks of instances on this host: the part's public face."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress

from bulkhead.config import Config
from bulkhead.errors import Conflict, Problem, Refused
from bulkhead.host import links, nftables, tunnels
from bulkhead.host.netlink import Netlink
from bulkhead.model import Address, Network, PortMapping
from bulkhead.network import addresses, taps
from bulkhead.network.bridges import Bridges
from bulkhead.network.filter import Filter
from bulkhead.network.forwarding import Forwarding
from bulkhead.network.hurdles import hurdles
from bulkhead.network.names import Asker, Named, Names
from bulkhead.network.overlays import Overlays
from bulkhead.network.pool import Pool
from bulkhead.network.publishing import Publisher
from bulkhead.network.recovery import Recovery, Running
from bulkhead.network.wiring import Connection, Wiring, alias_of
from bulkhead.overlay import Endpoint

POOLED = "pool"
"""Owner of the links that no instance has yet."""
_LINGER = 1.0
"""Seconds after which a link whose instance has ended is removed by force."""


class Networks:
    """Bridges, links, ports and names of one daemon. Thread-safe. What it knows, `recover` can read back."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._netlink = Netlink()
        self._filter = Filter(config)
        self._forwarding = Forwarding(config)
        self._bridges = Bridges(config, self._netlink)
        self._names = Names(config)
        self._publisher = Publisher(config, self._filter)
        self._wiring = Wiring(config, self._netlink, self._filter)
        self.overlays = Overlays(config, self._netlink, self._filter)
        self._pool = Pool(config.network_pool, make=self._make_spare, drop=self._drop_spare)
        self._lock = threading.RLock()
        self._up: dict[str, Network] = {}
        self._addresses: dict[str, set[str]] = {}
        """IPv4 addresses given out, by network id: also those that the store does not know yet, or never will."""
        self._kept: set[str] = set()
        """IPv4 addresses that only who asks for them gets."""
        self._last: dict[str, int] = {}
        self._lingering: dict[str, float] = {}
        """Links given back, with the time."""

    def choose_subnets(
        self,
        taken: Iterable[Network],
        subnet4: str | None,
        subnet6: str | None,
        *,
        elsewhere: addresses.Used | None = None,
    ) -> tuple[str, str]:
        """Subnets for a new network: the given ones when they can be, free ones where None.

        `elsewhere`: of a network of the fleet, what other hosts have in use. Raises Refused with every problem of the
        given ones, Conflict where they overlap another network or a route of the host.
        """
        used = [*self.used(taken), *(elsewhere or ())]
        return addresses.choose_subnets(self._config, used, subnet4, subnet6, fleet=elsewhere is not None)

    def used(self, taken: Iterable[Network]) -> list[tuple[links.IpNetwork, str]]:
        """The subnets that this host has a use for: those of the networks in `taken`, and where its routes lead."""
        networks = list(taken)
        own = {addresses.bridge_name(self._config, network) for network in networks}
        names = {link.index: link.name for link in links.find_all(self._netlink)}
        used = addresses.used_by(networks)
        for destination, index in links.routes(self._netlink):
            link = names.get(index, "?")
            if link not in own and not destination.is_link_local and not destination.is_multicast:
                used.append((destination, f"a route of this host through {link}"))
        return used

    def mtu_of(self, address: links.IpAddress) -> int:
        """The MTU of the link that has an address; 0 where none has."""
        index = tunnels.index_with(self._netlink, address)
        return next((link.mtu for link in links.find_all(self._netlink) if link.index == index), 0)

    def up(self, network: Network) -> None:
        """Have the network's bridge, rules and name server. Cheap when they are there."""
        with self._lock:
            if network.id in self._up and links.index_of(addresses.bridge_name(self._config, network)):
                return
            if problems := self.overlays.problems(network):
                raise Refused(problems)
            with ExitStack() as undo:
                undo.callback(self._retire)
                record = self._forwarding.enable(links.find_all(self._netlink))
                if self._config.published_ports == "input":
                    self._bridges.add_loop()
                undo.callback(self._filter.remove_network, network)
                self._filter.add_network(network, record.closed)
                undo.callback(self._bridges.remove, addresses.bridge_name(self._config, network))
                self._bridges.add(network)
                if network.overlay:
                    undo.callback(self.overlays.remove, network)
                    self.overlays.add(network)
                undo.callback(self._names.stop, network.id)
                self._names.start(network)
                undo.pop_all()
            self._up[network.id] = network

    def down(self, network: Network) -> None:
        """Remove what `up` made, and links that are left. Idempotent."""
        self._pool.drain(network)
        with self._lock:
            self._up.pop(network.id, None)
            self._addresses.pop(network.id, None)
            self._last.pop(network.id, None)
            self._names.stop(network.id)
            self.overlays.remove(network)
            self._remove_ports_of(addresses.bridge_name(self._config, network))
            self._bridges.remove(addresses.bridge_name(self._config, network))
            self._filter.remove_network(network)
            self._retire()

    def connect(
        self,
        network: Network,
        *,
        instance_id: str,
        taken: Collection[str],
        bandwidth: int | None,
        asks: bool = False,
        wanted: Address | None = None,
        silent: bool = False,
    ) -> Connection:
        """A namespace on the network, with an address that is not in `taken` (IPv4 addresses in use), or with `wanted`.

        `asks`: it is for a system that learns its address by DHCP, see `set_names`. `bandwidth` is in bits per second,
        each way. `silent`: nothing that it sends passes before `speak`. Raises Conflict when the subnet is full. The
        caller closes `netns_fd`, and gives the link back with `disconnect`.
        """
        self.up(network)
        _require_own(network, wanted)
        connection = None if wanted or silent else self._pool.take(network, taken)
        spare = connection is not None
        if connection is None:
            connection = self._make(network, taken, owner=instance_id, wanted=wanted, silent=silent)
        with ExitStack() as undo:
            undo.callback(os.close, connection.netns_fd)
            undo.callback(self.disconnect, connection.link)
            if spare:
                self._netlink.send(links.set_alias(connection.link, alias_of(self._config, instance_id)))
            if asks:
                self._filter.let_ask(connection.link)
            if bandwidth is not None:
                self._wiring.shape(connection.link, connection.netns_fd, bandwidth)
            undo.pop_all()
        return connection

    def speak(self, link: str) -> None:
        """Let what a silent link sends pass from now on. Idempotent."""
        self._filter.speak(link)

    def lodge(
        self,
        network: Network,
        *,
        instance_id: str,
        link: str,
        taken: Collection[str],
        wanted: Address | None = None,
    ) -> Address:
        """An address on the network for an instance within a VM, which sends by the VM's link; see `connect`."""
        self.up(network)
        _require_own(network, wanted)
        address = self._take(network, wanted) if wanted else self._lease(network, taken)
        with ExitStack() as undo:
            undo.callback(self._give_back, address)
            self._filter.lodge(instance_id, link, address)
            undo.pop_all()
        return address

    def dislodge(self, instance_id: str) -> None:
        """Give back what `lodge` gave. Idempotent."""
        address = self._filter.dislodge(instance_id)
        if address is not None:
            self._give_back(address)

    def _give_back(self, address: Address) -> None:
        with self._lock:
            for given in self._addresses.values():
                given.discard(address.ipv4)

    def add_tap(self, netns_fd: int, address: Address, *, owner: int) -> str:
        """Put a guest behind an instance's link: a tap in its namespace, for the host uid `owner`. The tap's name."""
        return taps.make(netns_fd, address, owner=owner)

    def disconnect(self, link: str) -> None:
        """Give a link back: nothing passes any more. Idempotent.

        The kernel removes the link itself when the last process of the instance has gone, some 50 ms later and many
        at a time; one that stays, because a process has escaped its end, is removed by a later call.
        """
        address = self._filter.forbid(link)
        with self._lock:
            if address is not None:
                for given in self._addresses.values():
                    given.discard(address.ipv4)
            now = time.monotonic()
            overdue = [each for each, since in self._lingering.items() if now - since > _LINGER]
            self._lingering[link] = now
        self._remove_links(overdue)

    def settle(self, timeout: float = 2.0) -> None:
        """Wait until every link that was given back has gone; remove those that do not go within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            waiting = list(self._lingering)
        while time.monotonic() < deadline and any(links.index_of(link) for link in waiting):
            time.sleep(0.005)
        self._remove_links(waiting)

    def keep(self, address: Address) -> None:
        """Give this address to nobody but who connects with it, until `let_go`. Idempotent."""
        with self._lock:
            self._kept.add(address.ipv4)

    def let_go(self, address: Address) -> None:
        """Let an address that was kept be anybody's. Idempotent."""
        with self._lock:
            self._kept.discard(address.ipv4)

    def publish(self, instance_id: str, address: Address, mappings: Sequence[PortMapping]) -> None:
        """Lead ports of the host to an instance: all of them or none.

        Raises Conflict that names every port that cannot be, and who has it.
        """
        self._publisher.publish(instance_id, address, mappings)

    def lead(
        self, instance_id: str, network: Network, address: Address, mappings: Sequence[PortMapping], host: Endpoint
    ) -> bool:
        """Lead ports of this host to an instance of another one, `host`; False where it is this host's (still).

        Raises Conflict that names every port that cannot be, and who has it.
        """
        if self._publisher.is_here(instance_id):
            return False
        self.up(network)
        self.overlays.route(network, address, host)
        led = False
        try:
            led = self._publisher.lead(instance_id, address, mappings)
        finally:
            if not led:
                self.overlays.unroute(network, address)
        return led

    def leads(self, instance_id: str) -> bool:
        """Whether ports lead to an instance of another host."""
        return self._publisher.leads(instance_id)

    def retract(self, instance_id: str, network: Network, address: Address) -> None:
        """Lead them there no more. Idempotent."""
        self._publisher.retract(instance_id)
        self.overlays.unroute(network, address)

    def unpublish(self, instance_id: str) -> None:
        """Lead an instance's ports nowhere, and end what goes on through them. Idempotent."""
        self._publisher.unpublish(instance_id)

    def check_ports(self, mappings: Sequence[PortMapping], *, of: str = "") -> list[Problem]:
        """Why these ports could not be published now; empty when they could. Every problem.

        `of`: id of the instance that they are for, to which they may lead already while it runs on another host.
        """
        return self._publisher.check(mappings, of=of)

    def hurdles(self) -> list[Problem]:
        """What of the host's own firewall may stand in the way of instances, with what to do about it."""
        return hurdles(nftables.base_chains(), self._config)

    def set_names(self, network: Network, names: Sequence[Named], askers: Sequence[Asker] = ()) -> None:
        """Answer these names, and no others, on a network that is up; nothing to do where it is not.

        `askers`: who is told its address and host name by DHCP.
        """
        with self._lock:
            if network.id in self._up:
                self._names.set(network, names, askers)

    def shape(self, link: str, pid: int, bandwidth: int | None) -> None:
        """Change the bandwidth (bits per second, each way; None: no limit) of a running instance's link.

        `pid` is any process of the instance. Raises HostError when it has ended.
        """
        self._wiring.shape_of_process(link, pid, bandwidth)

    def traffic(self, link: str) -> tuple[int, int]:
        """Bytes that the instance behind a link has received and sent; zeros when the link has gone."""
        found = links.find(self._netlink, link)
        return (found.sent, found.received) if found else (0, 0)

    def counted(self) -> dict[str, tuple[int, int]]:
        """The same of every link of ours that there is, by name."""
        prefix = self._config.link_prefix
        found = links.find_all(self._netlink)
        return {link.name: (link.sent, link.received) for link in found if link.name.startswith(prefix)}

    def counted_of(self, link: str) -> tuple[int, int] | None:
        """The same of one; None when it has gone."""
        found = links.find(self._netlink, link)
        return (found.sent, found.received) if found else None

    def recover(
        self,
        networks: Sequence[Network],
        running: Mapping[str, Running],
        askers: Collection[str] = (),
        lodging: Mapping[str, str] | None = None,
        silent: Collection[str] = (),
    ) -> list[str]:
        """Make the kernel agree with the store, whatever is there: call once, before anything else.

        `running` has the address, ports and bandwidth of every instance that runs, by id; `askers` are those of them
        that learn their address by DHCP, `lodging` those within VMs, with the id of each one's VM, `silent` those that
        send nothing before `speak`. Networks that no instance is on and that have no bridge stay down. Returns what was
        repaired, in words.
        """
        with self._lock:
            recovery = Recovery(self._config, self._netlink, self._filter, self._forwarding, self._bridges, self._names)
            recovery.lodging, recovery.silent = lodging or {}, silent
            repairs = recovery.run(networks, running, askers)
            repairs += self.overlays.recover(recovery.up)
            self._up = {network.id: network for network in recovery.up}
            for network in recovery.up:
                subnet = ipaddress.IPv4Network(network.subnet4)
                used = {each.ipv4 for each, _, _ in running.values() if ipaddress.IPv4Address(each.ipv4) in subnet}
                self._addresses[network.id] = used
            repairs += self._publisher.adopt()
            self._retire()
        return repairs

    def prefill(self, network: Network) -> None:
        """Keep namespaces ready on this network from now on, made in the background."""
        self._pool.serve(network)

    def wait_ready(self, timeout: float = 10.0) -> bool:
        """Wait until the pool is full; False when it is not by then."""
        return self._pool.wait_full(timeout)

    def close(self) -> None:
        """Give back what only this process has, the pool and the sockets, and networks that no instance is on.

        Networks with instances stay as they are.
        """
        self._pool.close()
        self.settle()
        with self._lock:
            for network in list(self._up.values()):
                if not self._addresses.get(network.id):
                    self.down(network)
        self._publisher.close()
        self._filter.close()
        self._netlink.close()

    def _make(
        self,
        network: Network,
        taken: Collection[str],
        *,
        owner: str,
        wanted: Address | None = None,
        silent: bool = False,
    ) -> Connection:
        address = self._take(network, wanted) if wanted else self._lease(network, taken)
        try:
            return self._wiring.make(network, address, owner=owner, silent=silent)
        except BaseException:
            with self._lock:
                self._addresses.get(network.id, set()).discard(address.ipv4)
            raise

    def _lease(self, network: Network, taken: Collection[str]) -> Address:
        with self._lock:
            given = self._addresses.setdefault(network.id, set())
            offset = addresses.choose_offset(network, given.union(taken, self._kept), self._last.get(network.id, 1))
            self._last[network.id] = offset
            address = addresses.address_of(network, offset)
            given.add(address.ipv4)
            return address

    def _take(self, network: Network, address: Address) -> Address:
        with self._lock:
            given = self._addresses.setdefault(network.id, set())
            if address.ipv4 in given:
                raise Conflict(
                    f"the address {address.ipv4} on network {network.name} has been given to another instance"
                )
            given.add(address.ipv4)
            return address

    def _make_spare(self, network: Network) -> Connection:
        self.up(network)
        return self._make(network, (), owner=POOLED)

    def _drop_spare(self, connection: Connection) -> None:
        os.close(connection.netns_fd)
        self.disconnect(connection.link)

    def _remove_links(self, overdue: Iterable[str]) -> None:
        for link in overdue:
            if links.index_of(link):
                self._netlink.send(links.delete_link(link))
            with self._lock:
                self._lingering.pop(link, None)

    def _remove_ports_of(self, bridge: str) -> None:
        index = links.index_of(bridge)
        for link in links.find_all(self._netlink) if index else ():
            if link.master == index:
                self._wiring.remove(link.name)
                self._lingering.pop(link.name, None)

    def _retire(self) -> None:
        """Without a bridge of ours, nothing of ours is needed on the host."""
        everything = links.find_all(self._netlink)
        if not self._bridges.ours(everything):
            self._filter.remove_tables()
            self._bridges.remove_loop()
            self._forwarding.disable(everything)
            with suppress(OSError):  # it may not be there, or not be empty
                (self._config.run_dir / "network").rmdir()


def _require_own(network: Network, wanted: Address | None) -> None:
    """Raise Refused where nobody but the fleet may give an address."""
    if network.overlay and wanted is None:
        what = f"network {network.name} is the fleet's, which gives addresses to instances that have a place in it"
        raise Refused(what, hint="builds and instances within VMs are on networks of a host's own")
