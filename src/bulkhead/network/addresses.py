"""Which addresses: subnets of networks, addresses of instances, and what follows from them. Pure.

An instance has the same number in both of its network's subnets, and its MAC address follows from its IPv4 address.
The name of its link is never used again, so that giving back one of long ago cannot touch the present one.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection, Iterable, Iterator

from bulkhead.config import Config
from bulkhead.errors import Conflict, Problem, Refused
from bulkhead.model import Address, Network

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Used = Collection[tuple[IpNetwork, str]]
"""Subnets that are in use, with who uses them in words."""

WIDEST = {4: 8, 6: 16}
NARROWEST = {4: 30, 6: 124}
POOL_PREFIX = {4: 24, 6: 64}


def bridge_name(config: Config, network: Network) -> str:
    """The bridge of a network."""
    return f"{config.link_prefix}-{network.id}"


def new_link_name(config: Config) -> str:
    """The host's end of a new link: "bhv" and eight random digits."""
    return f"{config.link_prefix}v{secrets.token_hex(4)}"


def mac_of(ipv4: str | ipaddress.IPv4Address) -> str:
    """The locally administered MAC address that goes with an IPv4 address."""
    return mac_bytes_of(ipv4).hex(":")


def mac_bytes_of(ipv4: str | ipaddress.IPv4Address) -> bytes:
    """The same as six bytes."""
    return b"\x02\x68" + ipaddress.IPv4Address(ipv4).packed


def address_of(network: Network, offset: int) -> Address:
    """The address with this number in both subnets; number 1 is the gateway."""
    subnet4, subnet6 = ipaddress.IPv4Network(network.subnet4), ipaddress.IPv6Network(network.subnet6)
    ipv4 = subnet4[offset]
    return Address(
        network=network.name,
        ipv4=str(ipv4),
        prefix4=subnet4.prefixlen,
        gateway4=str(subnet4[1]),
        ipv6=str(subnet6[offset]),
        prefix6=subnet6.prefixlen,
        gateway6=str(subnet6[1]),
        mac=mac_of(ipv4),
        mtu=network.overlay.mtu if network.overlay else 0,
    )


def address_at(network: Network, ipv4: str) -> Address:
    """The address whose IPv4 part this is. Raises Conflict where it is not the network's."""
    offset = int(ipaddress.IPv4Address(ipv4)) - int(ipaddress.IPv4Network(network.subnet4).network_address)
    if not 1 < offset < ipaddress.IPv4Network(network.subnet4).num_addresses - 1:
        raise Conflict(f"{ipv4} is no address of an instance on network {network.name} ({network.subnet4})")
    return address_of(network, offset)


def choose_offset(network: Network, taken: Collection[str], after: int) -> int:
    """The number of a free address, counting on from `after` so that an address rests before its next use.

    Raises Conflict when the subnet is full.
    """
    subnet = ipaddress.IPv4Network(network.subnet4)
    usable = subnet.num_addresses - 3  # without network, gateway and broadcast
    for step in range(usable):
        offset = 2 + (after - 1 + step) % usable
        if str(subnet[offset]) not in taken:
            return offset
    raise Conflict(
        f"network {network.name} has no free address: all {usable} of {subnet} are in use",
        hint="remove instances, or create a network with a larger subnet",
    )


def choose_subnets(
    config: Config, used: Used, subnet4: str | None, subnet6: str | None, *, fleet: bool = False
) -> tuple[str, str]:
    """Subnets for a new network: those given, checked, and the first free ones of the pools for those that are not.

    Raises Refused for subnets that cannot be, with every problem; Conflict for those that clash with `used`.
    """
    problems: list[Problem] = []
    given4 = _parse(subnet4, 4, problems)
    given6 = _parse(subnet6, 6, problems)
    if given4 and given6 and 32 - given4.prefixlen > 128 - given6.prefixlen:
        problems.append(
            Problem(
                f"subnet {given6} has fewer addresses than {given4}: an instance has the same number in both",
                f"use /{128 - (32 - given4.prefixlen)} or wider",
            )
        )
    if problems:
        raise Refused(problems)
    clashes = [clash for given in (given4, given6) if given for clash in _clashes(given, used)]
    if clashes:
        raise Conflict("; ".join(clashes), hint="choose another subnet, or none to have one chosen")
    return str(given4 or _free(config, 4, used, fleet=fleet)), str(given6 or _free(config, 6, used, fleet=fleet))


def _parse(subnet: str | None, version: int, problems: list[Problem]) -> IpNetwork | None:
    if subnet is None:
        return None
    example = "10.9.8.0/24" if version == 4 else "fd09:8::/64"
    try:
        network = ipaddress.ip_network(subnet)
    except ValueError as error:
        problems.append(Problem(f"subnet {subnet!r}: {error}", f"use a form such as {example}"))
        return None
    if network.version != version:
        problems.append(Problem(f"subnet {subnet!r} is not IPv{version}", f"use a form such as {example}"))
        return None
    widest, narrowest = WIDEST[version], NARROWEST[version]
    if not widest <= network.prefixlen <= narrowest:
        problems.append(Problem(f"subnet {subnet!r} is not between /{widest} and /{narrowest}", f"such as {example}"))
    if network.is_multicast or network.is_loopback or network.is_link_local or network.is_unspecified:
        problems.append(Problem(f"subnet {subnet!r} cannot be used: it has a meaning of its own", f"such as {example}"))
    return network


def _overlaps(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _clashes(subnet: IpNetwork, used: Used) -> list[str]:
    return [f"subnet {subnet} overlaps {other} ({who})" for other, who in used if _overlaps(subnet, other)]


def _free(config: Config, version: int, used: Used, *, fleet: bool) -> IpNetwork:
    setting = f"fleet_subnet_pool{version}" if fleet else f"subnet_pool{version}"
    pool: str = getattr(config, setting)
    try:
        whole = ipaddress.ip_network(pool)
        if whole.version != version or whole.prefixlen > NARROWEST[version]:
            raise ValueError(f"it is not an IPv{version} subnet of /{NARROWEST[version]} or wider")
        candidates = whole.subnets(new_prefix=max(POOL_PREFIX[version], whole.prefixlen))
    except ValueError as error:
        raise Refused(f"configuration: {setting} = {pool!r}: {error}") from error
    busy = [other for other, _ in used if _overlaps(whole, other)]
    for candidate in _bounded(candidates):
        if not any(_overlaps(candidate, other) for other in busy):
            return candidate
    raise Conflict(
        f"every subnet of {pool} overlaps a network or a route of this host",
        hint=f"give a subnet, or set {setting} in the configuration",
    )


def _bounded(candidates: Iterable[IpNetwork]) -> Iterator[IpNetwork]:
    for number, candidate in enumerate(candidates):
        if number >= 1 << 16:
            return
        yield candidate


def used_by(networks: Iterable[Network]) -> list[tuple[IpNetwork, str]]:
    """The subnets of these networks."""
    return [
        (ipaddress.ip_network(subnet), f"network {network.name}")
        for network in networks
        for subnet in (network.subnet4, network.subnet6)
    ]
