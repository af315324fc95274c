"""HTTP to one registry: connections that are kept, redirects that are followed where they may lead, bounded answers."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from bulkhead.errors import BulkheadError, ImageError, Refused, Unavailable
from bulkhead.images.registry import addresses
from bulkhead.images.registry.addresses import Guard
from bulkhead.images.registry.meter import Meter, TlsSocket, metered
from bulkhead.images.registry.proxies import Proxies, Proxy

# That certificates are not checked is what a place with `insecure` asks for.
urllib3.disable_warnings(InsecureRequestWarning)
MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECTIONS = 8
_CHUNK = 1 << 18
_URL = 8192
_AGENT = "bulkhead"


@dataclass(frozen=True, slots=True)
class Place:
    """A registry: where it listens and how it is trusted."""

    host: str
    """Such as "localhost:5000"; a port that is not given is that of the scheme."""
    insecure: bool = False
    """Certificates are not checked, and where TLS is not spoken HTTP is."""
    certificates: tuple[Path, ...] = ()
    """Directories with *.crt (authorities) and NAME.cert with NAME.key (the client's own)."""
    trusted: frozenset[tuple[str, int]] = field(default=frozenset())
    """Other places, by host and port, that it may lead to wherever they are."""
    proxies: Proxies = field(default=Proxies())
    """On the way to it, and to where it leads."""
    outward: bool = False
    """Whether it has to be at a public address, or trusted: a tenant has named it."""


class Answer:
    """One answer. The body is read as it comes, by the thread that asked."""

    def __init__(self, response: urllib3.BaseHTTPResponse, meter: Meter, url: str) -> None:
        self.status = response.status
        self.url = url
        """Where it came from in the end."""
        self._response = response
        self._meter = meter

    def header(self, name: str) -> str:
        """A header, "" where there is none; at most 4 KiB of it."""
        return (self._response.headers.get(name) or "")[:4096]

    def headers(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value[:4096] for value in self._response.headers.getlist(name)][:8]

    def chunks(self) -> Iterator[bytes]:
        """The body. Raises Unavailable when the connection breaks, ImageError for more than was to be expected."""
        while True:
            with metered(self._meter), _told(self.url):
                data = self._response.read(_CHUNK)
            if not data:
                return
            yield data

    def read(self, most: int, what: str) -> bytes:
        """All of the body. Raises ImageError when it is longer than `most`."""
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > most:
                raise ImageError(f"{what} is longer than {most} bytes")
        return bytes(data)


class Wire:
    """Talks to one registry. Safe for threads; close it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.scheme = "https"
        self._context = _context(place)
        self._guards: dict[str, Guard] = {}
        self._pools: dict[tuple[str, str, int], urllib3.HTTPConnectionPool] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.close()

    @property
    def root(self) -> str:
        """Scheme and host, without a slash at the end."""
        return f"{self.scheme}://{self.place.host}"

    def is_home(self, url: str) -> bool:
        """Whether a URL is the registry's own: credentials go nowhere else."""
        return _origin(urlsplit(url)) == _origin(urlsplit(self.root))

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        body: bytes | Iterable[bytes] | None = None,
        most: int = 0,
    ) -> Iterator[Answer]:
        """One request; redirects of GET and HEAD are followed. `most`: bytes that the answer's body may have.

        `authorization` goes to where `url` is, not to where a redirect leads. Raises Unavailable, ImageError, Refused
        (certificates).
        """
        meter, first = Meter(self.place.host, most), _origin(urlsplit(url))
        for _ in range(MOST_REDIRECTS + 1):
            with ExitStack() as stack:
                sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
                if authorization and _origin(urlsplit(url)) == first:
                    sent["Authorization"] = authorization
                response = self._send(method, url, sent, body, meter)
                stack.callback(response.close)
                if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                    yield Answer(response, meter, url)
                    # What has been read to its end can carry the next request; everything else is closed.
                    if _is_over(response):
                        stack.pop_all()
                        response.release_conn()
                    return
                url = self.target(url, response.headers.get("Location") or "")
        raise ImageError(f"{self.place.host} redirects more than {MOST_REDIRECTS} times")

    def target(self, base: str, location: str) -> str:
        """The URL that an answer to `base` names. Raises ImageError where a registry may not lead there."""
        if not location or len(location) > _URL or not location.isprintable() or " " in location:
            raise ImageError(f"{self.place.host} redirects to {location[:80]!r}, which is no address")
        try:
            url = urljoin(base, location)
            parts = urlsplit(url)
            _origin(parts)
        except ValueError as error:
            raise ImageError(f"{self.place.host} redirects to {location[:80]!r}, which is no address") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ImageError(f"{self.place.host} redirects to {location[:80]!r}, which is no web address")
        if parts.scheme == "http" and self.scheme == "https" and not self.place.insecure:
            raise ImageError(f"{self.place.host} redirects from https to {parts.scheme}://{parts.netloc}")
        return url

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None, meter: Meter
    ) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        with metered(meter), _told(url):
            proxy = self.place.proxies.between(*_origin(parts))
            if proxy and parts.scheme == "http":
                path = f"http://{parts.netloc}{path}"
                headers = {**headers, "Proxy-Authorization": proxy.authorization} if proxy.authorization else headers
            response = self._pool(_origin(parts)).urlopen(
                method,
                path,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=addresses.CONNECT_SECONDS, read=addresses.READ_SECONDS),
            )
            if proxy and response.status == 407:
                response.close()
                raise proxy.unknown()
            return response

    def _pool(self, origin: tuple[str, str, int]) -> urllib3.HTTPConnectionPool:
        with self._lock:
            pool = self._pools.get(origin)
            if pool is None:
                pool = self._pools[origin] = self._make_pool(*origin)
            return pool

    def _make_pool(self, scheme: str, host: str, port: int) -> urllib3.HTTPConnectionPool:
        home, place = _origin(urlsplit(self.root))[1:], self.place
        guard = self._guards.setdefault(self.scheme, Guard(home, place.trusted, outward=place.outward))
        ways = {"guard": guard, "via": self.place.proxies.between(scheme, host, port)}
        if scheme == "http":
            plain = urllib3.HTTPConnectionPool(host, port, maxsize=_CONNECTIONS)
            plain.ConnectionCls = type("Plain", (_Plain,), ways)
            return plain
        # A place that the registry leads to has no business with the client's certificate.
        context = self._context if (host, port) == _origin(urlsplit(self.root))[1:] else _context(self.place, own=False)
        secure = urllib3.HTTPSConnectionPool(host, port, maxsize=_CONNECTIONS, ssl_context=context)
        secure.ConnectionCls = type("Secure", (_Secure,), ways)
        return secure


