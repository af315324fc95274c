"""Networks of a fleet in its store: the networks, the hosts' ends of them, and what places have of them.

An address, and a port that every host publishes, is one record that its place has: it is taken and given back in the
transactions that make a place and end it (`take`, `free`), so it stays with an instance wherever that goes.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bulkhead.errors import Conflict, NotFound
from bulkhead.fleet import Place, Presence
from bulkhead.model import Network, PortMapping
from bulkhead.overlay import MOST_HOSTS, Endpoint
from bulkhead.store.base import Reader, Store, Transaction
from bulkhead.store.records import Records

_NETWORKS = Records("fleet-network", Network, lambda network: network.key)
_ENDPOINTS = Records("endpoint", Endpoint, lambda endpoint: endpoint.host)
_PLACES = Records("place", Place, lambda place: place.id)
_PRESENCES = Records("presence", Presence, lambda presence: presence.host)
PRESENCE, ADDRESS, PORT = "presence", "network-address", "fleet-port"
SAMPLES = 48
"""Addresses that are tried before all that are taken are listed."""


class Occupied(Conflict):
    """What an instance is to have of the fleet's networks is another's, whatever name and host it gets."""

    kind = "occupied"


@dataclass(frozen=True, slots=True)
class Shared:
    """The fleet's networks as of one moment."""

    networks: tuple[Network, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    presences: tuple[Presence, ...] = ()
    """Of hosts that are heard of."""


def seen(store: Store) -> Shared:
    """All of it."""
    with store.read() as reader:
        alive = {key for key, _ in reader.list("alive")}
        present = tuple(each for each in _PRESENCES.all(reader) if each.host in alive)
        return Shared(tuple(_NETWORKS.all(reader)), tuple(_ENDPOINTS.all(reader)), present)


def find(store: Store, key: str) -> Network | None:
    """One network, by `Network.key`."""
    with store.read() as reader:
        return _NETWORKS.get(reader, key)


# --- networks


def create(store: Store, network: Network) -> None:
    """Record a network. Raises Conflict where its name, its number or its subnets are not free on every host."""

    def body(transaction: Transaction) -> None:
        clashes = [*_clashes_with_networks(transaction, network), *_clashes_with_hosts(transaction, network)]
        if clashes:
            raise Conflict("; ".join(clashes), hint="choose another name or subnet, or none to have one chosen")
        _NETWORKS.put(transaction, network)

    store.attempt(body)


def _clashes_with_networks(reader: Reader, network: Network) -> Iterator[str]:
    for other in _NETWORKS.all(reader):
        if other.key == network.key:
            yield f"the fleet has a network {network.name} already"
        elif other.id == network.id or (other.overlay and network.overlay and other.overlay.vni == network.overlay.vni):
            yield f"network {other.name} of the fleet has the same number: try again"
        for mine, theirs in ((network.subnet4, other.subnet4), (network.subnet6, other.subnet6)):
            if _overlap(mine, theirs):
                yield f"subnet {mine} overlaps {theirs} (network {other.name} of the fleet)"


def _clashes_with_hosts(reader: Reader, network: Network) -> Iterator[str]:
    for endpoint in _ENDPOINTS.all(reader):
        if network.key in endpoint.networks:
            yield f"host {endpoint.address} has a network {network.name} of its own"
        for subnet, who in endpoint.taken.items():
            if _overlap(network.subnet4, subnet) or _overlap(network.subnet6, subnet):
                yield f"a subnet of {network.name} overlaps {subnet} ({who}, on host {endpoint.address})"


def _overlap(one: str, other: str) -> bool:
    a, b = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return a.version == b.version and a.overlaps(b)


def remove(store: Store, key: str) -> None:
    """Forget a network. Raises Conflict where an instance is on it, NotFound."""

    def body(transaction: Transaction) -> None:
        users = transaction.list(ADDRESS, f"{key}/")
        if users:
            names = ", ".join(sorted(_holder(transaction, text) for _, text in users[:5]))
            raise Conflict(f"{len(users)} instances are on network {key}: {names}", hint="remove these instances first")
        if not _NETWORKS.delete(transaction, key):
            raise NotFound(f"the fleet has no network {key}")

    store.attempt(body)


# --- hosts


def publish(store: Store, host: str, make: Callable[[int], Endpoint]) -> Endpoint:
    """Let the other hosts know where this one takes packets; `make` gets its number, which stays.

    Raises Conflict where there is no number left, NotFound where the host has left the fleet.
    """

    def body(transaction: Transaction) -> Endpoint:
        if transaction.get("host", host) is None:
            raise NotFound(f"host {host} is not in the fleet any more")
        there = _ENDPOINTS.get(transaction, host)
        number = there.number if there else _free_number(transaction)
        endpoint = make(number)
        if endpoint != there:
            _ENDPOINTS.put(transaction, endpoint)
        return endpoint

    return store.attempt(body)


def _free_number(reader: Reader) -> int:
    taken = {endpoint.number for endpoint in _ENDPOINTS.all(reader)}
    for number in range(1, MOST_HOSTS + 1):
        if number not in taken:
            return number
    raise Conflict(f"the fleet has {MOST_HOSTS} hosts on its networks: there is no number for another one")


def withdraw(transaction: Transaction, host: str) -> None:
    """In the transaction in which a host leaves: it takes no packets any more."""
    _ENDPOINTS.delete(transaction, host)
    _PRESENCES.delete(transaction, host)


def tell(store: Store, presence: Presence) -> None:
    """Let the other hosts know what runs on a host's networks; nothing where it has left the fleet."""

    def body(transaction: Transaction) -> None:
        if _ENDPOINTS.get(transaction, presence.host) and _PRESENCES.get(transaction, presence.host) != presence:
            _PRESENCES.put(transaction, presence)

    store.attempt(body)


# --- what a place has


def take(transaction: Transaction, place: Place) -> Place:
    """In the transaction that makes a place: with its address and its ports. Raises Occupied where another has them."""
    if not place.network:
        return place
    network = _NETWORKS.get(transaction, place.network)
    if network is None:
        raise Occupied(f"the fleet has no network {place.network} (any more)", hint="bulkhead network ls")
    if place.ipv4:
        taken = not _take_address(transaction, place, place.ipv4)
        ipv4 = place.ipv4
        if taken:
            raise Occupied(f"the address {ipv4} on network {network.name} is another instance's")
    else:
        ipv4 = _free_address(transaction, network, place)
    for mapping in place.ports:
        if not transaction.insert(PORT, _port_key(mapping), f'"{place.id}"'):
            who = _holder(transaction, transaction.get(PORT, _port_key(mapping)), seen_by=place.tenant)
            what = f"port {mapping.host_port}/{mapping.protocol} is published by {who}, on every host of the fleet"
            raise Occupied(what, hint="publish another port, or on one address of its host: -p IP:PORT:PORT")
    return place.model_copy(update={"ipv4": ipv4})


def free(transaction: Transaction, place: Place) -> None:
    """In the transaction that ends a place: what it has is free."""
    if place.network and place.ipv4:
        transaction.delete(ADDRESS, f"{place.network}/{place.ipv4}")
    for mapping in place.ports:
        transaction.delete(PORT, _port_key(mapping))


def rename(transaction: Transaction, before: Place, after: Place) -> Place:
    """In the transaction in which a reserved place is stated anew: what it has goes with it."""
    if not before.network:
        return take(transaction, after)
    kept = after.model_copy(update={"network": before.network, "ipv4": before.ipv4, "ports": before.ports})
    if before.id != after.id:
        transaction.put(ADDRESS, f"{kept.network}/{kept.ipv4}", f'"{kept.id}"')
        for mapping in kept.ports:
            transaction.put(PORT, _port_key(mapping), f'"{kept.id}"')
    return kept


def _free_address(transaction: Transaction, network: Network, place: Place) -> str:
    """Anywhere in the subnet, so that those who look at the same time do not look at the same ones."""
    subnet = ipaddress.IPv4Network(network.subnet4)
    usable = subnet.num_addresses - 3  # without network, gateway and broadcast
    chance = random.Random(place.id)  # noqa: S311 - no secret: any will do
    for _ in range(SAMPLES):
        ipv4 = str(subnet[2 + chance.randrange(usable)])
        if _take_address(transaction, place, ipv4):
            return ipv4
    start = f"{network.key}/"
    taken = {key.removeprefix(start) for key, _ in transaction.list(ADDRESS, start)}
    for offset in range(2, 2 + usable):
        if str(subnet[offset]) not in taken and _take_address(transaction, place, str(subnet[offset])):
            return str(subnet[offset])
    raise Occupied(
        f"network {network.name} has no free address: all {usable} of {subnet} are in use",
        hint="remove instances, or create a network with a larger subnet",
    )


def _take_address(transaction: Transaction, place: Place, ipv4: str) -> bool:
    return transaction.insert(ADDRESS, f"{place.network}/{ipv4}", f'"{place.id}"')


def _port_key(mapping: PortMapping) -> str:
    return f"{mapping.protocol}/{mapping.host_port}"


def _holder(reader: Reader, text: str | None, *, seen_by: str = "") -> str:
    """Name of the instance whose id a record holds; `seen_by`: only where it is that tenant's."""
    place = _PLACES.get(reader, text.strip('"')) if text else None
    return place.name if place and seen_by in ("", place.tenant) else "another instance"
