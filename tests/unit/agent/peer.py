"""The other end of a session: an agent that says what a test tells it to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from bulkhead.agent import frames
from bulkhead.agent.frames import TO_AGENT, Decoder, Frame
from bulkhead.agent.session import Session

Answer = Callable[["Peer", Frame], None]


class Peer:
    """Reads frames in a thread and hands each to `answer`."""

    def __init__(self, answer: Answer) -> None:
        ours, theirs = socket.socketpair()
        self.session = Session(theirs)
        self.received: list[Frame] = []
        self._socket, self._answer = ours, answer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def send(self, *sent: Frame) -> None:
        """Send frames."""
        self._socket.sendall(b"".join(map(frames.encode, sent)))

    def send_bytes(self, data: bytes) -> None:
        """Send what need not be a frame."""
        self._socket.sendall(data)

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End both ends."""
        self.session.close()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        decoder = Decoder(TO_AGENT)
        with suppress(OSError):
            while data := self._socket.recv(1 << 16):
                for frame in decoder.feed(data):
                    self.received.append(frame)
                    self._answer(self, frame)
