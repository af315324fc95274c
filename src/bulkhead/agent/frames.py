"""The protocol's frames, without I/O: bytes in, frames out, and the payloads of requests and answers.

Everything that comes from an agent is checked here: lengths, versions, types, channels, credit. What breaks a rule
raises ProtocolError, after which the connection is of no more use. See docs/reference/agent-protocol.md.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from bulkhead.agent.operations import Operation
from bulkhead.agent.operations import encode as encode_operations
from bulkhead.errors import AgentError

VERSION = 1
MAX_PAYLOAD = 1 << 20
MAX_DATA = 1 << 16
MAX_ERRNO = 4095
CREDIT = 1 << 18
"""Bytes that either side may send on a channel of a new stream."""
WORKLOAD = 0xFFFFFFFF
"""The stream number that stands for the workload in SIGNAL."""

_HEADER = struct.Struct("<IBBBBI")
_ERROR = struct.Struct("<BBHII")


class ProtocolError(AgentError):
    """The other end broke a rule of the protocol."""


class Type(IntEnum):
    """Types of frames."""

    START = 1
    EXEC = 2
    ATTACH = 3
    WATCH = 4
    SIGNAL = 5
    RESIZE = 6
    RUN = 7
    FILES = 8
    INFO = 9
    QUIT = 10
    GUEST = 11
    GUEST_START = 12
    GUEST_RUN = 13
    REHEARSE = 14
    OK = 16
    ERROR = 17
    PARK = 18
    RESUME = 19
    DATA = 32
    EOF = 33
    CREDIT = 34
    EXIT = 35
    CLOSE = 36


TO_AGENT = frozenset(Type) - {Type.OK, Type.ERROR, Type.EXIT}
FROM_AGENT = frozenset({Type.OK, Type.ERROR, Type.DATA, Type.EOF, Type.CREDIT, Type.EXIT})
_CHANNELLED = frozenset({Type.DATA, Type.EOF, Type.CREDIT})
_EXACT = {Type.EOF: 0, Type.CREDIT: 4, Type.EXIT: 8, Type.CLOSE: 0}


class Channel(IntEnum):
    """Channels of a stream."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class Phase(IntEnum):
    """Where in a request an operation failed."""

    PREPARE = 0
    STAGE = 1
    INSIDE = 2
    FINISH = 3
    RUN = 4
    REQUEST = 5


class StartFlag(IntFlag):
    """Flags of START."""

    NONE = 0
    TERMINAL = 1
    STDIN = 2
    HOLD = 4
    GUEST = 8


class ExecFlag(IntFlag):
    """Flags of EXEC."""

    NONE = 0
    TERMINAL = 1
    STDIN = 2


