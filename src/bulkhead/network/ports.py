"""Published ports: which may be, who has them, and keeping them from others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bulkhead.config import Config
from bulkhead.errors import HostError, Problem
from bulkhead.host import sockets
from bulkhead.model import PortMapping
from bulkhead.network.rules import Published, describe, families_of, is_any

UNSPECIFIED = {"ip": "0.0.0.0", "ip6": "::"}  # noqa: S104
_STRICT = Path("/proc/sys/net/ipv4/conf/all/rp_filter")
Owned = Mapping[str, Published]
"""What is published, by instance id."""


def problems(ports: Sequence[PortMapping], owned: Owned, config: Config) -> list[Problem]:
    """Why these ports cannot be published now; empty when they can."""
    found = list(malformed(ports)) or list(clashes(ports))
    if found:
        return found
    if ports and config.published_ports == "input" and _STRICT.read_text().strip() == "1":
        found.append(strict_problem())
    with ExitStack() as stack:
        for mapping in ports:
            try:
                for each in hold(mapping):
                    stack.callback(each.close)
            except HostError as error:
                found.append(explain(mapping, error, owned))
    return found


def malformed(ports: Iterable[PortMapping]) -> Iterator[Problem]:
    """Addresses that are none, or that nothing can be published on."""
    for mapping in ports:
        try:
            address = ipaddress.ip_address(mapping.host_ip or "0.0.0.0")  # noqa: S104
        except ValueError:
            yield Problem(f"port {describe(mapping)}: {mapping.host_ip!r} is not an IP address", "such as 127.0.0.1")
            continue
        if address.is_multicast:
            yield Problem(f"port {describe(mapping)}: {mapping.host_ip} is a multicast address", "leave it out")
        elif address.version == 6 and address.is_loopback:
            # What answers comes from a bridge, and the kernel takes packets for ::1 from lo alone: no route_localnet.
            what = f"port {describe(mapping)} cannot be published: Linux leads nothing from ::1 to another link"
            yield Problem(what, f"-p 127.0.0.1:{mapping.host_port}:{mapping.port} reaches it from this host alone")
        elif isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            yield Problem(f"port {describe(mapping)}: {mapping.host_ip} is an IPv4 address", f"{address.ipv4_mapped}")


def clashes(ports: Sequence[PortMapping]) -> Iterator[Problem]:
    """Ports that are asked for twice."""
    for number, mapping in enumerate(ports):
        for other in ports[:number]:
            if overlap(mapping, other):
                yield Problem(
                    f"port {describe(mapping)} is asked for twice: to {other.port} and to {mapping.port}",
                    "publish one of them on another port",
                )


def overlap(one: PortMapping, other: PortMapping) -> bool:
    """Whether two mappings want the same port of the same address."""
    if (one.protocol, one.host_port) != (other.protocol, other.host_port):
        return False
    if not set(families_of(one)) & set(families_of(other)):
        return False
    if is_any(one) or is_any(other):
        return True
    return ipaddress.ip_address(one.host_ip) == ipaddress.ip_address(other.host_ip)


def hold(mapping: PortMapping) -> list[socket.socket]:
    """Sockets that keep the port from everybody else: the host's programs, and its outgoing connections."""
    held: list[socket.socket] = []
    with ExitStack() as stack:
        for family in families_of(mapping):
            ip = UNSPECIFIED[family] if is_any(mapping) else mapping.host_ip
            each = sockets.reserve(mapping.protocol, ip, mapping.host_port)
            stack.callback(each.close)
            held.append(each)
        stack.pop_all()
    return held


def explain(mapping: PortMapping, error: HostError, owned: Owned) -> Problem:
    """Who has the port, as far as that can be found out."""
    if not isinstance(error, sockets.PortTaken):
        return Problem(f"port {describe(mapping)} cannot be published: {error.what}", "leave the address out")
    for published in owned.values():
        if any(overlap(mapping, other) for other in published.ports):
            who = f"instance {published.instance_id[:12]}"
            break
    else:
        who = sockets.holder(mapping.protocol, mapping.host_port) or "another program of the host"
    return Problem(f"port {describe(mapping)} is taken by {who}", "publish another port of the host")


def strict_problem() -> Problem:
    """A host whose routing drops what arrives by an unexpected link, which published ports need once."""
    return Problem(
        "ports cannot be published: net.ipv4.conf.all.rp_filter is 1 (strict)",
        'set it to 2 (loose), or set published_ports = "forward" in the configuration',
    )
