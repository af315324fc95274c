"""The packet filter as it should be, kept in memory, and the kernel made to agree with it.

Single elements go to the kernel directly; a whole ruleset is loaded in one transaction when there is none, when it
was made by another version, or when somebody has removed it (`nft flush ruleset`).
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.config import Config
from bulkhead.errors import HostError
from bulkhead.host import links, nftables
from bulkhead.host.netlink import NetlinkError
from bulkhead.host.nftables import Element
from bulkhead.model import Address, Network
from bulkhead.network import rules

Closed = Mapping[Literal["ip", "ip6"], Iterable[str]]


@dataclass
class Wanted:
    """What the sets are to hold."""

    networks: dict[str, Network] = field(default_factory=dict)
    senders: dict[str, Address] = field(default_factory=dict)
    """Addresses of instances by the name of their link."""
    lodgers: dict[str, tuple[str, Address]] = field(default_factory=dict)
    """Instances within VMs: the link that they send by, which is their VM's, and their own address."""
    silent: set[str] = field(default_factory=set)
    """Those of these links by which nothing passes yet, whoever sends it."""
    askers: set[str] = field(default_factory=set)
    """Those of these links whose systems ask for their address (DHCP)."""
    published: dict[str, rules.Published] = field(default_factory=dict)
    closed: Closed = field(default_factory=dict)


