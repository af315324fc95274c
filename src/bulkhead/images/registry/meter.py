"""Sockets whose bytes are counted, so that no answer of a registry is endless, or endlessly slow.

The limit lies below HTTP: heads, interim answers and trailers are counted as bodies are.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bulkhead.errors import ImageError, Unavailable

HEAD = 1 << 20
"""Bytes that all but an answer's body may have: heads, frames of TLS, chunks' sizes."""
PATIENCE = 60.0
"""Seconds after which an answer must have come at SLOWEST or more, on the average."""
SLOWEST = 1024
"""Bytes per second."""

_thread = threading.local()


class Meter:
    """Counts one exchange. `most`: bytes of the body that is expected."""

    def __init__(self, who: str, most: int) -> None:
        self._who = who
        self._most = most + most // 256 + HEAD  # chunked bodies have some more bytes on the wire
        self._got = 0
        self._began = 0.0

    def count(self, size: int) -> None:
        """More has come. Raises ImageError when it is too much, Unavailable when it comes too slowly."""
        self._began = self._began or time.monotonic()  # what was sent before may have taken long
        self._got += size
        if self._got > self._most:
            raise ImageError(f"{self._who} sends more than the {self._most} bytes that its answer may have")
        waited = time.monotonic() - self._began
        if waited > PATIENCE and self._got < waited * SLOWEST:
            raise Unavailable(
                f"{self._who} sent {self._got} bytes in {waited:.0f} s, which is too slow", hint="try again later"
            )


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Count with `meter` what this thread receives from registries."""
    before = getattr(_thread, "meter", None)
    _thread.meter = meter
    try:
        yield
    finally:
        _thread.meter = before


def _count(size: int) -> int:
    meter: Meter | None = getattr(_thread, "meter", None)
    if meter:
        meter.count(size)
    return size


class PlainSocket(socket.socket):
    """A TCP connection."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        return _count(super().recv_into(*args, **kwargs))


class TlsSocket(ssl.SSLSocket):
    """The same inside TLS, where what comes out of it is counted."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        return _count(super().recv_into(*args, **kwargs))
