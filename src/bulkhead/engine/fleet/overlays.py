"""The fleet's networks on this host: its end of them is told to the others, theirs are learnt, and each network that
the fleet has is recorded here too, so that instances start, and run on, without the fleet's store. See design 0033.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bulkhead.config import FLEET_DIRECTORY, Config
from bulkhead.engine.fleet import taking
from bulkhead.engine.fleet.identity import Identity, Opened
from bulkhead.engine.fleet.presences import Presences
from bulkhead.errors import BulkheadError, Conflict, NotFound, Problem, Refused, Unavailable
from bulkhead.fleet import Presence
from bulkhead.host import private
from bulkhead.model import Address, Isolation, Model, Network, PortMapping, Spec, State
from bulkhead.network import Networks
from bulkhead.network.addresses import address_at
from bulkhead.overlay import Endpoint, Overlay
from bulkhead.store import State as Store
from bulkhead.store import overlays
from bulkhead.store.abilities import Watches

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 3.0
SETTLE_SECONDS = 0.05
"""After a change: what has ended has been recorded then, and what begins together is told together."""
UNDERLAY = "underlay.json"
LEAST_VNI, MOST_VNI = 4096, 1 << 24


class Underlay(Model):
    """The hosts as they were known last: what a daemon goes on with that cannot ask."""

    own: Endpoint
    others: tuple[Endpoint, ...]
    presences: tuple[Presence, ...] = ()
    """The others'."""