class Filter:
    """The tables of one daemon. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._elements = nftables.Elements(config.nft_table)
        self._lock = threading.RLock()
        self._wanted = Wanted()
        self._members: frozenset[links.IpAddress] = frozenset()
        self._there = False

    def close(self) -> None:
        """Give the socket back; the rules stay."""
        self._elements.close()

    def remove_tables(self) -> None:
        """Take the tables away. Idempotent."""
        with self._lock:
            nftables.load(rules.no_ruleset(self._config))
            self._wanted = Wanted()
            self._there = False

    def adopt(self, wanted: Wanted) -> list[str]:
        """Make the kernel agree with `wanted`, whatever is there; what was wrong, in words."""
        with self._lock:
            self._wanted = wanted
            return self.repair()

    def repair(self) -> list[str]:
        """Make the kernel agree with what is wanted; what was wrong, in words."""
        with self._lock:
            there = self._read()
            wanted = self._all()
            by_text = {(each.family, each.set, each.text): each for each in wanted}
            table = self._config.nft_table
            if there is None:
                stamp = f"add chain ip {table} {self._stamp()}\n"
                adding = "".join(each.script("add", table) for each in wanted)
                nftables.load(rules.ruleset(self._config) + stamp + adding)
                self._there = True
                return [f"packet filter {table} loaded"]
            found = {(each.family, each.set, each.text): each for each in there}
            surplus, missing = found.keys() - by_text.keys(), by_text.keys() - found.keys()
            script = [found[each].script("delete", table) for each in sorted(surplus)]
            script += [by_text[each].script("add", table) for each in sorted(missing)]
            if script:
                nftables.load("".join(script))
            self._there = True
            return [
                *([f"packet filter: {len(surplus)} leftover elements removed"] if surplus else []),
                *(f"packet filter: {' '.join(each)} put back" for each in sorted(missing)),
            ]

    def add_network(self, network: Network, closed: Closed) -> None:
        """Translate addresses for a network and keep it apart from the others; have the tables.

        The host goes on not forwarding between the links in `closed`. The pair of links that rules.py speaks of must
        exist.
        """
        with self._lock:
            self._wanted.networks[network.id] = network
            self._wanted.closed = closed
            elements = rules.network_elements(self._config, network)
            if not (self._there and self._load("add", elements)):
                self.repair()

    def remove_network(self, network: Network) -> None:
        """Forget a network. Idempotent."""
        with self._lock:
            known = self._wanted.networks.pop(network.id, None)
            if known and self._there and not self._load("delete", rules.network_elements(self._config, network)):
                self.repair()

    def _load(self, verb: str, elements: list[Element]) -> bool:
        """Add or delete in one transaction; False when that cannot be: what is there is not what was left."""
        try:
            nftables.load("".join(each.script(verb, self._config.nft_table) for each in elements))
        except HostError:
            return False
        return True

    def set_members(self, hosts: Iterable[links.IpAddress]) -> None:
        """Take packets of the fleet's networks from these hosts, and from no others."""
        with self._lock:
            before, self._members = self._members, frozenset(hosts)
            if self._there and before != self._members:
                self._change(self._elements.remove, rules.member_elements(before - self._members))
                self._change(self._elements.add, rules.member_elements(self._members - before))

    def allow(self, link: str, address: Address, *, silent: bool = False) -> None:
        """Let the instance behind a link send from its address; a silent one once it is told to `speak`."""
        with self._lock:
            self._wanted.senders[link] = address
            if silent:
                self._wanted.silent.add(link)
            else:
                self._change(self._elements.add, rules.sender_elements(link, address))

    def speak(self, link: str) -> None:
        """Let what comes by a silent link pass. Idempotent."""
        with self._lock:
            if link not in self._wanted.silent:
                return
            self._wanted.silent.discard(link)
            address = self._wanted.senders[link]
            asks = rules.asker_elements(link, address) if link in self._wanted.askers else []
            self._change(self._elements.add, [*rules.sender_elements(link, address), *asks])

    def lodge(self, instance_id: str, link: str, address: Address) -> None:
        """Let an instance send from its address by the link of the VM that it is in."""
        with self._lock:
            self._wanted.lodgers[instance_id] = (link, address)
            self._change(self._elements.add, rules.sender_elements(link, address))

    def dislodge(self, instance_id: str) -> Address | None:
        """It sends nothing any more; the address it had, None when it had none. Idempotent."""
        with self._lock:
            link, address = self._wanted.lodgers.pop(instance_id, ("", None))
            if address is not None and self._there:
                self._change(self._elements.remove, rules.sender_elements(link, address))
            return address

    def let_ask(self, link: str) -> None:
        """Let the system behind an allowed link ask for its address."""
        with self._lock:
            self._wanted.askers.add(link)
            if link not in self._wanted.silent:
                self._change(self._elements.add, rules.asker_elements(link, self._wanted.senders[link]))

    def forbid(self, link: str) -> Address | None:
        """Nothing that comes by this link passes any more; the address it had, None when it had none. Idempotent."""
        with self._lock:
            address = self._wanted.senders.pop(link, None)
            asks, silent = link in self._wanted.askers, link in self._wanted.silent
            self._wanted.askers.discard(link)
            self._wanted.silent.discard(link)
            if address is not None and self._there and not silent:
                more = rules.asker_elements(link, address) if asks else []
                self._change(self._elements.remove, [*rules.sender_elements(link, address), *more])
            return address

    def publish(self, published: rules.Published) -> None:
        """Lead the ports to the instance: all or none."""
        with self._lock:
            self._wanted.published[published.instance_id] = published
            try:
                self._change(self._elements.add, rules.port_elements(published))
            except BaseException:
                del self._wanted.published[published.instance_id]
                raise

    def unpublish(self, instance_id: str) -> rules.Published | None:
        """Lead the ports nowhere; what was published, None when nothing was."""
        with self._lock:
            published = self._wanted.published.pop(instance_id, None)
            if published is not None and self._there:
                self._change(self._elements.remove, rules.port_elements(published))
            return published

    @property
    def published(self) -> Mapping[str, rules.Published]:
        """What is published, by instance."""
        with self._lock:
            return dict(self._wanted.published)

    def _change(self, change: Callable[[list[Element]], None], elements: list[Element]) -> None:
        try:
            change(elements)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            self.repair()  # somebody has removed the tables; what is wanted already says the change

    def _all(self) -> list[Element]:
        wanted = self._wanted
        heard = {link: address for link, address in wanted.senders.items() if link not in wanted.silent}
        return [
            *(each for network in wanted.networks.values() for each in rules.network_elements(self._config, network)),
            *(each for link, address in heard.items() for each in rules.sender_elements(link, address)),
            *(each for link, address in wanted.lodgers.values() for each in rules.sender_elements(link, address)),
            *(each for link in wanted.askers & heard.keys() for each in rules.asker_elements(link, heard[link])),
            *(each for published in wanted.published.values() for each in rules.port_elements(published)),
            *rules.closed_elements(wanted.closed),
            *rules.member_elements(self._members),
        ]

    def _read(self) -> set[Element] | None:
        """The elements that are there; None when the tables are not, or are not those of this version."""
        found: set[Element] = set()
        for family in rules.TABLES:
            objects = nftables.read(family, self._config.nft_table)
            if objects is None or (family == "ip" and self._stamp() not in nftables.chains(objects)):
                return None
            found |= nftables.elements(objects)
        return found

    def _stamp(self) -> str:
        """Name of an empty chain that tells which rules these are, and which link they send copies to."""
        index = links.index_of(f"{self._config.link_prefix}out")
        return "version_" + hashlib.sha256(f"{index}\n{rules.ruleset(self._config)}".encode()).hexdigest()[:16]
