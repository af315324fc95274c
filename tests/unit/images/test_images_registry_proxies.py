"""Proxies on the way to registries: which one is for which host, tunnels, and where a registry leads beyond them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from bulkhead.errors import BulkheadError, ImageError, Refused, Unavailable
from bulkhead.images.registry import addresses, proxies
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.proxies import Proxies, from_environment
from bulkhead.images.registry.wire import Place
from tests.unit.images.oci import MANIFEST, dump
from tests.unit.images.registry_server import Server, response, serving

TO = "http://proxy.test:3128"


@dataclass
class Forwarder:
    """A proxy that joins every connection with one server, whatever name is asked for."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"


@contextmanager
def forwarding(target: int) -> Iterator[Forwarder]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        found = Forwarder(listener.getsockname()[1])

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        def serve(client: socket.socket) -> None:
            with client, suppress(OSError):
                head = client.recv(65536)
                found.heads.append(head.decode("latin-1"))
                tunnel = head.startswith(b"CONNECT ")
                if tunnel:
                    client.sendall(found.answer)
                if not found.answer.startswith(b"HTTP/1.1 200"):
                    client.sendall(b"" if tunnel else found.answer)
                    return
                with socket.create_connection(("127.0.0.1", target)) as server:
                    if not tunnel:
                        # A request of a proxy names the whole address: the server wants the path alone.
                        method, url, rest = head.split(b" ", 2)
                        path = b"/" + url.split(b"/", 3)[3]
                        server.sendall(
                            b" ".join((method, path, rest.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)))
                        )
                    back = threading.Thread(target=pump, args=(server, client))
                    back.start()
                    pump(client, server)
                    back.join()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield found


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "READ_SECONDS", 2.0)


@pytest.mark.parametrize(
    ("without", "host", "port", "direct"),
    [
        ("", "registry.test", 443, False),
        ("", "localhost", 5000, True),
        ("", "127.0.0.9", 443, True),
        ("", "::1", 443, True),
        ("*", "registry.test", 443, True),
        ("registry.test", "registry.test", 443, True),
        ("registry.test", "a.registry.test", 443, True),
        ("registry.test", "notregistry.test", 443, False),
        (".registry.test", "registry.test", 443, False),
        (".registry.test", "a.registry.test", 443, True),
        ("*.registry.test", "a.registry.test", 443, True),
        ("REGISTRY.test ", "registry.TEST", 443, True),
        ("registry.test:5000", "registry.test", 443, False),
        ("registry.test:5000", "registry.test", 5000, True),
        ("other, 192.0.2.0/24", "192.0.2.7", 443, True),
        ("192.0.2.7", "192.0.2.7", 443, True),
        ("192.0.2.7:5000", "192.0.2.7", 443, False),
        ("2001:db8::/32", "2001:db8::5", 443, True),
        ("[2001:db8::5]:443", "2001:db8::5", 443, True),
        ("2001:db8::5", "2001:db8::5", 443, True),
        ("192.0.2.0/99,nonsense/", "192.0.2.7", 443, False),
    ],
)
def test_who_is_reached_directly(without: str, host: str, port: int, direct: bool) -> None:
    found = Proxies(https=TO, without=without).between("https", host, port)
    assert (found is None) == direct


def test_a_scheme_has_its_own_proxy() -> None:
    said = from_environment({"HTTP_PROXY": "a.test:1", "http_proxy": "b.test:2", "https_proxy": "http://c.test"})
    assert str(said.between("http", "registry.test", 80)) == "a.test:1"
    assert str(said.between("https", "registry.test", 443)) == "c.test:80"
    assert from_environment({"http_proxy": "b.test:2"}).between("https", "registry.test", 443) is None
    assert said.environment() == {"http_proxy": "a.test:1", "https_proxy": "http://c.test"}


