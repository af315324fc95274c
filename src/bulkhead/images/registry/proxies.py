"""Proxies between this host and registries: `https_proxy`, `http_proxy` and `no_proxy`, as podman, docker and skopeo
read them (Go's `httpproxy`, whose rules these are).

A proxy is the word of whoever runs the host: which address it has is nobody's concern.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

from bulkhead.errors import Refused, Unavailable
from bulkhead.images.registry.meter import PlainSocket

VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
_MOST_HEAD = 16 << 10
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy that speaks HTTP."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    """The value of Proxy-Authorization; "" for none."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def tunnel(self, connection: socket.socket, host: str, port: int) -> None:
        """Have the proxy join a connection to it with a host. Raises Refused, Unavailable."""
        name = f"[{host}]" if ":" in host else host
        lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}", "User-Agent: bulkhead"]
        lines += [f"Proxy-Authorization: {self.authorization}"] if self.authorization else []
        try:
            connection.sendall("\r\n".join((*lines, "", "")).encode())
            head = _head(connection)
        except OSError as error:
            raise Unavailable(f"the proxy {self} does not answer: {error.strerror or error}", hint=_SEE) from error
        version, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not status.isdigit():
            raise Unavailable(f"the proxy {self} does not speak HTTP", hint=_SEE)
        if status == "407":
            raise self.unknown()
        if status != "200":
            said = "".join(letter if letter.isprintable() else "?" for letter in rest[4:])[:80]
            raise Unavailable(f"the proxy {self} does not reach {host}:{port}: {status} {said}".rstrip(), hint=_SEE)

    def unknown(self) -> Refused:
        """What it means that the proxy wants to know who asks."""
        known = "does not take the name and password given" if self.authorization else "wants to know who asks"
        return Refused(f"the proxy {self} {known}", hint="https_proxy=http://NAME:PASSWORD@HOST:PORT")


_SEE = "check https_proxy, http_proxy and no_proxy of the command line, or of the daemon"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy is for which host."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    without: str = ""
    """no_proxy: hosts that are reached directly."""

    def environment(self) -> dict[str, str]:
        """The same for a program."""
        said = zip(VARIABLES, (self.http, self.https, self.without), strict=True)
        return {name: value for name, value in said if value}

    def between(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy on the way to a host; None: the way is direct. Raises Refused for one that cannot be used."""
        text = self.https if scheme == "https" else self.http
        if not text or _is_own(host) or any(_matches(entry, host, port) for entry in self.without.split(",")):
            return None
        return parse(text, f"{scheme}_proxy")


def from_environment(variables: Mapping[str, str]) -> Proxies:
    """What an environment says; names in capitals and in small letters, as Go has them."""
    said = [(variables.get(name.upper()) or variables.get(name, "")).strip() for name in VARIABLES]
    return Proxies(*said)


def parse(text: str, name: str) -> Proxy:
    """A proxy as a variable has it: http://[NAME:PASSWORD@]HOST[:PORT], or HOST:PORT. Raises Refused.

    What the text says of a password is in no message.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Refused(f"{name} is no address of a proxy", hint="such as http://proxy.example:3128") from None
    if not host or not text.isascii() or not text.isprintable() or " " in text:
        raise Refused(f"{name} is no address of a proxy", hint="such as http://proxy.example:3128")
    if parts.scheme != "http":
        what = f"{name} names a proxy that speaks {parts.scheme[:20]!r}: only HTTP is spoken to proxies"
        raise Refused(what, hint=f"what goes to registries is inside TLS in any case: http://{host}:{port or 3128}")
    login = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host, port or _PORTS["http"], login)


def connect(proxy: Proxy, *, seconds: float) -> socket.socket:
    """A connection to a proxy. Raises Unavailable."""
    try:
        found = socket.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Unavailable(f"the proxy {proxy} cannot be found: {why}", hint=_SEE) from error
    why = "it has no address"
    for family, kind, protocol, _, address in found:
        with ExitStack() as stack:
            connection = PlainSocket(family, kind, protocol)
            stack.callback(connection.close)
            connection.settimeout(seconds)
            try:
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                why = error.strerror or str(error)
                continue
            stack.pop_all()
            return connection
    raise Unavailable(f"the proxy {proxy} does not answer: {why}", hint=_SEE)


def _head(connection: socket.socket) -> bytes:
    """The head of an answer, no more of what follows than the answer's own. Raises OSError, Unavailable."""
    head = b""
    while b"\r\n\r\n" not in head:
        # Byte by byte would cost a call each; nothing comes after the head before this side has spoken.
        chunk = connection.recv(_MOST_HEAD - len(head))
        if not chunk:
            raise Unavailable("a proxy ended the connection, or its answer has no end", hint=_SEE)
        head += chunk
    return head


def is_address(host: str) -> bool:
    """Whether a host is an address in digits."""
    return _address(host) is not None


def _is_own(host: str) -> bool:
    """Whether a host is this one: no proxy is ever asked for it."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether a part of no_proxy names a host: "*", an address, a network, a domain (with what is below it), ".domain"
    (what is below it alone), each but the first two with a port where it is for that port alone.
    """
    entry, host = entry.strip().lower(), host.lower().rstrip(".")
    if not entry or entry == "*":
        return bool(entry)
    address = _address(host)
    if "/" in entry:
        with suppress(ValueError):
            return address is not None and address in ip_network(entry, strict=False)
    name, wanted = _cut(entry)
    if wanted is not None and wanted != port:
        return False
    if (known := _address(name)) is not None:
        return address == known
    name = name.removeprefix("*") if name.startswith("*.") else name
    return host.endswith(name if name.startswith(".") else f".{name}") or host == name


def _cut(entry: str) -> tuple[str, int | None]:
    """A host and its port, where there is one."""
    if _address(entry) is not None:
        return entry, None
    name, colon, port = entry.rpartition(":")
    if not colon or not port.isdigit():
        return entry.strip("[]"), None
    return name.strip("[]"), int(port)
