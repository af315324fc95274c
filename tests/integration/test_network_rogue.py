"""What an instance sends costs the others little: connections that the host keeps track of, frames to everybody."""

from __future__ import annotations

import socket
from pathlib import Path

from bulkhead.network.rules import TO_ALL, TO_ALL_BURST
from tests.integration.frames import arp_reply, frame
from tests.integration.network_lab import Box, lab, private, setting

CONNECTIONS = 40
FRAMES = 5000
"""Sent within seconds: far more than a burst and what is allowed in the meantime."""


@private
def test_connections_of_one_leave_room_for_those_of_others(tmp_path: Path) -> None:
    """Those to the host and those through it count together; what is over is dropped, not what others ask."""
    with lab(tmp_path, connections=CONNECTIONS) as host:
        network = host.network()
        rogue, neighbour = host.box(network), host.box(network)
        gateway, outside = rogue.address.gateway4, host.outside.outside4
        before = int(setting("netfilter/nf_conntrack_count"))
        for number in range(4 * CONNECTIONS):
            send(rogue, gateway if number % 2 else outside, 20_000 + number)
        made = int(setting("netfilter/nf_conntrack_count")) - before
        assert 0 < made <= CONNECTIONS
        for number in range(CONNECTIONS // 2):
            send(neighbour, outside, 20_000 + number)
        assert int(setting("netfilter/nf_conntrack_count")) - before == made + CONNECTIONS // 2


@private
def test_frames_to_everybody_are_few(tmp_path: Path) -> None:
    """Honest ones too: a storm ends at the bridge's port. What is for one alone goes on."""
    with lab(tmp_path) as host:
        network = host.network()
        rogue, watcher = host.box(network), host.box(network)
        mine = rogue.address
        storm = frame(mine.mac, 0x806, arp_reply(mine.mac, mine.ipv4))
        seen = 0
        with raw(rogue) as sender, raw(watcher) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
            for _ in range(FRAMES):
                sender.send(storm)
            watcher.serve()
            assert rogue.ask(watcher.address.ipv4) == mine.ipv4
            try:
                while True:
                    seen += receiver.recv(2000) == storm
            except TimeoutError:
                pass
        assert TO_ALL_BURST <= seen < FRAMES // 2, f"at most {TO_ALL_BURST} at once and {TO_ALL} in a second"


def send(box: Box, host: str, port: int) -> None:
    """A datagram from a port of its own, which is a connection of its own."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(b"?", (host, port))

    box.inside(work)


def raw(box: Box) -> socket.socket:
    """A socket for whole frames."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind(("eth0", 0))
        made.settimeout(0.5)
        return made

    return box.inside(make)
