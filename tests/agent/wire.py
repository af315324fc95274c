"""A small client of the agent's protocol, independent of the engine's own: it can also send what breaks the rules."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead.agent.operations import Operation, encode

START, EXEC, ATTACH, WATCH, SIGNAL, RESIZE, RUN, FILES, INFO, QUIT, GUEST, GUEST_START, GUEST_RUN, REHEARSE = range(
    1, 15
)
OK, ERROR, PARK, RESUME = 16, 17, 18, 19
DATA, EOF, CREDIT, EXIT, CLOSE, REPORTS = 32, 33, 34, 35, 36, 37
WORKLOAD = 0xFFFFFFFF
NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000,
    0x2000000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
TIMEOUT = 20.0


@dataclass(frozen=True)
class Frame:
    type: int
    stream: int
    payload: bytes = b""
    channel: int = 0

    def encode(self, *, version: int = 1, zero: int = 0) -> bytes:
        head = struct.pack("<IBBBBI", len(self.payload), version, self.type, self.channel, zero, self.stream)
        return head + self.payload


@dataclass(unsafe_hash=True)  # not frozen: an exception is given its traceback
class Failure(Exception):
    """An ERROR."""

    phase: int
    code: int
    index: int
    errno: int
    text: str


def block(data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return struct.pack("<I", len(raw)) + raw


def blocks(items: Sequence[str]) -> bytes:
    return struct.pack("<I", len(items)) + b"".join(map(block, items))


@dataclass
class Start:
    inside: Sequence[Operation]
    stage: Sequence[Operation] = ()
    prepare: Sequence[Operation] = ()
    finish: Sequence[Operation] = ()
    flags: int = 0
    clone: int = 0
    unshare: int = 0
    base: int = 0
    count: int = 0
    rows: int = 0
    columns: int = 0
    log_size: int = 0
    log_files: int = 1
    netns: str = ""
    join: Sequence[str] = ()
    kill: str = ""

    def encode(self) -> bytes:
        head = struct.pack(
            "<IIIIIHHII",
            self.flags,
            self.clone,
            self.unshare,
            self.base,
            self.count,
            self.rows,
            self.columns,
            self.log_size,
            self.log_files,
        )
        lists = (self.prepare, self.stage, self.inside, self.finish)
        return head + block(self.netns) + blocks(self.join) + block(self.kill) + b"".join(map(encode, lists))


def exec_payload(
    inside: Sequence[Operation],
    *,
    flags: int = 0,
    setns: int = NEWNS,
    rows: int = 0,
    columns: int = 0,
    join: Sequence[str] = (),
) -> bytes:
    return struct.pack("<IIHH", flags, setns, rows, columns) + blocks(join) + encode(inside)


class Connection:
    """One connection. Credit is given back as data comes unless `credit` is off."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.received = b""
        self.waiting: list[Frame] = []
        self.last = 0
        self.credit = True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def send(self, kind: int, stream: int, payload: bytes = b"", channel: int = 0) -> None:
        self.socket.sendall(Frame(kind, stream, payload, channel).encode())

    def open(self, kind: int, payload: bytes = b"") -> int:
        self.last += 1
        self.send(kind, self.last, payload)
        return self.last

    def _receive(self) -> Frame:
        while len(self.received) < 12 or len(self.received) < 12 + struct.unpack_from("<I", self.received)[0]:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the agent closed the connection")
            self.received += data
        length, version, kind, channel, zero, stream = struct.unpack_from("<IBBBBI", self.received)
        assert version == 1 and zero == 0 and stream != 0
        payload = self.received[12 : 12 + length]
        self.received = self.received[12 + length :]
        if kind == DATA:
            assert 0 < length <= 65536
            if self.credit:
                self.send(CREDIT, stream, struct.pack("<I", length), channel)
        return Frame(kind, stream, payload, channel)

    def next(self, stream: int) -> Frame:
        """The next frame of a stream, CREDIT left out."""
        for frame in self.waiting:
            if frame.stream == stream:
                self.waiting.remove(frame)
                return frame
        while True:
            frame = self._receive()
            if frame.type == CREDIT:
                continue
            if frame.stream == stream:
                return frame
            self.waiting.append(frame)

    def answer(self, stream: int) -> bytes:
        frame = self.next(stream)
        if frame.type == ERROR:
            phase, _, code, index, number = struct.unpack_from("<BBHII", frame.payload)
            raise Failure(phase, code, index, number, frame.payload[12:].decode())
        assert frame.type == OK, frame
        return frame.payload

    def ask(self, kind: int, payload: bytes = b"") -> bytes:
        return self.answer(self.open(kind, payload))

    def start(self, start: Start) -> int:
        return int.from_bytes(self.ask(START, start.encode()), "little")

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask(INFO))
        return found

    def signal(self, number: int, *, everyone: bool = False) -> None:
        self.send(SIGNAL, WORKLOAD, struct.pack("<II", number, everyone))
        self.answer(WORKLOAD)

    def collect(self, stream: int) -> Result:
        """Everything up to EXIT."""
        output = {1: b"", 2: b""}
        while True:
            frame = self.next(stream)
            if frame.type == DATA:
                output[frame.channel] += frame.payload
            else:
                assert frame.type == EXIT, frame
                code, number = struct.unpack("<II", frame.payload)
                return Result(code, number, output[1], output[2])

    def attach(self, flags: int = 2) -> int:
        stream = self.open(ATTACH, struct.pack("<I", flags))
        assert self.answer(stream) == b""
        return stream

    def watch(self) -> int:
        stream = self.open(WATCH)
        assert self.answer(stream) == b""
        return stream

    def exec(self, payload: bytes, data: bytes | None = None) -> Result:
        """Run to the end; `data` goes to stdin, then EOF."""
        stream = self.open(EXEC, payload)
        if data is not None:
            self.send(DATA, stream, data)
            self.send(EOF, stream)
        self.answer(stream)
        return self.collect(stream)

    def quit(self) -> None:
        self.ask(QUIT)


