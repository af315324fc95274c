"""A small machine with a guest: the machine is a process that sleeps, its guest's agent a real one, or the test."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agent.box import Box
from tests.agent.wire import (
    ATTACH,
    CREDIT,
    DATA,
    ERROR,
    EXIT,
    GUEST,
    GUEST_START,
    INFO,
    OK,
    START,
    TIMEOUT,
    Agent,
    Connection,
    Frame,
    Start,
)

SOCKET = "vm/agent.sock"
START_GUEST = 8


@dataclass
class GuestAgent(Agent):
    """An agent that listens where a machine's would."""

    where: Path = Path()

    @property
    def socket(self) -> Path:
        return self.where


@dataclass
class Machine:
    """The host's side: a box whose workload stands for the VMM. `pid`: of that workload."""

    host: Box
    pid: int = 0
    connections: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.host.bundle / "vm").mkdir()

    @property
    def socket(self) -> Path:
        return self.host.bundle / SOCKET

    def start(self, script: str = "exec sleep 1000", **more: Any) -> Connection:
        connection = self.host.launch()
        self.pid = connection.start(self.host.request("sh", "-c", script, flags=START_GUEST, **more))
        return connection

    def kill(self) -> None:
        os.kill(self.pid, 9)

    def connect(self) -> Connection:
        return self.host.agent.connect()


def error_payload(*, phase: int = 0, code: int = 0, index: int = 0, errno: int = 0, text: bytes = b"") -> bytes:
    """What ERROR carries."""
    return struct.pack("<BBHII", phase, 0, code, index, errno) + text


def exit_payload(code: int, signal: int = 0) -> bytes:
    """What EXIT carries."""
    return struct.pack("<II", code, signal)


class Guest:
    """The test as the guest's agent: frames that a machine's supervisor sends, and whatever one likes to answer."""

    def __init__(self, machine: Machine) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(machine.socket))
        self.listener.listen()
        self.listener.settimeout(TIMEOUT)
        self.socket = socket.socket()
        self.received = b""

    def accept(self) -> None:
        self.socket.close()
        self.socket, _ = self.listener.accept()
        self.socket.settimeout(TIMEOUT)

    def close(self) -> None:
        self.listener.close()
        self.socket.close()

    def next(self) -> Frame:
        """The next frame. EOFError when the other side has closed."""
        while len(self.received) < 12 or len(self.received) < 12 + struct.unpack_from("<I", self.received)[0]:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self.received += data
        length, version, kind, channel, zero, stream = struct.unpack_from("<IBBBBI", self.received)
        assert version == 1 and zero == 0
        payload, self.received = self.received[12 : 12 + length], self.received[12 + length :]
        return Frame(kind, stream, payload, channel)

    def expect(self, kind: int) -> Frame:
        frame = self.next()
        assert frame.type == kind, frame
        return frame

    def send(self, kind: int, stream: int, payload: bytes = b"", channel: int = 0) -> None:
        self.socket.sendall(Frame(kind, stream, payload, channel).encode())

    def ok(self, stream: int, payload: bytes = b"") -> None:
        self.send(OK, stream, payload)

    def error(self, stream: int, **what: object) -> None:
        self.send(ERROR, stream, error_payload(**what))  # type: ignore[arg-type]

    def data(self, stream: int, data: bytes, channel: int = 1) -> None:
        self.send(DATA, stream, data, channel)

    def credit(self, stream: int, credit: int) -> None:
        self.send(CREDIT, stream, struct.pack("<I", credit))

    def exit(self, stream: int, code: int, signal: int = 0) -> None:
        self.send(EXIT, stream, exit_payload(code, signal))

    def link(self, connection: Connection) -> None:
        """GUEST, to its OK."""
        stream = connection.open(GUEST, SOCKET.encode())
        self.accept()
        self.ok(self.expect(INFO).stream, b"{}")
        assert connection.answer(stream) == b"{}"

    def begin(self, connection: Connection) -> int:
        """GUEST_START, to its OK; the stream of the workload's output."""
        stream = connection.open(GUEST_START, Start(inside=[]).encode())
        output = self.expect(ATTACH)
        assert output.payload == struct.pack("<I", 2)
        self.ok(output.stream)
        self.ok(self.expect(START).stream, struct.pack("<I", 42))
        assert connection.answer(stream) == struct.pack("<I", 42)
        return output.stream