@pytest.mark.parametrize("text", ["socks5://me:secret@p.test:1080", "https://me:secret@p.test", "http://me:secret@"])
def test_what_cannot_be_used_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(Refused, match="https_proxy") as caught:
        Proxies(https=text).between("https", "registry.test", 443)
    assert "secret" not in str(caught.value)
    assert caught.value.hint
    assert "secret" not in repr(Proxies(https=text))


@pytest.mark.parametrize("text", ["p.test:port", "http://[::1", "a b.test", "http://p\u00e4.test", "p.test\r\nX: y"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="no address of a proxy"):
        proxies.parse(text, "http_proxy")


def reached(server: Server, port: int, *, login: str = "", name: str = "registry.test") -> Repository:
    """A repository whose host only the proxy can find."""
    both = f"http://{login}127.0.0.1:{port}"
    return Repository(Place(name, insecure=True, proxies=Proxies(both, both)), "app")


def test_a_registry_that_only_the_proxy_finds() -> None:
    with serving() as server, forwarding(server.port) as proxy:
        server.tags["1"] = dump({"schemaVersion": 2, "mediaType": MANIFEST})
        with reached(server, proxy.port, login="me:open%20sesame@") as repository:
            repository.begin()
            assert repository.manifest("1").data == server.tags["1"]
    assert proxy.heads[0].startswith("CONNECT registry.test:443 HTTP/1.1\r\n")
    assert proxy.heads[-1].startswith("GET http://registry.test/v2/app/manifests/1 HTTP/1.1\r\n")
    assert all("Proxy-Authorization: Basic bWU6b3BlbiBzZXNhbWU=" in head for head in proxy.heads)
    # What is for the proxy alone is in no request to the registry through a tunnel.
    assert all("proxy-authorization" not in request.headers for request in server.requests if not request.path)


def test_what_a_proxy_refuses_is_told() -> None:
    with serving() as server, forwarding(server.port) as proxy:
        proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        with reached(server, proxy.port) as repository, pytest.raises(Refused, match="wants to know who asks"):
            repository.begin()
        proxy.answer = b"HTTP/1.1 403 \x1b[2JForbidden\r\nContent-Length: 0\r\n\r\n"
        place = Place("registry.test", proxies=Proxies(https=f"http://127.0.0.1:{proxy.port}"))
        with Repository(place, "app") as repository, pytest.raises(Unavailable) as caught:
            repository.manifest("1")
        assert "403" in str(caught.value)
        assert "\x1b" not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"", b"x" * 100_000, b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_no_proxy_is_told(answer: bytes) -> None:
    with serving() as server, forwarding(server.port) as proxy:
        proxy.answer = answer
        place = Place("registry.test", proxies=Proxies(https=f"http://127.0.0.1:{proxy.port}"))
        with Repository(place, "app") as repository, pytest.raises(Unavailable, match="proxy"):
            repository.manifest("1")


def test_a_proxy_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    place = Place("registry.test", proxies=Proxies(https=f"127.0.0.1:{port}"))
    with Repository(place, "app") as repository, pytest.raises(Unavailable, match=f"proxy 127.0.0.1:{port}"):
        repository.manifest("1")


@pytest.mark.parametrize("inner", ["10.1.2.3:80", "169.254.169.254", "127.0.0.1:8080", "[::ffff:10.0.0.1]"])
def test_beyond_a_proxy_a_registry_leads_no_further_inside(inner: str) -> None:
    """The proxy may reach the provider's own services, which a registry's redirect must not be the way to."""
    with serving() as server, forwarding(server.port) as proxy:
        server.twist = lambda request, answer: (
            response(307, b"", {"Location": f"http://{inner}/secret"}) if "manifests" in request.path else answer
        )
        with reached(server, proxy.port) as repository:
            repository.begin()
            with pytest.raises(ImageError, match="leads to"):
                repository.manifest("1")
    assert not any("secret" in head for head in proxy.heads)


def test_each_answer_of_a_proxy_is_bounded() -> None:
    with serving() as server, forwarding(server.port) as proxy:
        server.twist = lambda _, answer: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n"
        with reached(server, proxy.port) as repository, pytest.raises(BulkheadError):
            repository.begin()
