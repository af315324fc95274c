"""An instance sends as itself, or not at all."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from bulkhead.model import Address
from tests.integration.network_lab import Box, lab, private, set_bridge_filter


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


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@private
def test_nobody_can_pretend_to_be_somebody_else(tmp_path: Path, bridge_filter: str) -> None:
    with lab(tmp_path) as host:
        set_bridge_filter(bridge_filter)
        network = host.network()
        attacker, victim, watcher = (host.box(network) for _ in range(3))
        mine: Address = attacker.address

        def raw(box: Box) -> socket.socket:
            def make() -> socket.socket:
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                made.bind(("eth0", 0))
                made.settimeout(0.5)
                return made

            return box.inside(make)

        true = [
            frame(mine.mac, 0x800, ipv4_udp(mine.ipv4, "255.255.255.255", 9)),
            frame(mine.mac, 0x806, arp_reply(mine.mac, mine.ipv4)),
            frame(mine.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, mine.ipv6)),
        ]
        false = [
            frame(mine.mac, 0x800, ipv4_udp(victim.address.ipv4, "255.255.255.255", 9)),
            frame(mine.mac, 0x800, ipv4_udp(mine.gateway4, "255.255.255.255", 9)),
            frame(victim.address.mac, 0x800, ipv4_udp(mine.ipv4, "255.255.255.255", 9)),
            frame(victim.address.mac, 0x800, ipv4_udp(victim.address.ipv4, "255.255.255.255", 9)),
            frame(mine.mac, 0x806, arp_reply(mine.mac, victim.address.ipv4)),
            frame(mine.mac, 0x806, arp_reply(mine.mac, mine.gateway4)),
            frame(mine.mac, 0x806, arp_reply(victim.address.mac, mine.ipv4)),
            frame(victim.address.mac, 0x806, arp_reply(mine.mac, mine.ipv4)),
            frame(mine.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, victim.address.ipv6)),
            frame(mine.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, mine.gateway6)),
            frame(mine.mac, 0x86DD, advertisement("fe80::1", mine.mac, mine.ipv6)),
            frame(victim.address.mac, 0x86DD, advertisement(mine.ipv6, mine.mac, mine.ipv6)),
            frame(mine.mac, 0x8100, struct.pack(">HH", 1, 0x800) + ipv4_udp(mine.ipv4, "255.255.255.255", 9)),
            frame(mine.mac, 0x88CC, b"anything else"),
        ]
        with raw(attacker) as sender, raw(watcher) as receiver:
            for each in [*false, *true]:
                sender.send(each)
            seen = []
            try:
                while True:
                    seen.append(receiver.recv(2000))
            except TimeoutError:
                pass
        assert [each for each in seen if each in [*true, *false]] == true
