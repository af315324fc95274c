"""Who runs on the fleet's networks, and where: told to the other hosts, and what they tell made use of here.

By it an instance's names are answered on every host, and the ports that it publishes lead to it from every host.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bulkhead.errors import BulkheadError, NotFound
from bulkhead.fleet import Presence, Present
from bulkhead.model import Address, Network
from bulkhead.network import Networks
from bulkhead.network.addresses import address_at
from bulkhead.overlay import Endpoint
from bulkhead.store import State as Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Led:
    """An instance of another host whose ports lead there."""

    present: Present
    network: Network
    address: Address
    host: Endpoint


class Presences:
    """This host's, and the others' as they were told last. Thread-safe."""

    def __init__(self, state: Store, networks: Networks) -> None:
        self._state, self._networks = state, networks
        self._lock = threading.Lock()
        self._names: dict[str, tuple[tuple[str, Address], ...]] = {}
        """Of other hosts' instances, by the key of their network."""
        self._led: dict[str, _Led] = {}
        self._said: dict[str, str] = {}
        """Why ports cannot be led to an instance, as it was logged."""
        self.names_changed: Callable[[Network], None] = lambda _: None
        """Told of a network on which names of other hosts' instances have come or gone."""

    def own(self, host: str) -> Presence:
        """What runs here."""
        shared = {network.key for network in self._state.networks() if network.overlay}
        found = []
        for instance in self._state.instances():
            spec = instance.spec
            if instance.address is None or spec.network_key not in shared:
                continue
            names = tuple(dict.fromkeys((spec.name, spec.id[:12], spec.hostname, *spec.aliases)))
            ports = tuple(each for each in spec.ports if not each.host_ip)
            found.append(
                Present(id=spec.id, network=spec.network_key, ipv4=instance.address.ipv4, names=names, ports=ports)
            )
        return Presence(host=host, instances=tuple(sorted(found, key=lambda each: each.id)))

    def names(self, network: Network) -> Sequence[tuple[str, Address]]:
        """Names on a network of instances that run on other hosts."""
        with self._lock:
            return self._names.get(network.key, ())

    def take(self, others: Sequence[Presence], endpoints: Collection[Endpoint]) -> None:
        """Make use of what other hosts tell; what is not among these is gone."""
        hosts = {endpoint.host: endpoint for endpoint in endpoints}
        wanted: dict[str, _Led] = {}
        names: dict[str, set[tuple[str, Address]]] = {}
        for presence in others:
            for present in presence.instances if presence.host in hosts else ():
                found = self._find(present)
                if found is None:
                    continue
                network, address = found
                names.setdefault(network.key, set()).update((name, address) for name in present.names)
                if present.ports:
                    wanted[present.id] = _Led(present, network, address, hosts[presence.host])
        self._take_names({key: tuple(sorted(each, key=_order)) for key, each in names.items()})
        self._lead(wanted)

    def _find(self, present: Present) -> tuple[Network, Address] | None:
        """Where it is; None where this host does not know the network, or is on another of this name."""
        try:
            network = self._state.network(present.network)
            return (network, address_at(network, present.ipv4)) if network.overlay else None
        except BulkheadError:
            return None

    def _take_names(self, names: dict[str, tuple[tuple[str, Address], ...]]) -> None:
        with self._lock:
            before, self._names = self._names, names
        for key in before.keys() | names.keys():
            if before.get(key) != names.get(key):
                try:
                    self.names_changed(self._state.network(key))
                except NotFound:
                    continue

    def _lead(self, wanted: dict[str, _Led]) -> None:
        for instance_id, led in list(self._led.items()):
            if wanted.get(instance_id) != led:
                self._networks.retract(instance_id, led.network, led.address)
                del self._led[instance_id]
        for instance_id in self._said.keys() - wanted.keys():
            del self._said[instance_id]
        for instance_id, led in wanted.items():
            if instance_id in self._led and self._networks.leads(instance_id):
                continue
            try:
                if self._networks.lead(instance_id, led.network, led.address, led.present.ports, led.host):
                    self._led[instance_id] = led
                    self._said.pop(instance_id, None)
            except BulkheadError as error:
                if self._said.get(instance_id) != error.what:
                    log.warning("ports of %s do not lead there from this host: %s", led.present.names[0], error.what)
                self._said[instance_id] = error.what

    def forget(self) -> None:
        """Nothing runs elsewhere."""
        self._lead({})
        self._take_names({})


def _order(named: tuple[str, Address]) -> tuple[str, str]:
    return named[0], named[1].ipv4
