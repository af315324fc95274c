"""Frames that an instance may send, and those with which it would be somebody else."""

from __future__ import annotations

import socket
import struct

from bulkhead.model import Address


def frame(source_mac: str, kind: int, payload: bytes) -> bytes:
    """An Ethernet frame to everybody."""
    return b"\xff" * 6 + bytes.fromhex(source_mac.replace(":", "")) + struct.pack(">H", kind) + payload


def ipv4_udp(source: str, target: str, port: int) -> bytes:
    """A UDP datagram in an IPv4 packet, checksums right and none."""
    datagram = struct.pack(">HHHH", 5555, port, 13, 0) + b"spoof"
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(datagram),
        1,
        0,
        64,
        17,
        0,
        socket.inet_aton(source),
        socket.inet_aton(target),
    )
    total = sum(struct.unpack(">10H", header))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack(">H", total) + header[12:] + datagram


def arp_reply(mac: str, ip: str) -> bytes:
    """A claim, made to everybody, that `ip` is at `mac`."""
    packed = bytes.fromhex(mac.replace(":", ""))
    return struct.pack(">HHBBH", 1, 0x800, 6, 4, 2) + packed + socket.inet_aton(ip) + b"\xff" * 6 + socket.inet_aton(ip)


def advertisement(source: str, mac: str, target: str) -> bytes:
    """A claim, made to all nodes, that the IPv6 address `target` is at `mac`."""
    body = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, target)
    body += b"\x02\x01" + bytes.fromhex(mac.replace(":", ""))
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "ff02::1")
    pseudo = addresses + struct.pack(">II", len(body), 58) + body
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + addresses + body


def frames(mine: Address, victim: Address) -> tuple[list[bytes], list[bytes]]:
    """What the instance at `mine` may send, and what it may not, all of it to everybody."""
    true = [
        frame(mine.mac, 0x800, ipv4_udp(mine.ipv4, "255.255.255.255", 9)),
        frame(mine.mac, 0x806, arp_reply(mine.mac, mine.ipv4)),
        frame(mine.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, mine.ipv6)),
    ]
    false = [
        frame(mine.mac, 0x800, ipv4_udp(victim.ipv4, "255.255.255.255", 9)),
        frame(mine.mac, 0x800, ipv4_udp(mine.gateway4, "255.255.255.255", 9)),
        frame(victim.mac, 0x800, ipv4_udp(mine.ipv4, "255.255.255.255", 9)),
        frame(victim.mac, 0x800, ipv4_udp(victim.ipv4, "255.255.255.255", 9)),
        frame(mine.mac, 0x806, arp_reply(mine.mac, victim.ipv4)),
        frame(mine.mac, 0x806, arp_reply(mine.mac, mine.gateway4)),
        frame(mine.mac, 0x806, arp_reply(victim.mac, mine.ipv4)),
        frame(victim.mac, 0x806, arp_reply(mine.mac, mine.ipv4)),
        frame(mine.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, victim.ipv6)),
        frame(mine.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, mine.gateway6)),
        frame(mine.mac, 0x86DD, advertisement("fe80::1", mine.mac, mine.ipv6)),
        frame(victim.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, mine.ipv6)),
        frame(mine.mac, 0x8100, struct.pack(">HH", 1, 0x800) + ipv4_udp(mine.ipv4, "255.255.255.255", 9)),
        frame(mine.mac, 0x88CC, b"anything else"),
    ]
    return true, false