class FleetNetworks:
    """Keeps this host's end. One per daemon; nothing at all while the host is in no fleet."""

    def __init__(self, config: Config, state: Store, networks: Networks) -> None:
        self._config, self._state, self._networks = config, state, networks
        self._opened: Opened | None = None
        self._underlay: Underlay | None = None
        self._stop, self._soon = threading.Event(), threading.Event()
        self._looking = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.presences = Presences(state, networks)
        self._told: Presence | None = None
        """What the others know of this host."""
        self._hidden: frozenset[str] = frozenset()
        """Keys of the fleet's networks that are networks of this host's own here."""
        self.forget_network: Callable[[str], None] = lambda _: None
        """Told the key of a network that the fleet has no more, before it goes."""

    # --- the daemon's begin and end

    @property
    def _file(self) -> Path:
        return self._config.state_dir / FLEET_DIRECTORY / UNDERLAY

    def recall(self) -> None:
        """Know the hosts that were known when the daemon ended. Comes before the networks are recovered."""
        try:
            self._know(Underlay.model_validate_json(self._file.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read, and is made anew: %s", self._file, error)

    def open(self, opened: Opened) -> None:
        """Be a host of this fleet from now on."""
        self._opened, self._told = opened, None
        self._stop.clear()
        self._threads = [
            threading.Thread(target=work, args=(opened,), name="fleet-networks", daemon=True)
            for work in (self._keep, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Learn nothing any more; what there is stays. Idempotent."""
        self._opened = None
        self._stop.set()
        self._soon.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def forget(self) -> None:
        """Be on no network of a fleet: this host is in none (any more). Idempotent."""
        self.presences.forget()
        for network in self._state.networks():
            if network.overlay:
                self._drop(network)
        self._underlay = None
        self._networks.overlays.know(None, ())

    # --- what there is

    def find(self, key: str) -> Network | None:
        """A network of the fleet, by `Network.key`; one that another host has just made is learnt. None where this
        name is a network of this host's own, or nobody's.
        """
        in_none = self._opened is None and self._underlay is None
        if in_none or key.rpartition("@")[2] in ("none", "host"):
            return None
        there: Network | None
        try:
            there = self._state.network(key)
        except NotFound:
            there = self._learn(key)
        return there if there and there.overlay else None

    def _learn(self, key: str) -> Network | None:
        opened = self._opened
        if opened is None:
            return None
        try:
            if overlays.find(opened.state.store, key) is None:
                return None
            self._look(opened)
            return self._state.network(key)
        except (NotFound, Unavailable):
            return None

    def claims(self, key: str, ports: Sequence[PortMapping]) -> dict[str, Any]:
        """Of a place: what it is to have of the fleet's networks; nothing for an instance that is on none."""
        if self._opened is None or self.find(key) is None:
            return {}
        return {"network": key, "ports": tuple(each for each in ports if not each.host_ip)}

    def claims_of(self, spec: Spec) -> dict[str, Any]:
        """The same of an instance as its host makes it."""
        return {} if spec.isolation is Isolation.CHROOT else self.claims(spec.network_key, spec.ports)

    def address(self, key: str, ipv4: str) -> Address | None:
        """The address that an instance on this network was given; None where it is not on one of the fleet's."""
        network = self.find(key) if ipv4 else None
        return address_at(network, ipv4) if network else None

    def problems(self, spec: Spec, *, placed: bool) -> list[Problem]:
        """Why an instance cannot be on its network on this host. `placed`: the fleet has a place for it."""
        if spec.isolation is Isolation.CHROOT or spec.network in ("none", "host"):
            return []
        network, taken = self.find(spec.network_key), taking.current()
        if network is None:
            meant = taken is not None and taken.place.network == spec.network_key
            return self.hidden(spec) if meant else []
        if not placed:
            what = f"network {network.name} is the fleet's: what runs for a build or within a VM has no address there"
            return [Problem(what, "use a network of this host")]
        return self._networks.overlays.problems(network)

    def hidden(self, spec: Spec) -> list[Problem]:
        """Why an instance that is on a network of the fleet cannot be on it here: another has its name."""
        if spec.network_key not in self._hidden:
            return []
        what = f"network {spec.network} is the fleet's, and this host has one of its own with that name"
        return [Problem(what, "remove the host's own, or choose another --host")]

    # --- verbs

    def create(self, name: str, *, tenant: str, subnet4: str | None, subnet6: str | None, encrypted: bool) -> Network:
        """Record a network for all hosts. Raises Refused, Conflict, Unavailable; nothing is changed then."""
        opened = self._require()
        self._look(opened)
        shared = overlays.seen(opened.state.store)
        if encrypted and (lacking := [each for each in shared.endpoints if not each.key]):
            hint = "apt install wireguard-go wireguard-tools there; or --unencrypted, where nobody else is on the way"
            raise Refused(
                Problem(f"nothing can be encrypted on host {each.address}: {each.problem}", hint) for each in lacking
            )
        used = [
            (ipaddress.ip_network(subnet), f"{who}, on host {endpoint.address}")
            for endpoint in shared.endpoints
            if endpoint.host != opened.identity.id
            for subnet, who in endpoint.taken.items()
        ]
        chosen = self._networks.choose_subnets(self._state.networks(), subnet4, subnet6, elsewhere=used)
        vni = LEAST_VNI + secrets.randbelow(MOST_VNI - LEAST_VNI)
        mtu = min(endpoint.room(encrypted=encrypted) for endpoint in shared.endpoints)
        network = Network(
            name=name,
            tenant=tenant,
            id=f"{secrets.randbelow(256):02x}{vni:06x}",
            subnet4=chosen[0],
            subnet6=chosen[1],
            created=time.time(),
            overlay=Overlay(vni=vni, mtu=mtu, encrypted=encrypted),
        )
        overlays.create(opened.state.store, network)
        self._look(opened)
        return network

    def remove(self, network: Network) -> None:
        """Take a network away from all hosts. Raises Conflict where an instance is on it, Unavailable."""
        opened = self._require()
        overlays.remove(opened.state.store, network.key)
        self._look(opened)

    def _require(self) -> Opened:
        if self._opened is None:
            hint = "bulkhead cluster init begins one; without --fleet the network is this host's own"
            raise Conflict("this host is in no fleet", hint=hint)
        return self._opened

    # --- again and again

    def changed(self) -> None:
        """Something has begun or ended to run on a network of the fleet: the others are told now."""
        self._soon.set()

    def _listen(self, opened: Opened) -> None:
        """Look at once where another host tells something."""
        store = opened.state.store
        while not self._stop.is_set() and isinstance(store, Watches):
            try:
                with store.watch(overlays.PRESENCE, after=store.revision()) as watch:
                    while not self._stop.is_set():
                        if watch.next(0.5) is not None:
                            self._soon.set()
            except BulkheadError:
                self._stop.wait(INTERVAL_SECONDS)

    def _keep(self, opened: Opened) -> None:
        said, recalled = "", self._underlay
        while not self._stop.is_set():
            self._soon.clear()
            try:
                if recalled is not None:  # before the fleet's store is asked, which may be away
                    underlay, recalled = recalled, None
                    with self._looking:
                        self.presences.take(underlay.presences, underlay.others)
                self._look(opened)
                said = ""
            except BulkheadError as error:
                if error.what != said:
                    log.warning("the fleet's networks: %s", error.what)
                said = error.what
            except Exception:
                log.exception("the fleet's networks")
            if self._soon.wait(INTERVAL_SECONDS):
                self._stop.wait(SETTLE_SECONDS)

    def _look(self, opened: Opened) -> None:
        """Tell where this host is, learn where the others are and which networks there are. Raises Unavailable."""
        with self._looking:
            self._networks.overlays.mend()
            own = self._publish(opened)
            self._tell(opened)
            shared = overlays.seen(opened.state.store)
            others = tuple(each for each in shared.endpoints if each.host != own.host)
            presences = tuple(each for each in shared.presences if each.host != own.host)
            underlay = Underlay(own=own, others=others, presences=presences)
            before = self._underlay
            if underlay != before:
                self._write(underlay)
            if before is None or (before.own, before.others) != (own, others):
                self._know(underlay)
            self._underlay = underlay
            self._agree(shared.networks)
            self.presences.take(presences, others)

    def _tell(self, opened: Opened) -> None:
        presence = self.presences.own(opened.identity.id)
        if presence != self._told:
            overlays.tell(opened.state.store, presence)
            self._told = presence

    def _publish(self, opened: Opened) -> Endpoint:
        identity = opened.identity
        ip = _ip_of(identity)
        mtu = self._networks.mtu_of(ip)
        problem = self._networks.overlays.wireguard.problem()
        key = "" if problem else self._networks.overlays.wireguard.public_key()
        if not mtu:
            what = f"no link of this host has its address {ip}: it takes no packets of the fleet's networks"
            raise Refused(what, hint="bulkhead cluster leave, and join with --address of one of its links")
        own = [network for network in self._state.networks() if not network.overlay]
        of_fleet = [network for network in self._state.networks() if network.overlay]
        hidden = {subnet for network in of_fleet for subnet in (network.subnet4, network.subnet6)}
        taken = {str(subnet): who for subnet, who in self._networks.used(own) if str(subnet) not in hidden}

        def make(number: int) -> Endpoint:
            return Endpoint(
                host=identity.id,
                number=number,
                address=str(ip),
                mtu=min(mtu, 65535),
                taken=dict(sorted(taken.items())[:4096]),
                networks=tuple(sorted(network.key for network in own))[:4096],
                key=key,
                problem=problem,
            )

        return overlays.publish(opened.state.store, identity.id, make)

    def _know(self, underlay: Underlay) -> None:
        self._underlay = underlay
        self._networks.overlays.know(underlay.own, underlay.others)

    def _write(self, underlay: Underlay) -> None:
        if not self._file.parent.is_dir():  # this host leaves
            return
        private.write(self._file, underlay.model_dump_json().encode())

    def _agree(self, networks: Sequence[Network]) -> None:
        """Record here what the fleet has, and nothing else of its networks."""
        there = {network.key: network for network in self._state.networks()}
        hidden = frozenset(each.key for each in networks if (own := there.get(each.key)) and not own.overlay)
        for key in hidden - self._hidden:
            log.warning("network %s of the fleet is not here: this host has one of its own", key)
        self._hidden = hidden
        for network in networks:
            known = there.pop(network.key, None)
            if known == network or network.key in hidden:
                continue
            if known is not None:
                self._drop(known)
            self._state.create_network(network)
            log.info("network %s of the fleet is known here", network.key)
        for network in there.values():
            if network.overlay and not self._in_use(network):
                self._drop(network)
                log.info("network %s of the fleet is gone", network.key)

    def _in_use(self, network: Network) -> bool:
        return any(
            each.spec.network_key == network.key and each.state is not State.DELETING
            for each in self._state.instances()
        )

    def _drop(self, network: Network) -> None:
        self.forget_network(network.key)
        self._networks.down(network)
        self._state.delete_network(network.key)


def _ip_of(identity: Identity) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(identity.address.rpartition(":")[0].strip("[]"))
