"""Publishing ports: the rules and the sockets that keep the ports from others, together."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, Problem
from bulkhead.host import nftables
from bulkhead.host.links import IpAddress
from bulkhead.model import Address, PortMapping
from bulkhead.network import ports
from bulkhead.network.filter import Filter
from bulkhead.network.rules import Published

FORGET_SECONDS = 0.05
"""How long addresses are collected before the table of tracked connections is looked through for them."""


class Publisher:
    """The published ports of one daemon. Thread-safe."""

    def __init__(self, config: Config, packet_filter: Filter) -> None:
        self._config = config
        self._filter = packet_filter
        self._sockets: dict[str, list[socket.socket]] = {}
        self._forgotten: set[IpAddress] = set()
        """Addresses whose tracked connections are to go."""
        self._forgetting: threading.Timer | None = None
        self._closed = False
        self._lock = threading.RLock()

    def check(self, mappings: Sequence[PortMapping], *, of: str = "") -> list[Problem]:
        """Why these ports could not be published now; every problem, empty when they could.

        `of`: id of the instance that they are for, to which they may lead already while it runs on another host.
        """
        there = self._filter.published
        led = there[of].ports if of in there and there[of].elsewhere else ()
        return ports.problems([each for each in mappings if each not in led], there, self._config)

    def publish(
        self, instance_id: str, address: Address, mappings: Sequence[PortMapping], *, elsewhere: bool = False
    ) -> None:
        """Lead the ports to the instance: all of them or none. Raises Conflict that names what is in the way."""
        with self._lock, ExitStack() as undo:
            self.unpublish(instance_id)
            if problems := self.check(mappings):
                raise Conflict("; ".join(each.what for each in problems), hint=problems[0].hint)
            held = []
            for mapping in mappings:
                for each in ports.hold(mapping):
                    undo.callback(each.close)
                    held.append(each)
            self._filter.publish(Published(instance_id, address, tuple(mappings), elsewhere))
            self._sockets[instance_id] = held
            undo.pop_all()

    def lead(self, instance_id: str, address: Address, mappings: Sequence[PortMapping]) -> bool:
        """The same for an instance of another host; False where it is still, or again, published as this host's own."""
        with self._lock:
            if self.is_here(instance_id):
                return False
            self.publish(instance_id, address, mappings, elsewhere=True)
            return True

    def retract(self, instance_id: str) -> None:
        """Lead nothing to another host's instance of this id (any more). Idempotent."""
        with self._lock:
            if self.leads(instance_id):
                self.unpublish(instance_id)

    def is_here(self, instance_id: str) -> bool:
        """Whether ports lead to an instance of this host."""
        there = self._filter.published.get(instance_id)
        return there is not None and not there.elsewhere

    def leads(self, instance_id: str) -> bool:
        """Whether they lead to one of another host."""
        there = self._filter.published.get(instance_id)
        return there is not None and there.elsewhere

    def unpublish(self, instance_id: str) -> None:
        """Lead the ports nowhere; what goes on through them ends a moment later. Idempotent."""
        with self._lock:
            published = self._filter.unpublish(instance_id)
            held = self._sockets.pop(instance_id, [])
        if published is not None:
            self._forget_later(published.address)
        for each in held:
            each.close()

    def _forget_later(self, address: Address) -> None:
        with self._lock:
            self._forgotten |= {ipaddress.ip_address(address.ipv4), ipaddress.ip_address(address.ipv6)}
            if self._forgetting is None and not self._closed:
                self._forgetting = threading.Timer(FORGET_SECONDS, self._forget)
                self._forgetting.daemon = True
                self._forgetting.start()

    def _forget(self) -> None:
        with self._lock:
            self._forgetting = None
            forgotten, self._forgotten = self._forgotten, set()
        if forgotten:
            nftables.forget_connections(forgotten)

    def adopt(self) -> list[str]:
        """Keep the ports again that the packet filter was told of by recovery; which cannot be, in words."""
        found = []
        with self._lock:
            self._let_go()
            for published in self._filter.published.values():
                held: list[socket.socket] = []
                for mapping in published.ports:
                    try:
                        held += ports.hold(mapping)
                    except HostError as error:
                        found.append(f"instance {published.instance_id[:12]}: {error.what}, and published all the same")
                self._sockets[published.instance_id] = held
        return found

    def close(self) -> None:
        """Give the sockets back; the rules stay."""
        with self._lock:
            self._closed = True
            waiting = self._forgetting
            self._let_go()
        if waiting is not None:
            waiting.cancel()
            waiting.join()
        self._forget()

    def _let_go(self) -> None:
        for held in self._sockets.values():
            for each in held:
                each.close()
        self._sockets.clear()
