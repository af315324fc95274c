"""A client of a web server that runs on one of several hosts: asks all the time, and knows how long nobody answered."""

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
        longest = f"{self.longest * 1000:,.0f} ms" if self.longest < 1 else f"{self.longest:.1f} s"
        return f"{self.answers:,} answers in {self.seconds:.1f} s, by {by}; the longest silence was {longest}"


@dataclass(slots=True)
class Client:
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
