"""A proxy in front of an HTTP server that a test tells what becomes of each request and of its answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Self

Rule = Callable[[str], "Fate"]
"""Of a request's path."""


class Fate(Enum):
    """What becomes of a request."""

    PASS = auto()
    CUT_BEFORE = auto()
    """The connection is cut, the server never sees it."""
    CUT_AFTER = auto()
    """The server sees it; its answer is dropped, and the connection cut."""
    HOLD = auto()
    """The connection is cut, and the server sees the request when `deliver` is called."""


class HttpProxy:
    """Listens on a port of 127.0.0.1 of its own. `rule` says what becomes of what; `seen` are the paths so far."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.rule: Rule = lambda path: Fate.PASS
        self.seen: list[str] = []
        self.held: list[bytes] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def once(self, path: str, fate: Fate) -> None:
        """Let this become of the next request for `path`, and let all others pass."""
        left = [fate]
        self.rule = lambda asked: left.pop() if left and asked == path else Fate.PASS

    def deliver(self) -> list[bytes]:
        """Send on what was held, one after the other; the answers, whole."""
        answers = []
        held, self.held = self.held, []
        for request in held:
            with socket.create_connection(self._server, timeout=30) as upstream:
                upstream.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                answers.append(b"".join(iter(lambda upstream=upstream: upstream.recv(65536), b"")))  # type: ignore[misc]
        return answers

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)

    # --- inside

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server, timeout=30) as upstream:
            upstream.settimeout(None)
            self._open |= {client, upstream}
            answers = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
            started = False
            while request := _request(client):
                path = request.split(b" ", 2)[1].decode()
                self.seen.append(path)
                fate = self.rule(path)
                if fate is Fate.HOLD:
                    self.held.append(request)
                if fate is Fate.CUT_AFTER:
                    with socket.create_connection(self._server, timeout=30) as other:
                        other.sendall(request)
                        other.recv(65536)
                if fate is not Fate.PASS:
                    break
                upstream.sendall(request)
                if not started:
                    answers.start()
                    started = True
            for one in (client, upstream):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            if started:
                answers.join(30)
            self._open -= {client, upstream}


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def _request(client: socket.socket) -> bytes:
    """One whole request; empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        more = client.recv(65536)
        if not more:
            return b""
        body += more
    return head + b"\r\n\r\n" + body
