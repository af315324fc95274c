"""HTTP/1.1 as the daemon speaks it: requests, and answers that are read as they come."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping

TYPE_CHECKING = False  # typing is not imported at run time
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn

    from bulkhead.errors import BulkheadError

_READ = 1 << 17
_QUOTED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Query = Mapping[str, "str | int | float | bool | list[str] | None"]


def quote(text: str) -> str:
    """Text as it stands in a path or a query (RFC 3986), also of names that are not UTF-8."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _QUOTED else f"%{byte:02X}" for byte in raw)


def target(path: str, query: Query | None) -> str:
    """Path and query; values that are None are left out, a list is repeated."""
    pairs = []
    for key, value in (query or {}).items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                pairs.append(f"{key}={quote(str(item).lower() if isinstance(item, bool) else str(item))}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def head(method: str, where: str, kind: str, length: str, more: str = "") -> bytes:
    """The head of a request; `kind` is the body's content type, `length` the header that tells where it ends;
    `more`: further headers, each with its line's end."""
    content = f"content-type: {kind}\r\n" if kind else ""
    return f"{method} {where} HTTP/1.1\r\nhost: bulkhead\r\n{more}{content}{length}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def send(connection: socket.socket, method: str, start: bytes, body: bytes | Iterable[bytes]) -> Response:
    """Send a request, whole or in chunks; the answer, as `answered` gives it."""
    if isinstance(body, bytes):
        connection.sendall(start + body)
    else:
        connection.sendall(start)
        try:
            for portion in body:
                if portion:
                    connection.sendall(chunk(portion))
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # The daemon refused in the middle; its answer says why.
            pass
    return answered(connection, method)


def answered(connection: socket.socket, method: str) -> Response:
    """The answer, once its head has come; as an exception where it is a problem."""
    response = Response(connection, head_only=method == "HEAD")
    if response.status >= 400:
        with response:
            raise problem(response.read(), response.status)
    return response


def lost(error: Exception) -> NoReturn:
    """Raise Unavailable: the connection has gone."""
    from bulkhead.errors import Unavailable

    raise Unavailable(
        f"the connection to the daemon was lost: {error}", hint="bulkhead ps shows what runs; daemon.log says why"
    ) from error


def problem(body: bytes, status: int = 500) -> BulkheadError:
    """The error that a problem document tells of."""
    from bulkhead.errors import from_document

    return from_document(body, status)


class Response:
    """An answer: `status`, and the body as it comes."""

    def __init__(self, connection: socket.socket, *, head_only: bool = False) -> None:
        self.connection = connection
        self._detached = False
        self._buffer = bytearray()
        head = self._read_head()
        self.status = int(head[0].split(b" ", 2)[1])
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        self._chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        self._left = 0 if self._chunked else int(headers.get(b"content-length", b"0"))
        self._closes = headers.get(b"connection", b"").lower() == b"close"
        self.ended = head_only or self.status in (204, 304) or (not self._chunked and self._left == 0)

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, unless it was detached."""
        if not self._detached:
            self.connection.close()

    def detach(self) -> socket.socket | None:
        """The connection, for the next request; None where it cannot be used again."""
        if not self.ended or self._closes or self._buffer:
            return None
        self._detached = True
        return self.connection

    def read(self) -> bytes:
        """All that is left of the body."""
        return b"".join(self.portions())

    def portions(self) -> Iterator[bytes]:
        """The body as it comes."""
        while not self.ended:
            if data := self.available() or (b"" if self.ended else self.receive()):
                yield data

    def lines(self) -> Iterator[bytes]:
        """The body's lines, without their ends."""
        rest = b""
        for data in self.portions():
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def json_lines(self) -> Iterator[Any]:
        """NDJSON, line by line. Raises what a `{"problem": ...}` line tells of."""
        for line in self.lines():
            item = json.loads(line)
            if isinstance(item, dict) and "problem" in item:
                raise problem(json.dumps(item["problem"]).encode())
            yield item

    def receive(self, *, ready: bool = False) -> bytes:
        """Read from the connection once; what that brings of the body, maybe nothing yet.

        `ready`: poll says that something is there, which over TLS need not be any of the body.
        """
        try:
            data = _received(self.connection, ready=ready)
            if data is None:
                return b""
        except ConnectionError as error:
            lost(error)
        if not data:
            lost(ConnectionResetError("it ended in the middle of an answer"))
        self._buffer += data
        return self.available()

    def available(self) -> bytes:
        """What has been received of the body and not been given out. Sets `ended` at its end."""
        if not self._chunked:
            data = bytes(self._buffer[: self._left])
            del self._buffer[: len(data)]
            self._left -= len(data)
            self.ended = self._left == 0
            return data
        parts = []
        while not self.ended:
            if self._left > 2:
                part = bytes(self._buffer[: self._left - 2])
                del self._buffer[: len(part)]
                self._left -= len(part)
                parts.append(part)
            if 0 < self._left <= 2 and len(self._buffer) >= self._left:
                del self._buffer[: self._left]
                self._left = 0
            if self._left or not self._nextchunk():
                break
        return b"".join(parts)

    def _nextchunk(self) -> bool:
        """Read a chunk's size line: `_left` becomes its length with the line's end after it."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        size = int(bytes(self._buffer[:end]).partition(b";")[0], 16)
        if size == 0:
            if len(self._buffer) < end + 4:
                return False
            del self._buffer[: end + 4]
            self.ended = True
            return False
        del self._buffer[: end + 2]
        self._left = size + 2
        return True

    def _read_head(self) -> list[bytes]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            data = self.connection.recv(_READ)
            if not data:
                raise ConnectionResetError("it was closed without an answer")
            self._buffer += data
        head = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        return head


def _received(connection: socket.socket, *, ready: bool) -> bytes | None:
    """What is there; None where that is nothing yet. All that TLS has decrypted: poll knows nothing of it."""
    pending = getattr(connection, "pending", None)
    if pending is None:
        return connection.recv(_READ)
    import ssl

    if ready:
        connection.settimeout(0.0)
    try:
        data = connection.recv(_READ)
        while data and pending():
            data += connection.recv(pending())
    except ssl.SSLWantReadError:
        return None
    finally:
        connection.settimeout(None)
    return data
