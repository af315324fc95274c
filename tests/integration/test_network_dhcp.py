"""Systems learn their address by DHCP: each its own, from the host alone, and nobody else is told one."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from bulkhead.model import Address
from tests.integration.frames import frame
from tests.integration.network_lab import Box, Lab, eventually, lab, private, set_bridge_filter

NOBODY, EVERYBODY = "0.0.0.0", "255.255.255.255"
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
MAGIC = b"\x63\x82\x53\x63"
MESSAGE, ASKED, NAME, ROUTER, SERVERS, MASK = 53, 50, 12, 3, 6, 1


def udp(source: str, target: str, ports: tuple[int, int], data: bytes) -> bytes:
    """A datagram in an IPv4 packet."""
    datagram = struct.pack(">HHHH", *ports, 8 + len(data), 0) + data
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:] + datagram


def message(operation: int, mac: str, options: dict[int, bytes], *, offered: str = NOBODY) -> bytes:
    """A message of DHCP (RFC 2131)."""
    packed = bytes.fromhex(mac.replace(":", ""))
    start = struct.pack(">BBBBIHH", operation, 1, 6, 0, 0x1234, 0, 0)
    addresses = socket.inet_aton(NOBODY) + socket.inet_aton(offered) + bytes(8)
    listed = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return start + addresses + packed.ljust(16, b"\0") + bytes(192) + MAGIC + listed + b"\xff"


def ask(mac: str, kind: int, **more: bytes) -> bytes:
    """A client's packet, whole: from nobody to everybody."""
    options = {MESSAGE: bytes([kind]), **({ASKED: more["asked"]} if more else {})}
    return frame(mac, 0x800, udp(NOBODY, EVERYBODY, (68, 67), message(1, mac, options)))


def wire(box: Box) -> socket.socket:
    """Everything that a box sends and gets, to be had raw."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind(("eth0", 0))
        made.settimeout(1.5)
        return made

    return box.inside(make)


def answer(receiver: socket.socket) -> tuple[str, dict[int, bytes]] | None:
    """The next word of a DHCP server: the address and the options; None where none comes."""
    try:
        while True:
            packet = receiver.recv(4096)
            if packet[12:14] == b"\x08\x00" and packet[23] == 17 and packet[34:38] == struct.pack(">HH", 67, 68):
                break
    except TimeoutError:
        return None
    said = packet[42:]
    options, at = {}, 240
    while said[at] != 255:
        if said[at] == 0:
            at += 1
            continue
        options[said[at]] = said[at + 2 : at + 2 + said[at + 1]]
        at += 2 + said[at + 1]
    return socket.inet_ntoa(said[16:20]), options


def told(host: Lab, box: Box, name: str) -> None:
    """Have the name server know of a system."""
    host.networks.set_names(host.made[0], [(name, box.address)], [(box.address, name)])


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@private
def test_a_system_is_told_its_own_address(tmp_path: Path, bridge_filter: str) -> None:
    with lab(tmp_path) as host:
        set_bridge_filter(bridge_filter)
        network = host.network()
        system, other, watcher = host.box(network, asks=True), host.box(network), host.box(network)
        mine: Address = system.address
        told(host, system, "guest")
        with wire(system) as line, wire(other) as stranger, wire(watcher) as watching:

            def offered() -> tuple[str, dict[int, bytes]] | None:
                line.send(ask(mine.mac, DISCOVER))
                return answer(line)

            assert eventually(lambda: offered() is not None)
            line.send(ask(mine.mac, REQUEST, asked=socket.inet_aton(mine.ipv4)))
            found = answer(line)
            while found and found[1][MESSAGE] == bytes([OFFER]):
                found = answer(line)
            assert found is not None
            address, options = found
            assert (address, options[MESSAGE]) == (mine.ipv4, bytes([ACK]))
            gateway = socket.inet_aton(mine.gateway4)
            assert (options[ROUTER], options[SERVERS], options[NAME]) == (gateway, gateway, b"guest")
            assert options[MASK] == b"\xff\xff\xff\x00"
            # Who is no system, or says that he is another, is not heard.
            stranger.send(ask(other.address.mac, DISCOVER))
            stranger.send(ask(mine.mac, DISCOVER))
            assert answer(stranger) is None
            line.send(ask(other.address.mac, DISCOVER))
            assert answer(line) is None
            # What a system asks, nobody but the host hears.
            watching.settimeout(0.3)
            seen = []
            try:
                while True:
                    seen.append(watching.recv(4096))
            except TimeoutError:
                pass
        sender = bytes.fromhex(mine.mac.replace(":", ""))
        assert not [packet for packet in seen if packet[6:12] == sender and packet[12:14] == b"\x08\x00"]


@private
def test_nobody_else_tells_addresses(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        rogue, victim = host.box(network, asks=True), host.box(network, asks=True)
        mine, its = rogue.address, victim.address
        options = {MESSAGE: bytes([OFFER]), ROUTER: socket.inet_aton(mine.ipv4)}
        offer = message(2, its.mac, options, offered="10.0.0.66")
        with wire(rogue) as sender, wire(victim) as receiver:
            for source in (mine.ipv4, mine.gateway4, NOBODY):
                for target in (EVERYBODY, its.ipv4):
                    for port in (67, 5555):
                        sender.send(frame(mine.mac, 0x800, udp(source, target, (port, 68), offer)))
            sender.send(frame(mine.mac, 0x800, udp(NOBODY, EVERYBODY, (68, 5555), b"x")))
            sender.send(frame(mine.mac, 0x800, udp(NOBODY, its.ipv4, (68, 67), b"x")))
            sender.send(frame(mine.mac, 0x800, udp(mine.ipv4, EVERYBODY, (1, 9), b"mark")))
            seen = []
            while not (seen and seen[-1].endswith(b"mark")):
                seen.append(receiver.recv(4096))
        source = bytes.fromhex(mine.mac.replace(":", ""))
        assert [packet[42:] for packet in seen if packet[6:12] == source and packet[12:14] == b"\x08\x00"] == [b"mark"]


@private
def test_a_link_that_is_given_back_asks_no_more_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network = host.network()
        system, other = host.box(network, asks=True), host.box(network, asks=True)
        told(host, system, "guest")
        running = {box.id: (box.address, (), None) for box in (system, other)}
        repairs = host.networks.recover([network], running, {system.id, other.id})
        assert not [repair for repair in repairs if "filter" in repair]
        with wire(system) as line:
            line.send(ask(system.address.mac, DISCOVER))
            found = answer(line)
            assert found and found[0] == system.address.ipv4
        host.networks.disconnect(other.link)
        with wire(system) as line:
            line.send(ask(system.address.mac, DISCOVER))
            assert answer(line)
