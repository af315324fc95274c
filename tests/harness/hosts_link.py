"""What an attacker on the link between hosts can do: look at what passes, and send what a host would."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from tests.harness.namespaces import Sandbox, in_network

_ALL = 0x0003


class Tap:
    """Everything that passes a link of a sandbox while the block runs."""

    def __init__(self, sandbox: Sandbox, link: str) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
            made.bind((link, 0))
            made.settimeout(0.1)
            return made

        self._socket = in_network(f"/proc/{sandbox.pid}/ns/net", make)
        self.frames: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                self.frames.append(self._socket.recv(1 << 17))
            except TimeoutError:
                continue

    def holds(self, text: bytes) -> bool:
        """Whether a frame so far has had this in it."""
        return any(text in each for each in list(self.frames))

    def wait_for(self, text: bytes, seconds: float = 60.0) -> None:
        """Until one has."""
        deadline = time.monotonic() + seconds
        while not self.holds(text):
            assert time.monotonic() < deadline, f"{text!r} does not pass"
            time.sleep(0.05)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


def send_frame(sandbox: Sandbox, link: str, frame: bytes) -> None:
    """Send a frame out of a link of a sandbox, past all of its rules."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind((link, 0))
            made.send(frame)

    in_network(f"/proc/{sandbox.pid}/ns/net", send)


def mac_of(sandbox: Sandbox, link: str) -> str:
    """The MAC address of a link."""
    return sandbox.run("cat", f"/sys/class/net/{link}/address").stdout.strip()


def ethernet(source: str, target: str, payload: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet."""
    macs = bytes.fromhex((target + source).replace(":", ""))
    return macs + struct.pack(">H", 0x0800) + payload


def udp(source: str, target: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram, which has no checksum."""
    datagram = struct.pack(">HHHH", 40000, port, 8 + len(data), 0) + data
    ips = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + ips
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack(">H", total) + head[12:] + datagram


def vxlan(number: int, frame: bytes) -> bytes:
    """The payload of a VXLAN datagram."""
    return struct.pack(">II", 0x08000000, number << 8) + frame
