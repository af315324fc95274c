"""An instance sends as itself, or not at all."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.integration.frames import frames
from tests.integration.network_lab import Box, lab, private, set_bridge_filter


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@private
def test_nobody_can_pretend_to_be_somebody_else(tmp_path: Path, bridge_filter: str) -> None:
    with lab(tmp_path) as host:
        set_bridge_filter(bridge_filter)
        network = host.network()
        attacker, victim, watcher = (host.box(network) for _ in range(3))

        def raw(box: Box) -> socket.socket:
            def make() -> socket.socket:
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                made.bind(("eth0", 0))
                made.settimeout(0.5)
                return made

            return box.inside(make)

        true, false = frames(attacker.address, victim.address)
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
