"""A daemon's unix socket on a TCP port of loopback, for clients that know nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def bridged(path: Path) -> Iterator[str]:
    """The daemon's address as a URL, as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, path), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _accept(listener: socket.socket, path: Path) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            daemon = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            daemon.connect(str(path))
            threading.Thread(target=_serve, args=(client, daemon), daemon=True).start()


def _serve(client: socket.socket, daemon: socket.socket) -> None:
    with client, daemon:
        back = threading.Thread(target=_move, args=(daemon, client), daemon=True)
        back.start()
        _move(client, daemon)
        back.join()


def _move(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
