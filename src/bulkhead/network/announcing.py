"""What tells everybody on a network where an address is now: frames as its instance would send them. Pure."""

from __future__ import annotations

import ipaddress
import struct

from bulkhead.host.links import mac_bytes
from bulkhead.model import Address

_EVERYBODY = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1")
_ARP, _IPV6 = 0x0806, 0x86DD
_ICMPV6, _ADVERTISEMENT, _OVERRIDE, _TARGET_LINK = 58, 136, 0x20000000, 2


def announcement(address: Address) -> tuple[bytes, bytes]:
    """A gratuitous ARP request and an unsolicited neighbour advertisement."""
    return gratuitous_arp(address.mac, address.ipv4), unsolicited_advertisement(address.mac, address.ipv6)


def gratuitous_arp(mac: str, ipv4: str) -> bytes:
    """Asks who has the address that the sender itself has (RFC 5227: an announcement)."""
    own, ip = mac_bytes(mac), ipaddress.IPv4Address(ipv4).packed
    return _EVERYBODY + own + struct.pack(">HHHBBH", _ARP, 1, 0x0800, 6, 4, 1) + own + ip + bytes(6) + ip


def unsolicited_advertisement(mac: str, ipv6: str) -> bytes:
    """Tells all nodes, unasked, which link address an IPv6 address has (RFC 4861, 7.2.6)."""
    own, ip = mac_bytes(mac), ipaddress.IPv6Address(ipv6).packed
    option = bytes([_TARGET_LINK, 1]) + own
    body = struct.pack(">I", _OVERRIDE) + ip + option
    pseudo = ip + _ALL_NODES.packed + struct.pack(">IxxxB", 4 + len(body), _ICMPV6)
    message = struct.pack(">BBH", _ADVERTISEMENT, 0, 0) + body
    message = struct.pack(">BBH", _ADVERTISEMENT, 0, _checksum(pseudo + message)) + body
    head = struct.pack(">IHBB", 6 << 28, len(message), _ICMPV6, 255) + ip + _ALL_NODES.packed
    group = b"\x33\x33" + _ALL_NODES.packed[-4:]
    return group + own + struct.pack(">H", _IPV6) + head + message


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