class _Plain(HTTPConnection):
    guard: Guard
    via: Proxy | None

    def _new_conn(self) -> socket.socket:
        host, port = self.host, self.port or 80
        return self.guard.connect_by(self.via, host, port) if self.via else self.guard.connect(host, port)


class _Secure(HTTPSConnection):
    guard: Guard
    via: Proxy | None

    def _new_conn(self) -> socket.socket:
        host, port = self.host, self.port or 443
        if self.via is None:
            return self.guard.connect(host, port)
        with ExitStack() as stack:
            connection = self.guard.connect_by(self.via, host, port)
            stack.callback(connection.close)
            self.via.tunnel(connection, host, port)
            stack.pop_all()
            return connection


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Raise what went wrong underneath in the project's words."""
    host = urlsplit(url).netloc
    try:
        yield
    except BulkheadError:
        raise
    except (HTTPError, OSError, ValueError) as error:
        text = str(error.args[-1] if error.args else error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            reason = text.partition("CERTIFICATE_VERIFY_FAILED]")[2].partition("(_ssl")[0].strip() or text[:200]
            raise Refused(
                f"the certificate of {host} is not trusted: {reason}",
                hint=f"put its authority into /etc/containers/certs.d/{host}/ca.crt, or --tls-verify=false",
            ) from error
        if any(word in text for word in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")):
            raise Refused(
                f"{host} does not speak TLS", hint="--tls-verify=false, or insecure = true in registries.conf"
            ) from error
        raise Unavailable(f"the connection to {host} failed: {text[:200]}", hint="try again") from error


def _is_over(response: urllib3.BaseHTTPResponse) -> bool:
    inner = getattr(response, "_fp", None)
    return bool(inner is None or inner.closed)


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _context(place: Place, *, own: bool = True) -> ssl.SSLContext:
    """How certificates are checked. Raises Refused for files that cannot be read."""
    context = ssl.create_default_context()
    context.sslsocket_class = TlsSocket
    if place.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in place.certificates:
        for name in sorted(os.listdir(directory)) if directory.is_dir() else ():  # noqa: PTH208
            file = directory / name
            try:
                if name.endswith(".crt"):
                    context.load_verify_locations(file)
                elif name.endswith(".cert") and own:
                    context.load_cert_chain(file, file.with_suffix(".key"))
            except (OSError, ssl.SSLError) as error:
                raise Refused(f"certificate {file} cannot be used: {error}", hint="it must be PEM") from error
    return context
