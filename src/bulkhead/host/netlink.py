"""Netlink: messages as bytes, sent many at a time, answered in words.

The messages that Bulkhead needs are few, and making a link is on the path of every start, so they are packed by hand:
a namespace with its link, addresses and routes takes about 1.1 ms of CPU this way and 5 ms through pyroute2, whose
import alone costs 0.4 s and 27 MB. What the messages for links, addresses, routes and queues look like is in links.py.

A socket belongs to the network namespace of the thread that opened it, whatever that thread does later.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from bulkhead.errors import HostError

ROUTE = 0
NETFILTER = 12

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000

_ERROR, _DONE = 2, 3
_CAPPED, _ACK_TLVS = 0x100, 0x200
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_HEADER = struct.Struct("=IHHII")
_AT_ONCE = 64
"""Messages in one write: their answers must fit the socket's buffer."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `what` is it in words, for errors; errnos in `fine` are as good as success."""

    kind: int
    flags: int
    body: bytes
    what: str
    fine: tuple[int, ...] = ()


class NetlinkError(HostError):
    """The kernel refused a request."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(what, hint="" if errno != 1 else "Bulkhead's daemon must run as root")
        self.errno = errno


def attribute(kind: int, data: bytes) -> bytes:
    """A netlink attribute with its padding."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a string."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An attribute that holds a native 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *inside: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(inside))


def attributes(data: bytes) -> dict[int, bytes]:
    """What a run of attributes holds, by kind; of equal kinds the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


class Netlink:
    """A socket to the kernel. May be used by many threads; a call is finished when the kernel has carried it out."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        if protocol == ROUTE:
            self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 30, 0))
        self._socket.bind((0, 0))
        self._sequence = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def send(self, *messages: Message) -> None:
        """Carry out all of them, in order; one that fails does not stop the next.

        Raises NetlinkError that names everything that failed, with the errno of the first failure.
        """
        with self._lock:
            failures: list[tuple[int, str]] = []
            for start in range(0, len(messages), _AT_ONCE):
                failures += self._send(messages[start : start + _AT_ONCE])
        if failures:
            raise NetlinkError("; ".join(said for _, said in failures), failures[0][0])

    def _send(self, messages: Sequence[Message]) -> list[tuple[int, str]]:
        first = self._sequence + 1
        self._sequence += len(messages)
        self._socket.send(
            b"".join(
                _HEADER.pack(16 + len(message.body), message.kind, message.flags | REQUEST | ACK, first + index, 0)
                + message.body
                for index, message in enumerate(messages)
            )
        )
        failures = []
        waiting = set(range(first, first + len(messages)))
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind != _ERROR or sequence not in waiting:
                    continue
                waiting.discard(sequence)
                message = messages[sequence - first]
                errno, said = _failure(flags, body)
                if errno and errno not in message.fine:
                    failures.append((errno, f"cannot {message.what}: {said}"))
        return failures

    def batch(self, begin: bytes, messages: Sequence[Message], end: bytes) -> None:
        """Carry out all or none, as nfnetlink does between `begin` and `end` (whole messages, sequence 0).

        Raises NetlinkError with the first failure.
        """
        with self._lock:
            first = self._sequence + 1
            self._sequence += len(messages)
            packed = [
                _HEADER.pack(16 + len(message.body), message.kind, message.flags | REQUEST | ACK, first + index, 0)
                + message.body
                for index, message in enumerate(messages)
            ]
            self._socket.send(b"".join((begin, *packed, end)))
            waiting = set(range(first, first + len(messages)))
            failure: NetlinkError | None = None
            while waiting:
                for kind, flags, sequence, body in self._receive():
                    if kind != _ERROR:
                        continue
                    errno, said = _failure(flags, body)
                    if errno and failure is None:
                        what = messages[sequence - first].what if sequence in waiting else "change the packet filter"
                        failure = NetlinkError(f"cannot {what}: {said}", errno)
                    if sequence == 0:  # the whole batch: nothing else is answered
                        waiting.clear()
                    waiting.discard(sequence)
        if failure is not None:
            raise failure

    def dump(self, kind: int, body: bytes, what: str, *, flags: int = DUMP) -> list[tuple[int, bytes]]:
        """Ask for objects; (kind, body) of every answer. NetlinkError when the kernel refuses."""
        with self._lock:
            self._sequence += 1
            mine = self._sequence
            self._socket.send(_HEADER.pack(16 + len(body), kind, flags | REQUEST, mine, 0) + body)
            found: list[tuple[int, bytes]] = []
            while True:
                for answer, answer_flags, sequence, data in self._receive():
                    if sequence != mine:
                        continue
                    if answer == _ERROR:
                        errno, said = _failure(answer_flags, data)
                        raise NetlinkError(f"cannot {what}: {said}", errno)
                    if answer == _DONE:
                        return found
                    found.append((answer, data))
                    if flags & DUMP != DUMP:
                        return found

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        at = 0
        while at + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            yield kind, flags, sequence, data[at + 16 : at + length]
            at += (length + 3) & ~3


def _failure(flags: int, body: bytes) -> tuple[int, str]:
    """Errno (0: success) of an answer and the kernel's own words where it has some."""
    errno = -int(struct.unpack_from("=i", body)[0])
    if not errno:
        return 0, ""
    said = os.strerror(errno)
    if flags & _ACK_TLVS:
        skipped = 20 if flags & _CAPPED else 4 + int(struct.unpack_from("=I", body, 4)[0])
        words = attributes(body[(skipped + 3) & ~3 :]).get(1, b"").rstrip(b"\0").decode(errors="replace")
        said = f"{said} ({words})" if words else said
    return errno, said
