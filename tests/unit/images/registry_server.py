"""A registry on a loopback port that answers from dicts of blobs and manifests, or with what a test makes of it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.conf import Source
from bulkhead.images.registry.wire import Place
from tests.unit.images.oci import MANIFEST, Layout, digest

Twist = Callable[["Request", bytes], bytes]
"""What becomes of an honest answer, head and body."""


@dataclass(frozen=True)
class Request:
    """A request's head."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Server:
    """The registry. `requests` has all that came, in order."""

    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, bytes] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    twist: Twist = lambda _, answer: answer
    sent: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, layout: Layout, tag: str, kind: str = MANIFEST) -> str:
        """Have the last image of a layout; its digest."""
        self.blobs.update(
            {f"sha256:{name.rpartition('/')[2]}": data for name, data in layout.files.items() if "blobs" in name}
        )
        found = str(layout.entries[-1]["digest"])
        self.tags[tag] = self.blobs[found]
        self.kinds[digest(self.tags[tag])] = kind
        return found

    def repository(self, path: str = "app") -> Repository:
        return Repository(Place(self.host, insecure=True), path)

    def source(self, tag: str = "1", path: str = "app") -> Source:
        return Source(Place(self.host, insecure=True), path, tag, f"{self.host}/{path}:{tag}")

    def answer(self, request: Request) -> bytes:
        """The honest answer."""
        if request.path == "/v2/":
            return response(200, b"{}")
        found = re.fullmatch(r"/v2/[^?]+/(manifests|blobs)/([^?]+)", request.path)
        if not found:
            return response(404, b"")
        data = self.tags.get(found[2]) or self.blobs.get(found[2])
        if data is None:
            return response(404, b'{"errors": [{"code": "UNKNOWN", "message": "\\u001b[2Jno such thing"}]}')
        headers = {}
        if found[1] == "manifests":
            headers = {"Content-Type": self.kinds.get(digest(data), MANIFEST), "Docker-Content-Digest": digest(data)}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", "")):
            start, end = int(wanted[1]), int(wanted[2])
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            return response(206, data[start : end + 1], headers)
        return response(200, data, headers)


def response(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} x", *(f"{key}: {value}" for key, value in (headers or {}).items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


@contextmanager
def serving(answer: Callable[[Server, Request], bytes | Iterator[bytes]] | None = None) -> Iterator[Server]:
    """Serve until the end. `answer` may send what it likes, in pieces."""
    server, stopping = Server(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]
        listener.settimeout(0.1)
        threads: list[threading.Thread] = []

        def accept() -> None:
            while not stopping.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=_serve, args=(server, connection, answer, stopping)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server
        finally:
            stopping.set()
            acceptor.join()
            for thread in threads:
                thread.join()


def _serve(
    server: Server,
    connection: socket.socket,
    answer: Callable[[Server, Request], bytes | Iterator[bytes]] | None,
    stopping: threading.Event,
) -> None:
    connection.settimeout(0.2)
    with connection, suppress(OSError):
        buffer = b""
        while not stopping.is_set():
            try:
                data = connection.recv(65536)
            except TimeoutError:
                continue
            if not data or data.startswith(b"\x16"):  # the end, or TLS
                return
            buffer += data
            while b"\r\n\r\n" in buffer:
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
                request = Request(method, path, headers)
                server.requests.append(request)
                told = answer(server, request) if answer else server.twist(request, server.answer(request))
                for piece in [told] if isinstance(told, bytes) else told:
                    if stopping.is_set():
                        return
                    connection.sendall(piece)
                    server.sent += len(piece)
