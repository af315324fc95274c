"""A daemon on another host: its address, how to reach it, and who asks. Loaded only where one is named."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from bulkhead.errors import Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

PORT = 8443
CONNECT_SECONDS = 20.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Remote:
    """Where a daemon listens over TCP. Raises Refused for an address that is none."""

    def __init__(self, url: str, *, token: str, ca: str | None, cert: str | None, key: str | None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or PORT
        except ValueError as error:
            raise Refused(f"--url {url!r}: {error}") from error
        if parts.scheme not in ("https", "tcp", "http") or not parts.hostname or parts.path not in ("", "/"):
            raise Refused(f"--url {url!r} is not https://HOST[:PORT] or unix:///PATH", hint="see docs/reference/cli.md")
        if parts.username or parts.password:
            raise Refused("--url holds a name or a password", hint="a token goes into BULKHEAD_TOKEN_FILE")
        self.host, self.port, self.plain = parts.hostname, port, parts.scheme == "http"
        if self.plain and self.host not in LOOPBACK:
            raise Refused(f"--url {url!r}: a token would go over the wire in clear", hint="use https")
        if bool(cert) is not bool(key):
            raise Refused("--tlscert and --tlskey belong together")
        self.where = f"{parts.scheme}://{parts.netloc}"
        self._ca, self._cert, self._key = ca, cert, key
        self.headers = f"authorization: Bearer {token}\r\n" if token else ""
        if any(ord(letter) < 33 or ord(letter) > 126 for letter in token):
            raise Refused("the token holds what no token does", hint="is there more in its file?")

    def connect(self) -> socket.socket:
        """A connection, over TLS but on loopback's plain one. Raises Unavailable, Refused."""
        import ssl

        try:
            connection = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        except OSError as error:
            hint = "is the daemon there, and does its configuration listen?"
            raise Unavailable(f"no daemon answers at {self.where}: {error.strerror or error}", hint=hint) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if not self.plain:
                connection = self._context().wrap_socket(connection, server_hostname=self.host)
            connection.settimeout(None)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            what = f"the certificate of {self.where} is not to be trusted: {error.verify_message}"
            raise Refused(what, hint="name its CA by --tlscacert") from error
        except OSError as error:
            connection.close()
            raise Unavailable(f"{self.where} does not speak TLS as it should: {error}") from error
        return connection

    def _context(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context(cafile=self._file("--tlscacert", self._ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._cert:
            try:
                context.load_cert_chain(self._cert, self._key)
            except OSError as error:
                raise Refused(f"--tlscert {self._cert}, --tlskey {self._key} cannot be used: {error}") from error
        return context

    @staticmethod
    def _file(flag: str, path: str | None) -> str | None:
        if path and not os.access(path, os.R_OK):
            raise Refused(f"{flag} {path} cannot be read")
        return path


def find(url: str, options: dict[str, str]) -> Remote | str:
    """What an address means: a daemon over TCP, or a unix socket's path. Raises Refused."""
    if url.startswith("unix://"):
        return url.removeprefix("unix://")
    return Remote(
        url,
        token=_token(),
        ca=options.get("--tlscacert") or os.environ.get("BULKHEAD_TLSCACERT"),
        cert=options.get("--tlscert") or os.environ.get("BULKHEAD_TLSCERT"),
        key=options.get("--tlskey") or os.environ.get("BULKHEAD_TLSKEY"),
    )


def _token() -> str:
    file = os.environ.get("BULKHEAD_TOKEN_FILE", "")
    if not file:
        return os.environ.get("BULKHEAD_TOKEN", "")
    try:
        with open(file, encoding="ascii") as opened:  # noqa: PTH123
            return opened.read(4096).strip()
    except (OSError, ValueError) as error:
        raise Refused(f"BULKHEAD_TOKEN_FILE {file} cannot be read: {error}") from error
