"""Requests that go on both ways at once: frames to and from a workload.

The frames are those of the agent's protocol. Bytes from the daemon have been checked there and are trusted here.
"""

from __future__ import annotations

from struct import Struct

from bulkhead.client.http import Response, chunk, lost

TYPE_CHECKING = False  # typing is not imported at run time
if TYPE_CHECKING:
    from types import TracebackType

FRAMES = "application/vnd.bulkhead.frames"
SIGNAL, RESIZE, DATA, EOF, CREDIT, EXIT, CLOSE, REQUEST, RESPONSE, PROBLEM = 5, 6, 32, 33, 34, 35, 36, 64, 65, 66
"""Types of frames that a client meets (docs/reference/agent-protocol.md and http-api.md)."""
WINDOW = 1 << 18
"""Bytes that may be under way on a channel of a new stream."""
_FRAME = Struct("<IBBBBI")


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
            self._response.connection.sendall(chunk(frame(kind, payload, channel)))
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
            lost(ConnectionResetError("it ended before the command did"))
        self._buffer += self._response.receive(ready=True)
        return self.waiting()
