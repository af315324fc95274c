"""Where a registry may lead: to no address that it could not be reached at itself.

A registry names other places: it redirects downloads, names a server for tokens, tells where an upload goes on. The
daemon reaches what the registry does not (the host's own services, its network), so a hostile one would use it as
a bridge, and so would a tenant that names a registry: the same holds for where that is. What is checked is the address
that is connected to, not a name that may mean another one a moment later.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from enum import IntEnum
from ipaddress import IPv6Address, ip_address

from bulkhead.errors import Forbidden, ImageError, Unavailable
from bulkhead.images.registry import proxies
from bulkhead.images.registry.meter import PlainSocket
from bulkhead.images.registry.proxies import Proxy

CONNECT_SECONDS = 15.0
READ_SECONDS = 60.0


class Reach(IntEnum):
    """How far inside an address lies; the smaller, the further."""

    OWN = 0
    """This host's own, or without a meaning beyond it: loopback, link-local, multicast."""
    PRIVATE = 1
    PUBLIC = 2


def reach(address: str) -> Reach:
    """Of an IP address in text."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and (inner := found.ipv4_mapped or found.sixtofour):
        return reach(str(inner))
    if found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified or _is_mine(address):
        return Reach.OWN
    return Reach.PUBLIC if found.is_global else Reach.PRIVATE


def _is_mine(address: str) -> bool:
    """Whether one of this host's links has the address: then it would be the source of what is sent there.

    A UDP socket that is connected sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return bool(probe.getsockname()[0] == address)
    return False


class Guard:
    """Connects for one registry, and remembers how far outside the registry itself is."""

    def __init__(
        self,
        home: tuple[str, int],
        trusted: frozenset[tuple[str, int]] = frozenset(),
        *,
        outward: bool = False,
    ) -> None:
        """`outward`: whoever named the registry may reach through this host what anybody could, and `trusted`."""
        self._home = home
        self._outward = outward
        self._trusted = trusted
        """Other places that the host's own configuration names."""
        self._floor = Reach.PRIVATE

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection. Raises ImageError where the registry may not lead, Unavailable where nobody answers."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise Unavailable(
                f"{host} cannot be found: {why}", hint="check the name and the host's resolver"
            ) from error
        last: OSError | None = None
        for family, kind, protocol, _, address in found:
            self._check(host, port, str(address[0]))
            connection = PlainSocket(family, kind, protocol)
            connection.settimeout(CONNECT_SECONDS)
            try:
                connection.connect(address)
                connection.settimeout(READ_SECONDS)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connection.close()
                last = error
                continue
            return connection
        why = last.strerror or str(last) if last else "it has no address"
        raise Unavailable(f"{host}:{port} does not answer: {why}", hint="check the registry's name and port")

    def connect_by(self, proxy: Proxy, host: str, port: int) -> socket.socket:
        """A connection to the proxy that leads to a host. Raises ImageError where the registry may not lead there.

        The proxy looks up names, and decides what its clients may reach by them: a host behind it need not have a
        resolver at all, and what one says would not be what the proxy hears. Addresses in digits are judged here.
        """
        if proxies.is_address(host):
            self._check(host, port, host)
        elif (host, port) == self._home:
            self._floor = Reach.PUBLIC
        connection = proxies.connect(proxy, seconds=CONNECT_SECONDS)
        connection.settimeout(READ_SECONDS)
        return connection

    def _check(self, host: str, port: int, address: str) -> None:
        found, trusted = reach(address), (host, port) in self._trusted
        where = "this host" if found is Reach.OWN else "a private network"
        if (host, port) == self._home:
            if self._outward and found is not Reach.PUBLIC and not trusted:
                raise Forbidden(
                    f"the registry {host}:{port} is at {address}, an address of {where}",
                    hint=f"an operator lets tenants use it: {host}:{port} as a [[registry]] of registries.conf",
                )
            self._floor = max(self._floor, found)
            return
        if trusted:
            return
        if found is Reach.OWN or found < self._floor:
            home = ":".join(map(str, self._home))
            raise ImageError(
                f"the registry {home} leads to {host}:{port} ({address}), an address of {where}",
                hint=f"if that is right, name {host}:{port} as a [[registry]] of registries.conf",
            )