@dataclass(frozen=True)
class Result:
    code: int
    signal: int
    out: bytes = b""
    err: bytes = b""


@dataclass
class Agent:
    """A running supervisor and its bundle."""

    binary: Path
    bundle: Path
    pass_fds: Sequence[int] = ()
    pid: int = 0
    connections: list[Connection] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.bundle / "agent.sock"

    def launch(self) -> None:
        directory = os.open(self.bundle, os.O_RDONLY | os.O_DIRECTORY)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.socket))
            listener.listen(128)
            done = subprocess.run(
                [self.binary, "supervise", str(directory), str(listener.fileno())],
                pass_fds=(directory, listener.fileno(), *self.pass_fds),
                capture_output=True,
                check=True,
            )
        finally:
            listener.close()
            os.close(directory)
        self.pid = int(done.stdout)

    def connect(self) -> Connection:
        connection = Connection(self.socket)
        self.connections.append(connection)
        return connection

    def alive(self) -> bool:
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return text[text.rindex(")") + 2] != "Z"

    def gone(self) -> bool:
        """Whether it ends within the time, once nobody is connected."""
        for connection in self.connections:
            connection.close()
        return wait_until(lambda: not self.alive())

    def exit(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle / "exit.json").read_text())
        return found

    def log(self, name: str = "log") -> list[tuple[str, str, str]]:
        """Stream, tag and text of each entry."""
        lines = (self.bundle / name).read_bytes().decode().split("\n")[:-1]
        return [(part[1], part[2], part[3]) for part in (line.split(" ", 3) for line in lines)]

    def end(self) -> None:
        """Whatever it does now, nothing of it stays."""
        if not self.pid or not self.alive():
            for connection in self.connections:
                connection.close()
            return
        try:
            with Connection(self.socket) as connection:
                connection.quit()
        except (OSError, EOFError):
            pass
        if not self.gone():
            os.kill(self.pid, 9)
            assert self.gone()


def wait_until(true: Callable[[], bool], timeout: float = TIMEOUT) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.005)
    return False
