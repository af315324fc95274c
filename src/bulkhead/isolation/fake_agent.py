"""The agent of the fake driver: the protocol's frames answered by a thread, no process and no privileges needed.

It understands a handful of programs (PROGRAMS), keeps time by the clock, writes `log` and `exit.json` as the real
agent does, and disappears with the process that it lives in.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bulkhead.agent import frames
from bulkhead.agent.frames import Channel, Decoder, Frame, ProtocolError, Type
from bulkhead.agent.launch import listen
from bulkhead.agent.operations import Code
from bulkhead.agent.session import SOCKET

OOM_REPORT = "oom"
_MORTAL = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2}


@dataclass(frozen=True, slots=True)
class Program:
    """What a fake program does: what it writes, then how it ends `after` so many seconds (None: never by itself)."""

    output: str = ""
    after: float | None = 0.0
    code: int = 0
    signal: int = 0
    oom: bool = False
    stubborn: bool = False
    """Only KILL ends it."""


def parse(argv: tuple[str, ...]) -> Program | None:
    """The program that a command line names; None where there is no such program.

    `true`, `false`, `echo WORDS`, `sleep SECONDS|infinity`, `exit CODE [SECONDS]`, `die SIGNAL [SECONDS]`,
    `stubborn`, `oom [SECONDS]`.
    """
    make = _PROGRAMS.get(Path(argv[0]).name)
    return make(argv[1:]) if make else None


def _after(words: tuple[str, ...]) -> float:
    return float(words[0]) if words else 0.0


_PROGRAMS: dict[str, Callable[[tuple[str, ...]], Program]] = {
    "true": lambda _: Program(),
    "false": lambda _: Program(code=1),
    "echo": lambda words: Program(output=" ".join(words) + "\n"),
    "sleep": lambda words: Program(after=None if words[0] == "infinity" else float(words[0])),
    "exit": lambda words: Program(code=int(words[0]), after=_after(words[1:])),
    "die": lambda words: Program(signal=int(words[0]), after=_after(words[1:])),
    "stubborn": lambda _: Program(after=None, stubborn=True),
    "oom": lambda words: Program(signal=signal.SIGKILL, oom=True, after=_after(words)),
}


class FakeAgent:
    """Serves `agent.sock` in one bundle for the length of one fake workload."""

    def __init__(self, bundle: Path, program: Program, pid: int) -> None:
        self._bundle = bundle
        self._program = program
        self._pid = pid
        self._started = time.time()
        self._end = None if program.after is None else time.monotonic() + program.after
        self._listener = listen(bundle / SOCKET)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._decoders: dict[socket.socket, Decoder] = {}
        self._told_at_the_end: list[tuple[socket.socket, int]] = []
        self._thread = threading.Thread(target=self._serve, name="fake-agent", daemon=True)

    def run(self) -> None:
        """Begin: from here on the program runs."""
        self._log(self._program.output)
        self._thread.start()

    def abandon(self) -> None:
        """Leave nothing of an agent that has not begun to serve."""
        self._selector.close()
        self._listener.close()
        (self._bundle / SOCKET).unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            left = None if self._end is None else max(0.0, self._end - time.monotonic())
            ready = self._selector.select(left)
            # Whoever has connected by now is heard first, so that an attach made at the launch misses nothing.
            if not ready and left == 0:
                self._finish(self._program.code, self._program.signal, oom=self._program.oom)
                return
            for key, _ in ready:
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    self._decoders[connection] = Decoder(frames.TO_AGENT)
                    self._selector.register(connection, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and self._read(key.fileobj):
                    return

    def _read(self, connection: socket.socket) -> bool:
        """Answer what has arrived; True when it has ended the workload."""
        try:
            data = connection.recv(1 << 16)
            arrived = self._decoders[connection].feed(data)
        except (OSError, ProtocolError):
            data, arrived = b"", []
        for frame in arrived:
            if self._answer(connection, frame):
                return True
        if not data:
            self._selector.unregister(connection)
            del self._decoders[connection]
            self._told_at_the_end = [entry for entry in self._told_at_the_end if entry[0] is not connection]
            connection.close()
        return False

    def _answer(self, connection: socket.socket, frame: Frame) -> bool:
        match frame.type:
            case Type.INFO:
                info = {"pid": self._pid, "state": "running", "version": frames.VERSION}
                self._send(connection, Type.OK, frame.stream, json.dumps(info).encode())
            case Type.WATCH | Type.ATTACH:
                self._send(connection, Type.OK, frame.stream)
                if frame.type is Type.ATTACH and self._program.output:
                    self._send(connection, Type.DATA, frame.stream, self._program.output.encode(), Channel.STDOUT)
                self._told_at_the_end.append((connection, frame.stream))
            case Type.RUN:
                self._send(connection, Type.OK, frame.stream, b"[]")
            case Type.EXEC:
                self._exec(connection, frame)
            case Type.SIGNAL:
                self._send(connection, Type.OK, frame.stream)
                return self._signal(int.from_bytes(frame.payload[:4], "little"))
            case Type.QUIT:
                self._send(connection, Type.OK, frame.stream)
                self._finish(0, signal.SIGKILL)
                return True
            case _:
                pass
        return False

    def _exec(self, connection: socket.socket, frame: Frame) -> None:
        program = parse(_exec_argv(frame.payload))
        if program is None:
            failure = struct.pack("<BBHII", frames.Phase.INSIDE, 0, Code.EXEC, 0, 2) + b"no such program"
            self._send(connection, Type.ERROR, frame.stream, failure)
            return
        self._send(connection, Type.OK, frame.stream, struct.pack("<I", self._pid + 1))
        if program.output:
            self._send(connection, Type.DATA, frame.stream, program.output.encode(), Channel.STDOUT)
        code = 128 + program.signal if program.signal else program.code
        self._send(connection, Type.EXIT, frame.stream, struct.pack("<II", code, program.signal))

    def _signal(self, number: int) -> bool:
        if number != signal.SIGKILL and (self._program.stubborn or number not in _MORTAL):
            return False
        self._finish(0, number)
        return True

    def _finish(self, code: int, number: int, *, oom: bool = False) -> None:
        """Write down how it ended, tell whoever waits, and go."""
        code = 128 + number if number else code
        reports = [OOM_REPORT] if oom else []
        found = {"code": code, "signal": number, "started": self._started, "ended": time.time(), "reports": reports}
        draft = self._bundle / "exit.json.new"
        with suppress(FileNotFoundError):  # the bundle was removed under it
            draft.write_text(json.dumps(found))
            draft.rename(self._bundle / "exit.json")
        (self._bundle / SOCKET).unlink(missing_ok=True)
        for connection, stream in self._told_at_the_end:
            self._send(connection, Type.EXIT, stream, struct.pack("<II", code, number))
        self._selector.close()
        self._listener.close()
        for connection in self._decoders:
            connection.close()

    def _send(self, connection: socket.socket, kind: Type, stream: int, payload: bytes = b"", channel: int = 0) -> None:
        with suppress(OSError):
            connection.sendall(frames.encode(Frame(kind, stream, payload, channel)))

    def _log(self, output: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        with (self._bundle / "log").open("a") as log:
            log.writelines(f"{stamp} stdout F {line}\n" for line in output.splitlines())


def _exec_argv(payload: bytes) -> tuple[str, ...]:
    """The command line in the payload of EXEC: the arguments of the EXEC operation."""
    at = struct.calcsize("<IIHH")
    joins, at = _u32(payload, at)
    for _ in range(joins):
        _, at = _block(payload, at)
    operations, at = _u32(payload, at)
    for _ in range(operations):
        code, _, count = struct.unpack_from("<HBB", payload, at)
        at += 4
        arguments = []
        for _ in range(count):
            argument, at = _block(payload, at)
            arguments.append(argument.decode())
        if code == Code.EXEC:
            return tuple(arguments)
    return ("",)


def _u32(payload: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(payload[at : at + 4], "little"), at + 4


def _block(payload: bytes, at: int) -> tuple[bytes, int]:
    length, at = _u32(payload, at)
    return payload[at : at + length], at + length
