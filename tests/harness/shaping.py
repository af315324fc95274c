"""A link that is slow: this process carries its frames from one end to the other, late, and at a rate.

For kernels without netem. What a socket reads of one link it writes to the other, with what the kernel says of sums and
segments that the hardware is still to make (PACKET_VNET_HDR), so that large segments stay whole.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.harness.namespaces import in_network

_ALL, _OUTGOING = 0x0003, 4
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_HEADER = 10
"""Bytes of virtio_net_hdr, before each frame."""
_MOST = 1 << 17
WAITING = 1 << 20
"""Bytes that may wait on their way in one direction; what comes on top is lost, as in a router."""


@dataclass(slots=True)
class Link:
    """Both directions between two links in the network namespace of the process `pid`, as long as the block lasts."""

    pid: int
    one: str
    other: str
    delay: float = 0.0
    """Seconds in each direction."""
    rate: float | None = None
    """Bytes per second in each direction."""
    carried: int = 0
    """Bytes so far, both directions."""
    dropped: int = 0
    """Frames."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _sockets: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        path = f"/proc/{self.pid}/ns/net"
        self._sockets = [in_network(path, lambda name=name: _open(name)) for name in (self.one, self.other)]  # type: ignore[misc]
        for source, target in (self._sockets, self._sockets[::-1]):
            lane = _Lane(self, source, target)
            self._threads += [threading.Thread(target=work) for work in (lane.take, lane.give)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Carry nothing any more. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    @property
    def ended(self) -> bool:
        """Whether it carries no more."""
        return self._stop.is_set()


@dataclass(slots=True)
class _Lane:
    """One direction."""

    link: Link
    source: socket.socket
    target: socket.socket
    _queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    _waiting: int = 0
    _free: float = 0.0
    """When the last byte that waits has gone onto the wire."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self) -> None:
        """What comes, with the time at which it is to be there."""
        while not self.link.ended:
            try:
                frame, address = self.source.recvfrom(_MOST)
            except TimeoutError:
                continue
            except OSError:  # the link went away
                return
            if address[2] == _OUTGOING:
                continue
            with self._changed:
                if self._waiting + len(frame) > WAITING:
                    self.link.dropped += 1
                    continue
                self._free = max(self._free, time.monotonic())
                if self.link.rate:
                    self._free += (len(frame) - _HEADER) / self.link.rate
                self._queue.append((self._free + self.link.delay, frame))
                self._waiting += len(frame)
                self._changed.notify()

    def give(self) -> None:
        """Let each go on in its time."""
        while not self.link.ended:
            with self._changed:
                if not self._queue:
                    self._changed.wait(0.1)
                    continue
                due, frame = self._queue[0]
                if (left := due - time.monotonic()) > 0:
                    self._changed.wait(min(left, 0.1))
                    continue
                self._queue.popleft()
                self._waiting -= len(frame)
            with suppress(OSError):  # it is down, or too large: lost
                self.target.send(frame)
                self.link.carried += len(frame) - _HEADER


def _open(name: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.bind((name, _ALL))
    made.settimeout(0.2)
    return made
