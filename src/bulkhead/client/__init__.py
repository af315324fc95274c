"""The API's client: HTTP/1.1 over the daemon's unix socket, with the standard library alone and little of that.

The command line starts a process for every command, so the import counts: http.client brings the email package and
takes longer than a whole `exec` does. What is spoken here is what the daemon speaks: Content-Length and chunked
bodies, one connection that is kept, no redirects, no compression.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable

from bulkhead.client.duplex import (
    CLOSE,
    CREDIT,
    DATA,
    EOF,
    EXIT,
    FRAMES,
    PROBLEM,
    REQUEST,
    RESIZE,
    RESPONSE,
    SIGNAL,
    WINDOW,
    Duplex,
    frame,
)
from bulkhead.client.http import Query, Response, answered, chunk, head, lost, problem, quote, send, target

TYPE_CHECKING = False  # typing is not imported at run time
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from bulkhead.client.remote import Remote

__all__ = [
    "CLOSE",
    "CREDIT",
    "DATA",
    "EOF",
    "EXIT",
    "FRAMES",
    "PROBLEM",
    "REQUEST",
    "RESIZE",
    "RESPONSE",
    "SIGNAL",
    "WINDOW",
    "Client",
    "Duplex",
    "Response",
    "frame",
    "problem",
    "quote",
    "target",
]
MAX_PATH = 107
"""Bytes of a unix socket's address, without the NUL at its end."""


class Client:
    """Talks to one daemon. Every method raises the error tree's errors, as the daemon told them."""

    def __init__(self, path: str, remote: Remote | None = None) -> None:
        """`path`: of the unix socket; with `remote` the daemon is there instead."""
        self.path = path
        self.remote = remote
        self._headers = remote.headers if remote else ""
        self._kept: socket.socket | None = None
        self._used = False
        """Whether the kept connection has served a request: then the daemon may close it for being idle."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connection."""
        if self._kept:
            self._kept.close()
            self._kept = None

    def connect(self) -> None:
        """Make sure that a daemon answers. Raises Unavailable."""
        if self._kept is None:
            self._kept, self._used = self._connected(), False

    def call(self, method: str, path: str, *, query: Query | None = None, body: object = None) -> Any:
        """One request with a JSON body (None: none); the JSON answer, None for an empty one."""
        payload = b"" if body is None else json.dumps(body).encode()
        with self._exchange(method, path, query, payload, "application/json" if payload else "") as response:
            text = response.read()
            self._keep(response)
        return json.loads(text) if text else None

    def stream(self, method: str, path: str, *, query: Query | None = None, body: object = None) -> Response:
        """One request whose answer is read as it comes. Close it."""
        payload = b"" if body is None else json.dumps(body).encode()
        return self._exchange(method, path, query, payload, "application/json" if payload else "")

    def upload(self, method: str, path: str, chunks: Iterable[bytes], *, query: Query | None = None) -> Response:
        """One request whose body is sent as it comes. The answer is read when all was sent."""
        return self._exchange(method, path, query, chunks, "application/octet-stream")

    def duplex(self, path: str, request: object) -> Duplex:
        """One request that goes on both ways: frames to and from a workload."""
        if self._used:
            self.close()
        connection, self._kept = self._kept or self._connected(), None
        payload = json.dumps(request).encode()
        try:
            body = chunk(frame(REQUEST, payload))
            connection.sendall(head("POST", path, FRAMES, "transfer-encoding: chunked", self._headers) + body)
            return Duplex(answered(connection, "POST"))
        except ConnectionError as error:
            connection.close()
            lost(error)
        except BaseException:
            connection.close()
            raise

    def _connected(self) -> socket.socket:
        if self.remote:
            return self.remote.connect()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if len(os.fsencode(self.path)) <= MAX_PATH:
                connection.connect(self.path)
            else:
                _connect_far(connection, self.path)
        except OSError as error:
            connection.close()
            from bulkhead.errors import Unavailable

            hint = "only root and the members of socket_group may use it"
            if not isinstance(error, PermissionError):
                hint = "start it with `bulkhead serve`, or check --config"
            raise Unavailable(f"no daemon answers at {self.path}: {error.strerror}", hint=hint) from error
        return connection

    def _keep(self, response: Response) -> None:
        self._kept, self._used = response.detach(), True

    def _exchange(
        self, method: str, path: str, query: Query | None, body: bytes | Iterable[bytes], kind: str
    ) -> Response:
        kept, self._kept = self._kept, None
        fresh = kept if kept and not self._used else None
        length = f"content-length: {len(body)}" if isinstance(body, bytes) else "transfer-encoding: chunked"
        start = head(method, target(path, query), kind, length, self._headers)
        if kept and not fresh:
            if isinstance(body, bytes):
                try:
                    return send(kept, method, start, body)
                except ConnectionError:
                    pass  # the daemon had closed it before it saw the request
            kept.close()
        connection = fresh or self._connected()
        try:
            return send(connection, method, start, body)
        except ConnectionError as error:
            connection.close()
            lost(error)
        except BaseException:
            connection.close()
            raise


def _connect_far(connection: socket.socket, path: str) -> None:
    """Connect to a socket whose path is longer than an address may be."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120
    try:
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")  # noqa: PTH119
    finally:
        os.close(directory)
