"""A blocking connection to one agent, for the engine's own requests. Not for use by several threads at once.

Relays that move a terminal's bytes to a client use `frames` directly; this is for what has one answer.
Times are seconds.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from bulkhead.agent import frames
from bulkhead.agent.collect import Collected, exec_collect
from bulkhead.agent.explain import explain
from bulkhead.agent.frames import Decoder, ExecRequest, Exit, Frame, ProtocolError, Start, Type
from bulkhead.agent.operations import Operation
from bulkhead.agent.operations import encode as encode_operations
from bulkhead.errors import Unavailable

READ_SIZE = 1 << 17
MAX_QUEUE = 4096
"""Frames that wait on one stream; flow control keeps an honest agent far below."""
SOCKET = "agent.sock"
GUEST_SOCKET = "vm/agent.sock"
"""Where a machine's guest is reached, below the bundle."""
DEFAULT_TIMEOUT = 10.0
_CONNECT_TIME, _NO_TIME = struct.pack("ll", 10, 0), struct.pack("ll", 0, 0)
"""As struct timeval."""
NOT_YET = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN})
"""What GUEST is answered with while the machine has not made its socket."""
SOCKET_POLL = 0.005
LAST_ANSWER = 0.5


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for a unix socket that fits sun_path (107 bytes) however long `path` is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect_socket(path: Path) -> socket.socket:
    """A blocking connection to `agent.sock`. Raises Unavailable when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # An agent that is stopped accepts nothing: its queue fills up in the end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _CONNECT_TIME)
        with short_path(path) as name:
            connection.connect(name)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _NO_TIME)
    except OSError as error:
        connection.close()
        raise Unavailable(f"no agent answers at {path}: {error.strerror}") from error
    return connection


class Session:
    """One connection. Closing it detaches what it started; the workload goes on."""

    def __init__(self, connection: socket.socket, *, name: str = "the agent") -> None:
        connection.setblocking(False)
        self._socket = connection
        self._name = name
        self._decoder = Decoder()
        self._arrived: dict[int, deque[Frame]] = {}
        self._last_stream = 0

    @classmethod
    def connect(cls, path: Path) -> Session:
        """Connect to `agent.sock`. Raises Unavailable when nobody listens."""
        return cls(connect_socket(path), name=f"the agent at {path}")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        """For select and the like: readable when an answer, or the end, has come."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the connection up."""
        self._socket.close()

    # --- requests with one answer

    def start(self, start: Start, *, timeout: float = 30.0) -> int:
        """Run the workload; its host pid once the program has been executed. Raises AgentError in words."""
        return self._start(Type.START, start, timeout)

    def run(self, operations: Sequence[Operation], *, timeout: float = 30.0) -> list[str]:
        """Let the supervisor carry out a list; the reports of its operations in order."""
        return self._run(Type.RUN, operations, timeout)

    def info(self, *, timeout: float = DEFAULT_TIMEOUT) -> dict[str, object]:
        """The agent's `{"pid", "state", "version"}`."""
        return self._json(Type.INFO, self._ask(Type.INFO, b"", timeout))

    def guest(self, name: str = GUEST_SOCKET, *, timeout: float = 60.0) -> dict[str, object]:
        """Join a machine's guest, whose socket has this name below the bundle; what its agent says of itself.

        Waits for the socket, then for the guest. Raises Unavailable when that takes longer than `timeout` (it can be
        asked again), and AgentError when the machine has ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            stream = self.open(Type.GUEST, name.encode())
            # The last time that it is asked, it gets the time to say that nobody is there.
            answer = self.answer(stream, max(LAST_ANSWER, deadline - time.monotonic()))
            self.forget(stream)
            if answer.type is Type.OK:
                return self._json(Type.GUEST, answer.payload)
            failure = frames.parse_failure(answer.payload)
            if failure.errno not in NOT_YET:
                raise explain(failure, ())
            if time.monotonic() >= deadline:
                raise Unavailable(f"no guest listens at {name} after {timeout:g} s")
            time.sleep(SOCKET_POLL)

    def guest_start(self, start: Start, *, timeout: float = 60.0) -> int:
        """Run the workload in the guest; its pid there. Raises AgentError in words, after which the machine ends."""
        return self._start(Type.GUEST_START, start, timeout)

    def rehearse(self, start: Start, *, timeout: float = 60.0) -> None:
        """Let the guest go through a start to its end; it is idle again then. Raises AgentError in words."""
        stream = self.open(Type.REHEARSE, frames.start_payload(start))
        answer = self.answer(stream, timeout)
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), start)

    def guest_run(self, operations: Sequence[Operation], *, timeout: float = 30.0) -> list[str]:
        """Let the guest's agent carry out a list; the reports of its operations in order."""
        return self._run(Type.GUEST_RUN, operations, timeout)

    def park(self, *, timeout: float = 30.0) -> None:
        """Quiet the connection to the guest, so that it can be saved; `resume` ends that, on whatever supervisor.

        What the workload has said is in the log; what it says from now on waits in its pipes. A command that runs there
        waits as well. Raises AgentError where the guest does not answer: then it goes on as before.
        """
        self._ask(Type.PARK, b"", timeout)

    def resume(self, operations: Sequence[Operation] = (), *, timeout: float = 60.0) -> int:
        """Let a parked guest go on, after these operations in it; the workload's pid there.

        On a new supervisor this takes the place of `guest_start`, and what came from the old one's clients has gone. A
        failed operation raises AgentError; the guest is still parked then.
        """
        answer = self.answer(self.open(Type.RESUME, encode_operations(operations)), timeout)
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), operations)
        return frames.parse_pid(answer.payload)

    def signal(self, number: int, *, everyone: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Send a signal to the workload, or to every process of the instance."""
        self.send(
            Frame(Type.SIGNAL, frames.WORKLOAD, number.to_bytes(4, "little") + int(everyone).to_bytes(4, "little"))
        )
        self._check(self.answer(frames.WORKLOAD, timeout))

    def quit(self, *, timeout: float = 30.0) -> None:
        """End the instance and its agent; returns when the agent has closed the connection. Raises Unavailable."""
        deadline = time.monotonic() + timeout
        stream = self.open(Type.QUIT)
        self._check(self.answer(stream, timeout))
        try:
            while True:
                self.next(stream, deadline - time.monotonic())
        except TimeoutError as error:
            raise Unavailable(f"{self._name} did not end within {timeout:g} s") from error
        except Unavailable:
            return  # it has closed the connection

    def watch(self) -> int:
        """Ask to be told of the workload's end; the stream to give to `ended`."""
        stream = self.open(Type.WATCH)
        self._check(self.answer(stream, DEFAULT_TIMEOUT))
        return stream

    def ended(self, stream: int, *, timeout: float) -> Exit | None:
        """How the watched workload ended; None when it has not in time. Raises Unavailable if the agent is gone."""
        try:
            frame = self.next(stream, timeout)
        except TimeoutError:
            return None
        if frame.type is not Type.EXIT:
            raise ProtocolError(f"{self._name} answered WATCH with {frame.type.name}")
        return frames.parse_exit(frame.payload)

    def exec_collect(
        self, request: ExecRequest, *, timeout: float, limit: int = 1 << 20, stdin: bytes = b""
    ) -> Collected:
        """Run a command beside the workload to its end; see `collect.exec_collect`."""
        return exec_collect(self, request, timeout=timeout, limit=limit, stdin=stdin)

    # --- frames

    def open(self, kind: Type, payload: bytes = b"") -> int:
        """Send a request on a stream of its own; the stream's number."""
        self._last_stream += 1
        self._arrived[self._last_stream] = deque()
        self.send(Frame(kind, self._last_stream, payload))
        return self._last_stream

    def forget(self, stream: int) -> None:
        """Drop what still comes on a stream."""
        self._arrived.pop(stream, None)

    def answer(self, stream: int, timeout: float) -> Frame:
        """The OK or ERROR to a request. Raises Unavailable when it does not come in time."""
        self._arrived.setdefault(stream, deque())
        try:
            frame = self.next(stream, timeout)
        except TimeoutError as error:
            raise Unavailable(f"{self._name} did not answer within {timeout:g} s") from error
        if frame.type not in (Type.OK, Type.ERROR):
            raise ProtocolError(f"{self._name} answered a request with {frame.type.name}")
        return frame

    def next(self, stream: int, timeout: float) -> Frame:
        """The next frame of a stream. Raises TimeoutError, or Unavailable at the connection's end."""
        deadline = time.monotonic() + timeout
        queue = self._arrived[stream]
        while not queue:
            self._pump(deadline)
        return queue.popleft()

    def send(self, frame: Frame) -> None:
        """Send one frame whole. What arrives meanwhile is kept, so that neither side waits for the other for ever."""
        view = memoryview(frames.encode(frame))
        deadline = time.monotonic() + DEFAULT_TIMEOUT
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                ready = self._poll(select.POLLIN | select.POLLOUT, deadline)
                if not ready:
                    raise Unavailable(f"{self._name} takes nothing more") from None
                if ready & select.POLLIN:
                    self._pump(deadline)
            except OSError as error:
                raise Unavailable(f"{self._name} has gone: {error.strerror}") from error

    def _pump(self, deadline: float) -> None:
        if not self._poll(select.POLLIN, deadline):
            raise TimeoutError
        try:
            data = self._socket.recv(READ_SIZE)
        except OSError as error:
            raise Unavailable(f"{self._name} has gone: {error.strerror}") from error
        if not data:
            raise Unavailable(f"{self._name} has closed the connection")
        for frame in self._decoder.feed(data):
            if (queue := self._arrived.get(frame.stream)) is None:
                continue
            if len(queue) == MAX_QUEUE:
                raise ProtocolError(f"{self._name} floods stream {frame.stream}")
            queue.append(frame)

    def _poll(self, events: int, deadline: float) -> int:
        """What of `events` (and errors) the socket is ready for before `deadline`; 0 for nothing."""
        poll = select.poll()
        poll.register(self._socket, events)
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        return ready[0][1] if ready else 0

    def put_back(self, frame: Frame) -> None:
        """Make a frame that `next` gave the stream's next one again."""
        self._arrived[frame.stream].appendleft(frame)

    def _start(self, kind: Type, start: Start, timeout: float) -> int:
        answer = self.answer(self.open(kind, frames.start_payload(start)), timeout)
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), start)
        return frames.parse_pid(answer.payload)

    def _run(self, kind: Type, operations: Sequence[Operation], timeout: float) -> list[str]:
        answer = self.answer(self.open(kind, encode_operations(operations)), timeout)
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), operations)
        return parse_reports(answer.payload)

    def _json(self, kind: Type, payload: bytes) -> dict[str, object]:
        try:
            found = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{self._name} answered {kind.name} with something that is not JSON") from error
        if not isinstance(found, dict):
            raise ProtocolError(f"{self._name} answered {kind.name} with {found!r}")
        return found

    def _ask(self, kind: Type, payload: bytes, timeout: float) -> bytes:
        stream = self.open(kind, payload)
        try:
            return self._check(self.answer(stream, timeout))
        finally:
            self.forget(stream)

    def _check(self, answer: Frame) -> bytes:
        if answer.type is Type.ERROR:
            raise explain(frames.parse_failure(answer.payload), ())
        return answer.payload


def parse_reports(payload: bytes) -> list[str]:
    """The reports in the OK of RUN: each u32 length + bytes."""
    reports, at = [], 0
    while at < len(payload):
        length = int.from_bytes(payload[at : at + 4], "little")
        if at + 4 + length > len(payload):
            raise ProtocolError("the agent's reports are cut short")
        reports.append(payload[at + 4 : at + 4 + length].decode(errors="replace"))
        at += 4 + length
    return reports
