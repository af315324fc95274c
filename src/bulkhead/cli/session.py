"""A workload's streams on this process's stdin, stdout and stderr, until it ends or the user detaches."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from struct import Struct

from bulkhead import client as wire
from bulkhead.cli import terminal
from bulkhead.cli.output import tell_choice
from bulkhead.client import Client, Duplex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

DETACH_KEYS = "ctrl-p,ctrl-q"
PROXIED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Passed on to the workload. While the terminal is raw, its keys are: then a signal ends this process, in order."""
IMPATIENCE = 3
"""So many INT or TERM in a row end this process even if the workload does not care."""
READ_SIZE = 1 << 16
GIVE_BACK = 1 << 16
"""Bytes of output after which credit is given back: a quarter of the window."""
_U32, _SIGNAL, _SIZE, _EXIT = Struct("<I"), Struct("<II"), Struct("<HH"), Struct("<II")


def run_session(client: Client, path: str, request: dict[str, object], *, detach_keys: str = DETACH_KEYS) -> int:
    """Send a run, attach or exec request and be its terminal; the exit code, 0 after detaching."""
    keys = terminal.parse_keys(detach_keys)
    with client.duplex(path, request) as stream:
        return Session(stream, keys, stdin=bool(request.get("stdin"))).run()


class Session:
    """One stream joined with this process."""

    def __init__(self, stream: Duplex, detach_keys: bytes, *, stdin: bool) -> None:
        self._stream = stream
        self._wants_stdin = stdin
        self._until_end = ExitStack()
        self._keys = terminal.DetachKeys(detach_keys)
        self._poll = select.poll()
        self._credit = wire.WINDOW
        self._owed = {1: 0, 2: 0}
        self._tty = self._raw = self._stdin = self._listening = False
        self._interrupts = 0
        self._code: int | None = None

    def run(self) -> int:
        """Move bytes until the end; the exit code."""
        with self._until_end:
            # Signals first: whoever sees output may send one.
            woken = self._until_end.enter_context(self._signals())
            self._poll.register(self._stream.fileno(), select.POLLIN)
            self._poll.register(woken, select.POLLIN)
            self._take(self._stream.waiting())
            while self._code is None:
                self._listen()
                self._serve(woken)
        return self._code

    def _serve(self, woken: int) -> None:
        for descriptor, _ in self._poll.poll():
            if descriptor == woken:
                for number in os.read(woken, 64):
                    self._signal(number)
            elif descriptor == self._stream.fileno():
                self._take(self._stream.receive())
            elif self._code is None:
                self._read_stdin()

    # --- from the workload

    def _take(self, frames: list[tuple[int, int, bytes]]) -> None:
        for kind, channel, payload in frames:
            if kind == wire.DATA:
                self._write(channel, payload)
            elif kind == wire.CREDIT:
                self._credit += _U32.unpack(payload)[0]
            elif kind == wire.RESPONSE:
                self._begin(json.loads(payload))
            elif kind == wire.EXIT:
                code, number = _EXIT.unpack(payload)
                self._code = 128 + number if number else code
            elif kind == wire.PROBLEM:
                raise wire.problem(payload)

    def _begin(self, response: dict[str, object]) -> None:
        tell_choice(response)
        self._tty = bool(response.get("tty"))
        self._stdin = self._wants_stdin and bool(response.get("stdin"))
        if self._stdin and sys.stdin is None:
            # Started with stdin closed: descriptor 0 is something else by now.
            self._end_stdin()
        self._raw = self._tty and self._stdin and os.isatty(0)
        if self._raw:
            self._until_end.enter_context(terminal.raw(0))
        if self._tty:
            self._resize()

    def _write(self, channel: int, payload: bytes) -> None:
        target = 2 if channel == 2 else 1
        view = memoryview(payload)
        while view:
            try:
                view = view[os.write(target, view) :]
            except BlockingIOError:
                # Somebody else has made the terminal or pipe non-blocking.
                select.select([], [target], [])
        self._owed[target] += len(payload)
        if self._owed[target] >= GIVE_BACK:
            self._stream.send(wire.CREDIT, _U32.pack(self._owed[target]), target)
            self._owed[target] = 0

    # --- to the workload

    def _listen(self) -> None:
        """Read stdin only while the workload takes more."""
        wanted = self._stdin and self._credit > 0
        if wanted and not self._listening:
            self._poll.register(0, select.POLLIN)
        elif self._listening and not wanted:
            self._poll.unregister(0)
        self._listening = wanted

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, min(READ_SIZE, self._credit))
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal that was hung up
        if not data:
            self._end_stdin()
            return
        detach = False
        if self._raw:
            data, detach = self._keys.feed(data)
        if data:
            self._credit -= len(data)
            self._stream.send(wire.DATA, data)
        if detach:
            self._stream.send(wire.CLOSE)
            self._code = 0

    def _end_stdin(self) -> None:
        self._stdin = False
        self._stream.send(wire.EOF)

    def _signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self._tty:
                self._resize()
        elif self._raw:
            self._code = 128 + number
        else:
            self._stream.send(wire.SIGNAL, _SIGNAL.pack(number, 0))
            if number in (signal.SIGINT, signal.SIGTERM):
                self._interrupts += 1
                if self._interrupts == IMPATIENCE:
                    self._code = 128 + number

    def _resize(self) -> None:
        rows, columns = terminal.size(0)
        if rows and columns:
            self._stream.send(wire.RESIZE, _SIZE.pack(rows, columns))

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """A descriptor from which the numbers of signals can be read."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = [(number, signal.signal(number, _ignore)) for number in (*PROXIED, signal.SIGWINCH)]
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before:
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor has the number."""
