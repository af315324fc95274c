"""Names of instances, and of everything else."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from pathlib import Path

from bulkhead.host import syscalls
from tests.integration.network_lab import Box, connector, eventually, lab, private


@private
def test_names(tmp_path: Path) -> None:
    with lab(tmp_path) as host:
        network, second = host.network(), host.network("second")
        box, other, elsewhere = host.box(network), host.box(network), host.box(second)
        host.networks.set_names(network, [("web", box.address), ("my_db.1", other.address)])
        host.networks.set_names(second, [("web", elsewhere.address)])

        def look_up(client: Box, name: str, family: socket.AddressFamily) -> list[str]:
            return dns(client, client.address.gateway4, name, family)

        assert eventually(lambda: look_up(other, "web", socket.AF_INET) == [box.address.ipv4])
        for name in ("web", "web.bulkhead", "WEB"):
            assert look_up(other, name, socket.AF_INET) == [box.address.ipv4]
            assert look_up(other, name, socket.AF_INET6) == [box.address.ipv6]
        assert dns(other, other.address.gateway6, "web", socket.AF_INET) == [box.address.ipv4]
        assert look_up(box, "my_db.1.bulkhead", socket.AF_INET) == [other.address.ipv4]
        assert eventually(lambda: look_up(elsewhere, "web", socket.AF_INET) == [elsewhere.address.ipv4])
        assert look_up(elsewhere, "my_db.1.bulkhead", socket.AF_INET) == []
        host.networks.set_names(network, [("db", other.address)])
        assert eventually(lambda: look_up(box, "db", socket.AF_INET) == [other.address.ipv4])
        assert look_up(box, "web", socket.AF_INET) == []
        # The server is not root, and is started again when it has been killed.
        [pid] = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and serves(each, network.id)]
        assert Path(f"/proc/{pid}").stat().st_uid != 0
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
        host.networks.set_names(network, [("new", box.address)])
        assert eventually(lambda: look_up(box, "new", socket.AF_INET) == [box.address.ipv4])


def serves(process: Path, network_id: str) -> bool:
    """Whether a process is the name server of a network."""
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return words.startswith((b"dnsmasq", b"/usr/sbin/dnsmasq")) and network_id.encode() in words


def dns(client: Box, server: str, name: str, family: socket.AddressFamily) -> list[str]:
    """Ask a name server for addresses."""
    kind = 1 if family == socket.AF_INET else 28
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    with connector(client.inside, server, 53, "udp")() as asked:
        asked.send(question)
        answer = asked.recv(4096)
    found, at = [], len(question)
    for _ in range(struct.unpack_from(">H", answer, 6)[0]):
        got, length = struct.unpack_from(">H6xH", answer, at + 2)
        if got == kind:
            found.append(socket.inet_ntop(family, answer[at + 12 : at + 12 + length]))
        at += 12 + length
    return found


@private
def test_other_names_are_asked_of_the_hosts_servers(tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\n")
    tmp_path.chmod(0o755)
    syscalls.mount(resolv, Path("/etc/resolv.conf").resolve(), flags=syscalls.MS_BIND)
    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    upstream.bind(("127.0.0.1", 53))
    asked = []

    def answer() -> None:
        while True:
            question, peer = upstream.recvfrom(4096)
            asked.append(question)
            end = question.index(b"\0", 12) + 5
            record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("203.0.113.9")
            upstream.sendto(
                question[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1, 0, 0) + question[12:end] + record, peer
            )

    threading.Thread(target=answer, daemon=True).start()
    with lab(tmp_path) as host:
        box = host.box(host.network())
        assert dns(box, box.address.gateway4, "example.com", socket.AF_INET) == ["203.0.113.9"]
        asked.clear()
        assert dns(box, box.address.gateway4, "nobody", socket.AF_INET) == []
        assert dns(box, box.address.gateway4, "nobody.bulkhead", socket.AF_INET) == []
        assert asked == []