class AttachFlag(IntFlag):
    """Flags of ATTACH."""

    STDIN = 1
    OUTPUT = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `channel` and `stream` are 0 where they do not apply."""

    type: Type
    stream: int
    payload: bytes = b""
    channel: int = 0


def encode(frame: Frame) -> bytes:
    """The frame as it travels. ValueError where the payload is larger than the protocol allows."""
    if len(frame.payload) > (MAX_DATA if frame.type is Type.DATA else MAX_PAYLOAD):
        raise ValueError(f"a {frame.type.name} frame of {len(frame.payload)} bytes is too large")
    header = _HEADER.pack(len(frame.payload), VERSION, frame.type, frame.channel, 0, frame.stream)
    return header + frame.payload


class Decoder:
    """Makes frames of bytes that arrive in any portions. Holds at most one unfinished frame."""

    def __init__(self, accept: Collection[Type] = FROM_AGENT) -> None:
        self._accept = frozenset(accept)
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Every frame that is complete now. Raises ProtocolError at the first that breaks a rule."""
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            header = _HEADER.unpack_from(self._buffer, start)
            kind, channel, stream = self._check(header)
            end = start + _HEADER.size + header[0]
            if len(self._buffer) < end:
                break
            frames.append(Frame(kind, stream, bytes(self._buffer[start + _HEADER.size : end]), channel))
            start = end
        del self._buffer[:start]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame whose end has not come yet; not 0 at the end of a connection means it was cut."""
        return len(self._buffer)

    def _check(self, header: tuple[int, int, int, int, int, int]) -> tuple[Type, int, int]:
        length, version, number, channel, zero, stream = header
        if version != VERSION:
            raise ProtocolError(f"the agent speaks version {version} of the protocol, not {VERSION}")
        if number not in self._accept:
            raise ProtocolError(f"the agent sent a frame of type {number}, which it never sends")
        kind = Type(number)
        if length > (MAX_DATA if kind is Type.DATA else MAX_PAYLOAD):
            raise ProtocolError(f"the agent sent a {kind.name} frame of {length} bytes, too large")
        if length != _EXACT.get(kind, length):
            raise ProtocolError(f"the agent sent a {kind.name} frame of {length} bytes instead of {_EXACT[kind]}")
        if channel > (Channel.STDERR if kind in _CHANNELLED else 0) or zero or not stream:
            raise ProtocolError(f"the agent sent a {kind.name} frame on channel {channel} of stream {stream}")
        return kind, channel, stream


class Window:
    """The credit of one channel in one direction: what may still be sent, by us or by the other end."""

    def __init__(self, credit: int = CREDIT) -> None:
        self.left = credit

    def spend(self, count: int) -> None:
        """Bytes were sent. Raises ProtocolError when that was more than the credit."""
        if count > self.left:
            raise ProtocolError(f"{count} bytes were sent on a credit of {self.left}")
        self.left -= count

    def refill(self, count: int) -> None:
        """Credit was given. Raises ProtocolError where it grows beyond all reason."""
        if self.left + count > MAX_PAYLOAD * 16:
            raise ProtocolError(f"a credit of {count} bytes on top of {self.left} is too large")
        self.left += count


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What START carries. Paths are the host's; the lists are carried out in the order of the protocol."""

    inside: tuple[Operation, ...]
    prepare: tuple[Operation, ...] = ()
    stage: tuple[Operation, ...] = ()
    finish: tuple[Operation, ...] = ()
    flags: StartFlag = StartFlag.NONE
    clone_flags: int = 0
    unshare_flags: int = 0
    id_base: int = 0
    id_count: int = 0
    rows: int = 0
    columns: int = 0
    log_size: int = 10 << 20
    log_files: int = 3
    netns: str = ""
    join: tuple[str, ...] = ()
    kill: str = ""

    def phase(self, phase: int) -> tuple[Operation, ...]:
        """The list that an ERROR's phase speaks of; empty for a phase without one."""
        lists = {Phase.PREPARE: self.prepare, Phase.STAGE: self.stage, Phase.INSIDE: self.inside}
        return {**lists, Phase.FINISH: self.finish}.get(Phase(phase), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What EXEC carries."""

    inside: tuple[Operation, ...]
    flags: ExecFlag = ExecFlag.NONE
    setns_flags: int = 0
    rows: int = 0
    columns: int = 0
    join: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """What an ERROR frame says."""

    phase: Phase
    code: int
    index: int
    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """What an EXIT frame says; `signal` 0: it ended by itself."""

    code: int
    signal: int


def _block(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _paths(paths: Sequence[str]) -> bytes:
    return struct.pack("<I", len(paths)) + b"".join(_block(path.encode()) for path in paths)


def start_payload(start: Start) -> bytes:
    """The payload of START. ValueError where a list is larger than the protocol allows."""
    numbers = (start.flags, start.clone_flags, start.unshare_flags, start.id_base, start.id_count)
    lists = (start.prepare, start.stage, start.inside, start.finish)
    return b"".join(
        (
            struct.pack("<IIIIIHHII", *numbers, start.rows, start.columns, start.log_size, start.log_files),
            _block(start.netns.encode()),
            _paths(start.join),
            _block(start.kill.encode()),
            *map(encode_operations, lists),
        )
    )


def exec_payload(request: ExecRequest) -> bytes:
    """The payload of EXEC. ValueError where the list is larger than the protocol allows."""
    numbers = struct.pack("<IIHH", request.flags, request.setns_flags, request.rows, request.columns)
    return numbers + _paths(request.join) + encode_operations(request.inside)


def parse_pid(payload: bytes) -> int:
    """The pid in the OK of START and EXEC."""
    if len(payload) != 4:
        raise ProtocolError(f"the agent's answer has {len(payload)} bytes instead of a pid's 4")
    return int.from_bytes(payload, "little")


def parse_failure(payload: bytes) -> Failure:
    """The payload of ERROR."""
    if len(payload) < _ERROR.size:
        raise ProtocolError(f"the agent sent an ERROR of {len(payload)} bytes, at least {_ERROR.size} make sense")
    phase, _, code, index, errno = _ERROR.unpack_from(payload)
    if phase > Phase.REQUEST:
        raise ProtocolError(f"the agent sent an ERROR of the unknown phase {phase}")
    check_errno(errno)
    text = payload[_ERROR.size : _ERROR.size + 4096].decode(errors="replace")
    return Failure(Phase(phase), code, index, errno, "".join(char if char.isprintable() else "?" for char in text))


def check_errno(number: int) -> None:
    """Refuse what cannot be an errno: the kernel's end at 4,095."""
    if number > MAX_ERRNO:
        raise ProtocolError(f"the agent sent the errno {number}")


def parse_exit(payload: bytes) -> Exit:
    """The payload of EXIT; a code is 0 to 255, a signal 0 to 127."""
    code, signal = struct.unpack("<II", payload)
    if code > 255 or signal > 127:
        raise ProtocolError(f"the agent sent an exit code of {code} and a signal of {signal}")
    return Exit(code, signal)


def parse_credit(payload: bytes) -> int:
    """The payload of CREDIT."""
    return int.from_bytes(payload, "little")
