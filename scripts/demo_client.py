"""Clients of servers that run on one of several hosts: they ask all the time, and know how long nobody answered."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.harness.namespaces import in_network

EVERY = 0.01
"""Seconds between two requests."""
PATIENCE = 300.0
WRITE_SECONDS = 5.0
"""For one answer, before another connection is tried: longer than a machine stands still that moves."""


def _time(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Silence:
    """What was seen in a time."""

    seconds: float
    answers: int
    longest: float
    """Seconds between two answers, at most."""
    hosts: tuple[str, ...]
    """Who answered, in their order."""

    def __str__(self) -> str:
        by = ", then ".join(self.hosts) or "nobody"
        return (
            f"{self.answers:,} answers in {self.seconds:.1f} s, by {by}; the longest silence was {_time(self.longest)}"
        )


class _There:
    """Works in the network namespace of a process, from the beginning of a `with` to its end."""

    pid: int
    _stop: threading.Event
    _thread: threading.Thread | None

    def _work(self) -> None:
        """Until `_stop` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=in_network, args=(f"/proc/{self.pid}/ns/net", self._work), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


@dataclass(slots=True)
class Client(_There):
    """In the network namespace of a process. Asks one host; when that does not answer, the next one."""

    pid: int
    addresses: Mapping[str, str]
    """Of the hosts, by name."""
    port: int
    _answers: int = 0
    _longest: float = 0.0
    _hosts: list[str] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)
    _since: float = field(default_factory=time.monotonic)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def take(self) -> Silence:
        """What was seen since it was taken last, a silence that lasts included."""
        with self._guard:
            now = time.monotonic()
            longest = max(self._longest, now - self._last)
            found = Silence(now - self._since, self._answers, longest, tuple(self._hosts))
            self._answers, self._longest, self._hosts, self._since = 0, 0.0, self._hosts[-1:], now
            return found

    def await_answer(self) -> None:
        """Until there is one from now on."""
        asked = time.monotonic()
        while self._last < asked:
            if time.monotonic() - asked > PATIENCE:
                raise SystemExit(f"nobody answers on port {self.port} after {PATIENCE:.0f} s")
            time.sleep(EVERY)

    def _work(self) -> None:
        names = list(self.addresses)
        while not self._stop.wait(EVERY):
            if self._ask(self.addresses[names[0]]):
                self._answered(names[0])
            else:
                names.append(names.pop(0))

    def _ask(self, address: str) -> bool:
        try:
            with socket.create_connection((address, self.port), timeout=0.5) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return connection.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
        except OSError:
            return False

    def _answered(self, name: str) -> None:
        with self._guard:
            now = time.monotonic()
            self._longest, self._last = max(self._longest, now - self._last), now
            self._answers += 1
            if self._hosts[-1:] != [name]:
                self._hosts.append(name)


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer saw in a time."""

    seconds: float
    answers: int
    longest: float
    """Seconds that one write waited for its answer, at most; to connect again included."""
    connections: int
    """Those that were made anew."""
    lost: int
    """Writes that had been answered, and were not there afterwards."""

    def __str__(self) -> str:
        kept = f"{self.connections} new connections" if self.connections else "its one connection stays up"
        lost = f"{self.lost} of them are lost" if self.lost else "none is lost"
        return (
            f"{self.answers:,} writes answered in {self.seconds:.1f} s, {lost}; {kept}; "
            f"the longest wait was {_time(self.longest)}"
        )


@dataclass(slots=True)
class Writer(_There):
    """In the network namespace of a process: counts up in a redis, one after the other, on one connection for as long
    as that is there.
    """

    pid: int
    address: str
    _count: int = 0
    """The last that was answered."""
    _answers: int = 0
    _longest: float = 0.0
    _connections: int = -1
    _lost: int = 0
    _asked: float = field(default_factory=time.monotonic)
    """When the write began that is not answered yet."""
    _since: float = field(default_factory=time.monotonic)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def take(self) -> Written:
        """What was seen since it was taken last, once there was another answer."""
        self._await_answer()
        with self._guard:
            now = time.monotonic()
            found = Written(now - self._since, self._answers, self._longest, max(0, self._connections), self._lost)
            self._answers, self._longest, self._connections, self._lost, self._since = 0, 0.0, 0, 0, now
            return found

    def _await_answer(self) -> None:
        before, asked = self._count, time.monotonic()
        while self._count == before:
            if time.monotonic() - asked > PATIENCE:
                raise SystemExit(f"redis at {self.address} does not answer after {PATIENCE:.0f} s")
            time.sleep(EVERY)

    def _work(self) -> None:
        self._asked = time.monotonic()
        while not self._stop.is_set():
            try:
                with socket.create_connection((self.address, 6379), timeout=WRITE_SECONDS) as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._connections += 1
                    self._write(connection)
            except (OSError, ValueError):
                self._stop.wait(EVERY)

    def _write(self, connection: socket.socket) -> None:
        """Until it ends. Raises OSError, ValueError."""
        with connection.makefile("rwb") as file:
            while not self._stop.wait(EVERY):
                self._asked = self._asked or time.monotonic()
                file.write(b"INCR writes\r\n")
                file.flush()
                count = int(file.readline().removeprefix(b":"))
                with self._guard:
                    self._answers += 1
                    self._longest = max(self._longest, time.monotonic() - self._asked)
                    # One that was made without an answer may be there as well.
                    self._lost += max(0, self._count + 1 - count)
                    self._count, self._asked = count, 0.0
