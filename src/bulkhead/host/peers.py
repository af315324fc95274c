"""Asking the daemon of another host: JSON over HTTPS, bounded in time and size."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from bulkhead.errors import Unavailable, from_document

SECONDS = 20.0
LINK_SECONDS = 3.0
"""For the other's kernel to answer, however busy its daemon is; what is lost is sent again after a second."""
CONNECT_SECONDS = 10.0
"""For its daemon to take the connection."""
MOST_ANSWER = 16 << 20
LOST_MILLISECONDS = 15_000
"""After which a link that acknowledges nothing is given up, however long an answer may take."""
_ALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3))


def unverified() -> ssl.SSLContext:
    """TLS to somebody who cannot be verified yet: nothing secret may be sent, and nothing believed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def verified(authority: str, *, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS to a host whose certificate the authority (PEM) has signed; with a certificate of one's own to show."""
    context = ssl.create_default_context(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate and key:
        context.load_cert_chain(certificate, key)
    return context


def call(
    address: str,
    method: str,
    path: str,
    *,
    context: ssl.SSLContext,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = SECONDS,
    patience: float | None = None,
) -> object:
    """Ask the daemon at IP:PORT. Raises its own error as it told it, Unavailable where it does not answer.

    `body` goes as JSON; an iterator of bytes is sent as it comes, each portion within `timeout`. The
    answer may take `patience`, where that is given.
    """
    sent = body if body is None or isinstance(body, Iterator) else json.dumps(body)
    with _answer(
        address, method, path, context=context, body=sent, headers=headers, timeout=timeout, patience=patience
    ) as answer:
        data = _read(answer, address)
    try:
        return json.loads(data) if data else None
    except ValueError as error:
        raise Unavailable(f"the host at {address} does not answer as a daemon does") from error


@contextmanager
def stream(
    address: str,
    path: str,
    *,
    context: ssl.SSLContext,
    headers: Mapping[str, str] | None = None,
    timeout: float = SECONDS,
) -> Iterator[http.client.HTTPResponse]:
    """The body of an answer as it comes, to be read like a file; each read within `timeout`. Raises as `call` does."""
    with _answer(address, "GET", path, context=context, body=None, headers=headers, timeout=timeout) as answer:
        yield answer


def watch(connection: socket.socket) -> None:
    """Let a connection end by itself where its link carries nothing any more; a host that is busy acknowledges."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MILLISECONDS)
    for option, value in _ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class _Stopped(Exception):
    """What is sent has ended by an error of its own, which the connection's are not to be taken for."""


@contextmanager
def stopping() -> Iterator[Callable[[Iterator[bytes]], Iterator[bytes]]]:
    """For a body whose sender may raise: what it raises comes out of the block as it is."""

    def guarded(portions: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from portions
        except Exception as error:
            raise _Stopped from error

    try:
        yield guarded
    except _Stopped as stopped:
        raise stopped.__cause__ or stopped from None


def _connected(address: tuple[str, int], context: ssl.SSLContext, timeout: float) -> ssl.SSLSocket:
    with ExitStack() as undo:
        plain = undo.enter_context(socket.create_connection(address, min(timeout, LINK_SECONDS)))
        plain.settimeout(min(timeout, CONNECT_SECONDS))
        made = context.wrap_socket(plain, server_hostname=address[0])
        undo.pop_all()
        return made


@contextmanager
def _answer(
    address: str,
    method: str,
    path: str,
    *,
    context: ssl.SSLContext,
    body: str | Iterator[bytes] | None,
    headers: Mapping[str, str] | None,
    timeout: float,
    patience: float | None = None,
) -> Iterator[http.client.HTTPResponse]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPSConnection(host.strip("[]"), int(port), context=context)
    told = {"content-type": "application/json", "connection": "close", **(headers or {})}
    with closing(connection):
        try:
            connection.sock = _connected((host.strip("[]"), int(port)), context, timeout)
            watch(connection.sock)
            connection.sock.settimeout(timeout)
            connection.request(method, path, body=body, headers=told)
            connection.sock.settimeout(timeout if patience is None else patience)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            hint = "is its daemon there? see: bulkhead cluster status"
            raise Unavailable(f"the host at {address} does not answer: {error}", hint=hint) from error
        if answer.status >= 400:
            raise from_document(_read(answer, address), answer.status)
        yield answer


def _read(answer: http.client.HTTPResponse, address: str) -> bytes:
    try:
        data = answer.read(MOST_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the host at {address} ends in the middle of its answer: {error}") from error
    if len(data) > MOST_ANSWER:
        raise Unavailable(f"the host at {address} answers with more than {MOST_ANSWER} bytes")
    return data
