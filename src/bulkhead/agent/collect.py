"""A command beside a workload, run to its end with its output kept: health checks and the like."""

from __future__ import annotations

import signal
import struct
import time
from dataclasses import dataclass
from typing import Protocol

from bulkhead.agent import frames
from bulkhead.agent.explain import explain
from bulkhead.agent.frames import Channel, ExecFlag, ExecRequest, Exit, Frame, ProtocolError, Type, Window

GIVE_BACK = 1 << 16
"""Credit goes back in portions of this many bytes, so that small reads do not cost a frame each."""


class Session(Protocol):
    """What a command's frames go over: `session.Session`."""

    def open(self, kind: Type, payload: bytes = b"") -> int:
        """Send a request on a stream of its own; the stream's number."""

    def answer(self, stream: int, timeout: float) -> Frame:
        """The OK or ERROR to a request. Raises Unavailable when it does not come in time."""

    def next(self, stream: int, timeout: float) -> Frame:
        """The next frame of a stream. Raises TimeoutError, or Unavailable at the connection's end."""

    def put_back(self, frame: Frame) -> None:
        """Make a frame that `next` gave the stream's next one again."""

    def send(self, frame: Frame) -> None:
        """Send one frame whole."""

    def forget(self, stream: int) -> None:
        """Drop what still comes on a stream."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A finished command. What it wrote beyond the limit is not kept; `truncated` tells."""

    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


def exec_collect(
    session: Session, request: ExecRequest, *, timeout: float, limit: int = 1 << 20, stdin: bytes = b""
) -> Collected:
    """Run a command to its end, keeping at most `limit` bytes of each output.

    `stdin` is sent where the request has the STDIN flag. Raises AgentError when it cannot be executed, TimeoutError
    after `timeout` seconds, its first process having been killed.
    """
    deadline = time.monotonic() + timeout
    stream = session.open(Type.EXEC, frames.exec_payload(request))
    answer = session.answer(stream, timeout)
    if answer.type is Type.ERROR:
        raise explain(frames.parse_failure(answer.payload), request)
    collector = Collector(limit)
    try:
        if request.flags & ExecFlag.STDIN:
            _feed(session, stream, stdin, deadline, collector)
        while (frame := session.next(stream, deadline - time.monotonic())).type is not Type.EXIT:
            collector.take(session, frame)
    except TimeoutError:
        session.send(Frame(Type.SIGNAL, stream, struct.pack("<II", signal.SIGKILL, 0)))
        session.send(Frame(Type.CLOSE, stream))
        raise
    finally:
        session.forget(stream)
    return collector.finished(frames.parse_exit(frame.payload))


def _feed(session: Session, stream: int, data: bytes, deadline: float, collector: Collector) -> None:
    window, sent = Window(), 0
    while sent < len(data):
        part = data[sent : sent + min(frames.MAX_DATA, window.left)]
        if part:
            session.send(Frame(Type.DATA, stream, part, Channel.STDIN))
            window.spend(len(part))
            sent += len(part)
            continue
        frame = session.next(stream, deadline - time.monotonic())
        if frame.type is Type.EXIT:
            session.put_back(frame)
            return
        if frame.type is Type.CREDIT:
            window.refill(frames.parse_credit(frame.payload))
        else:
            collector.take(session, frame)
    session.send(Frame(Type.EOF, stream, b"", Channel.STDIN))


class Collector:
    """Output of a command, at most `limit` bytes per channel."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = {Channel.STDOUT: bytearray(), Channel.STDERR: bytearray()}
        self._windows = {Channel.STDOUT: Window(), Channel.STDERR: Window()}
        self._truncated = False

    def take(self, session: Session, frame: Frame) -> None:
        """Keep output and give its credit back; an exec's other frames need no answer."""
        if frame.type is not Type.DATA:
            return
        channel = Channel(frame.channel)
        if channel is Channel.STDIN:
            raise ProtocolError("the agent sent output on the channel of the input")
        kept, window = self._kept[channel], self._windows[channel]
        window.spend(len(frame.payload))
        room = self._limit - len(kept)
        kept += frame.payload[:room]
        self._truncated |= len(frame.payload) > room
        used = frames.CREDIT - window.left
        if used >= GIVE_BACK:
            window.refill(used)
            session.send(Frame(Type.CREDIT, frame.stream, used.to_bytes(4, "little"), channel))

    def finished(self, ended: Exit) -> Collected:
        """The command with its exit, a signal being 128 + its number."""
        stdout, stderr = (bytes(self._kept[channel]) for channel in (Channel.STDOUT, Channel.STDERR))
        return Collected(128 + ended.signal if ended.signal else ended.code, stdout, stderr, self._truncated)
