"""The API's client: HTTP/1.1 over the daemon's unix socket, with the standard library alone and little of that.

The command line starts a process for every command, so the import counts: http.client brings the email package and
takes longer than a whole `exec` does. What is spoken here is what the daemon speaks: Content-Length and chunked
bodies, one connection that is kept, no redirects, no compression. Bytes from the daemon are trusted to be its own.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from struct import Struct

TYPE_CHECKING = False  # typing is not imported at run time
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn

    from bulkhead.errors import BulkheadError

FRAMES = "application/vnd.bulkhead.frames"
SIGNAL, RESIZE, DATA, EOF, CREDIT, EXIT, CLOSE, REQUEST, RESPONSE, PROBLEM = 5, 6, 32, 33, 34, 35, 36, 64, 65, 66
"""Types of frames that a client meets (docs/reference/agent-protocol.md and http-api.md)."""
WINDOW = 1 << 18
"""Bytes that may be under way on a channel of a new stream."""
MAX_PATH = 107
"""Bytes of a unix socket's address, without the NUL at its end."""
_FRAME = Struct("<IBBBBI")
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


class Client:
    """Talks to one daemon. Every method raises the error tree's errors, as the daemon told them."""

    def __init__(self, path: str) -> None:
        self.path = path
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
            body = _chunk(frame(REQUEST, payload))
            connection.sendall(_head("POST", path, FRAMES, "transfer-encoding: chunked") + body)
            return Duplex(_answered(connection, "POST"))
        except ConnectionError as error:
            connection.close()
            _lost(error)
        except BaseException:
            connection.close()
            raise

    def _connected(self) -> socket.socket:
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
        head = _head(method, target(path, query), kind, length)
        if kept and not fresh:
            if isinstance(body, bytes):
                try:
                    return _send(kept, method, head, body)
                except ConnectionError:
                    pass  # the daemon had closed it before it saw the request
            kept.close()
        connection = fresh or self._connected()
        try:
            return _send(connection, method, head, body)
        except ConnectionError as error:
            connection.close()
            _lost(error)
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


def _head(method: str, where: str, kind: str, length: str) -> bytes:
    content = f"content-type: {kind}\r\n" if kind else ""
    return f"{method} {where} HTTP/1.1\r\nhost: bulkhead\r\n{content}{length}\r\n\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _send(connection: socket.socket, method: str, head: bytes, body: bytes | Iterable[bytes]) -> Response:
    if isinstance(body, bytes):
        connection.sendall(head + body)
    else:
        connection.sendall(head)
        try:
            for portion in body:
                if portion:
                    connection.sendall(_chunk(portion))
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # The daemon refused in the middle; its answer says why.
            pass
    return _answered(connection, method)


def _answered(connection: socket.socket, method: str) -> Response:
    """The answer, once its head has come; as an exception where it is a problem."""
    response = Response(connection, head_only=method == "HEAD")
    if response.status >= 400:
        with response:
            raise problem(response.read(), response.status)
    return response


def _lost(error: Exception) -> NoReturn:
    from bulkhead.errors import Unavailable

    raise Unavailable(
        f"the connection to the daemon was lost: {error}", hint="bulkhead ps shows what runs; daemon.log says why"
    ) from error


def problem(body: bytes, status: int = 500) -> BulkheadError:
    """The error that a problem document (RFC 9457) tells of."""
    from bulkhead.errors import ERRORS, BulkheadError, Problem, Refused

    try:
        told = json.loads(body)
        kind = ERRORS.get(told["type"], BulkheadError)
        items = [Problem(item["what"], item.get("hint", "")) for item in told["problems"]]
        if issubclass(kind, Refused):
            return kind(items)
        return kind(told["detail"], hint=told.get("hint", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return BulkheadError(f"the daemon answered with status {status}: {body[:200].decode(errors='replace')}")


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

    def receive(self) -> bytes:
        """Read from the connection once; what that brings of the body, maybe nothing yet."""
        try:
            data = self.connection.recv(_READ)
        except ConnectionError as error:
            _lost(error)
        if not data:
            _lost(ConnectionResetError("it ended in the middle of an answer"))
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
            if self._left or not self._next_chunk():
                break
        return b"".join(parts)

    def _next_chunk(self) -> bool:
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


def frame(kind: int, payload: bytes = b"", channel: int = 0) -> bytes:
    """A frame of the stream that a request is."""
    return _FRAME.pack(len(payload), 1, kind, channel, 0, 1) + payload


class Duplex:
    """Frames to and from a workload. Reading and writing may alternate as poll says."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._buffer = bytearray(response.available())

    def __enter__(self) -> Duplex:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        """For poll: readable when there is something for `receive`."""
        return self._response.connection.fileno()

    def close(self) -> None:
        """Close the connection: attached streams detach."""
        self._response.close()

    def send(self, kind: int, payload: bytes = b"", channel: int = 0) -> None:
        """Send a frame. An end of the connection shows in `receive`."""
        try:
            self._response.connection.sendall(_chunk(frame(kind, payload, channel)))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def waiting(self) -> list[tuple[int, int, bytes]]:
        """Frames that have come already: (type, channel, payload)."""
        frames, start, buffer = [], 0, self._buffer
        while len(buffer) - start >= _FRAME.size:
            length, _, kind, channel, _, _ = _FRAME.unpack_from(buffer, start)
            end = start + _FRAME.size + length
            if len(buffer) < end:
                break
            frames.append((kind, channel, bytes(buffer[start + _FRAME.size : end])))
            start = end
        del buffer[:start]
        return frames

    def receive(self) -> list[tuple[int, int, bytes]]:
        """Read once; frames that are whole now. Raises Unavailable when the connection is lost."""
        if self._response.ended:
            _lost(ConnectionResetError("it ended before the command did"))
        self._buffer += self._response.receive()
        return self.waiting()
