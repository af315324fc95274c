"""Ports of the host: reserving one, and finding out who has it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

from bulkhead.errors import HostError

_LISTEN = "0A"


class PortTaken(HostError):
    """Somebody else has the port."""


def reserve(protocol: str, ip: str, port: int) -> socket.socket:
    """Bind a port, without listening: nobody else gets it while the socket is open. The caller closes it.

    Raises PortTaken, or HostError for an address that the host does not have.
    """
    version = ipaddress.ip_address(ip).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    try:
        return _bind(family, kind, ip, port, reuse=False)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and protocol == "tcp":
            try:  # connections of a program that has ended linger on; they are no reason to refuse
                return _bind(family, kind, ip, port, reuse=True)
            except OSError:
                pass
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {port}/{protocol} of {ip} is taken") from error
        reason = "it is not an address of this host" if error.errno == errno.EADDRNOTAVAIL else error.strerror
        raise HostError(f"port {port}/{protocol} of {ip} cannot be used: {reason}") from error


def _bind(family: int, kind: int, ip: str, port: int, *, reuse: bool) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        made.bind((ip, port))
    except OSError:
        made.close()
        raise
    return made


def holder(protocol: str, port: int) -> str:
    """Who has a port, in words ("nginx (pid 12)"), "" when that cannot be found out. Slow: for errors alone."""
    inodes = {inode for version in ("", "6") for inode in _inodes(Path(f"/proc/net/{protocol}{version}"), port)}
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(str(entry.readlink()) in wanted for entry in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # it has ended meanwhile, or closed the descriptor
    return ""


def _inodes(table: Path, port: int) -> list[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    found = [row for row in rows if int(row[1].rpartition(":")[2], 16) == port]
    listening = [row for row in found if row[3] == _LISTEN]
    return [row[9] for row in listening or found]
