"""A port of the loopback that leads to the daemon's unix socket, for programs of some users alone.

Whoever reaches the socket is root on this host; a port has no owner and no mode. But the kernel knows whose each end of
a connection within this host is, and tells in /proc/net/tcp.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bulkhead.cli.output import talk
from bulkhead.errors import Conflict, HostError, Refused

LOOPBACK = "127.0.0.1"
CONNECTIONS = Path("/proc/net/tcp")
MOST = 128
"""Connections at the same time; more wait."""
PORTION = 1 << 16


@contextmanager
def listening(port: int | None, *, usual: int) -> Iterator[socket.socket]:
    """A listening socket at `port`; None: at the usual one, or a free one. Raises Conflict, Refused."""
    listener = _listen(usual if port is None else port)
    if listener is None and port is None:
        listener = _listen(0)
    if listener is None:
        raise Conflict(f"port {port} is taken", hint="--port names another one, 0 a free one")
    with listener:
        yield listener


def _listen(port: int) -> socket.socket | None:
    if not 0 <= port < 65536:
        raise Refused(f"port {port} does not exist", hint="ports are 0 to 65535")
    try:
        return socket.create_server((LOOPBACK, port), backlog=MOST)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise HostError(f"cannot listen at {LOOPBACK}:{port}: {error.strerror}") from error


def forward(listener: socket.socket, path: str, *, allowed: Collection[int]) -> None:
    """Pass connections of the users `allowed` on to the unix socket `path`, until the listener is closed."""
    free = threading.BoundedSemaphore(MOST)
    while True:
        free.acquire()
        try:
            client, (_, port) = listener.accept()
        except OSError:
            return
        owner = owner_of(port, listener.getsockname()[1])
        if owner not in allowed:
            talk(f"refused a connection of {'nobody that is known' if owner is None else f'the user {owner}'}")
            client.close()
            free.release()
            continue
        threading.Thread(target=_serve, args=(client, path, free), daemon=True).start()


def owner_of(port: int, server: int) -> int | None:
    """Uid of whoever has the client's end of the connection from `port` to `server` on the loopback; None: gone."""
    ends = (_end(port), _end(server))
    with CONNECTIONS.open(encoding="ascii") as rows:
        for row in rows:
            fields = row.split()
            if (fields[1], fields[2]) == ends:
                return int(fields[7])
    return None


def _end(port: int) -> str:
    """Address and port as the kernel writes them: the address as a number of this machine's byte order."""
    number = int.from_bytes(socket.inet_aton(LOOPBACK), sys.byteorder)
    return f"{number:08X}:{port:04X}"


def _serve(client: socket.socket, path: str, free: threading.BoundedSemaphore) -> None:
    with client, socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:
            pass
        else:
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()
    free.release()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(PORTION):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
