"""Pulls from a registry that is honest, broken, or hostile."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead.errors import BulkheadError, Forbidden, ImageError, NotFound, Unavailable
from bulkhead.events import Step, quiet
from bulkhead.images import Bounds, Image, ImageStore
from bulkhead.images.exchange import Exchange
from bulkhead.images.registry import addresses, meter
from bulkhead.images.registry.addresses import Reach, reach
from bulkhead.images.registry.auth import Credentials
from bulkhead.images.registry.client import Repository
from bulkhead.images.registry.wire import Place
from tests.unit.images.lab import entry, folder, make_tar
from tests.unit.images.oci import Layout, digest, dump, small_layer
from tests.unit.images.registry_server import Request, Server, response, serving

BOUNDS = Bounds(keep_free=0)
FUZZ_SECONDS = float(os.environ.get("BULKHEAD_FUZZ_SECONDS", "5"))


class Lab:
    """A store and a way to pull into it."""

    def __init__(self, directory: Path) -> None:
        self.store = ImageStore(directory / "store", directory / "cache", bounds=BOUNDS)
        self.exchange = Exchange(self.store, directory / "cache")
        self.steps: list[Step] = []

    def pull(self, server: Server, tag: str = "1", **options: Any) -> Image:
        with server.repository() as repository:
            return self.exchange.pull(
                repository, server.source(tag), platform=options.get("platform"), progress=self.steps.append
            )

    @property
    def partial(self) -> list[Path]:
        return list(self.store.layout.partial.iterdir())

    def is_clean(self) -> bool:
        """Nothing of a pull is in the store."""
        layout = self.store.layout
        return not self.store.list() and not [*layout.blobs.iterdir(), *layout.erofs.iterdir(), *_works(layout.ingest)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off keeps its connection: nobody waits long for more."""
    monkeypatch.setattr(addresses, "READ_SECONDS", 0.5)


def _works(ingest: Path) -> list[Path]:
    return [path for path in ingest.iterdir() if path.is_dir()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def two_layers(**options: Any) -> Layout:
    layout = Layout()
    layout.image(small_layer("one"), small_layer("two", b"x" * 100_000), packed=True, **options)
    return layout


def test_an_image_comes_whole_and_is_not_asked_for_twice(lab: Lab) -> None:
    with serving() as server:
        wanted = server.add(two_layers(), "1")
        image = lab.pull(server)
        assert image.digest == wanted
        assert image.references == (f"{server.host}/app:1",)
        before = len(server.requests)
        assert lab.pull(server).digest == wanted
        asked = [request.path for request in server.requests[before:]]
        assert not [path for path in asked if "/blobs/" in path]
    assert not lab.partial


def test_layers_of_another_image_are_not_fetched_again(lab: Lab) -> None:
    with serving() as server:
        server.add(two_layers(), "1")
        lab.pull(server)
        layout = Layout()
        layout.image(small_layer("one"), small_layer("three"), packed=True)
        server.add(layout, "2")
        before = len(server.requests)
        lab.pull(server, "2")
        blobs = [request.path for request in server.requests[before:] if "/blobs/" in request.path]
        assert len(blobs) == 2  # the config, and one layer of two


def test_a_pull_that_was_broken_off_goes_on_where_it_ended(lab: Lab) -> None:
    big = make_tar(folder("d"), entry("d/big", random.Random(1).randbytes(3_000_000)))
    layout = Layout()
    layout.image(big)
    with serving() as server:
        server.add(layout, "1")
        cut = 1_000_000

        def break_off(request: Request, answer: bytes) -> bytes:
            if digest(big) not in request.path:
                return answer
            return response(500, b"") if "range" in request.headers else answer[:cut]

        server.twist = break_off
        with pytest.raises(Unavailable, match="status 500"):
            lab.pull(server)
        assert lab.is_clean()
        (left,) = lab.partial
        assert left.stat().st_size > cut // 2
        server.twist = lambda _, answer: answer
        before = len(server.requests)
        lab.pull(server)
        ranges = [request.headers.get("range") for request in server.requests[before:] if digest(big) in request.path]
    assert len(ranges) == 1
    assert ranges[0]
    assert int(ranges[0].removeprefix("bytes=").partition("-")[0]) > cut // 2
    assert not lab.partial


def test_a_registry_that_sends_no_parts_is_asked_for_the_whole(lab: Lab) -> None:
    big = make_tar(entry("big", random.Random(1).randbytes(2_000_000)))
    layout = Layout()
    layout.image(big)
    with serving() as server:
        server.add(layout, "1")
        path = lab.store.layout.partial / digest(big)[7:]
        path.write_bytes(big[:700_000])
        server.twist = lambda request, answer: (
            response(200, big) if "range" in request.headers and digest(big) in request.path else answer
        )
        assert lab.pull(server).layers[0].diff_id == digest(big)


def test_what_a_crash_left_wrong_is_thrown_away_and_fetched_anew(lab: Lab) -> None:
    layout = two_layers()
    with serving() as server:
        server.add(layout, "1")
        for blob in json.loads(server.tags["1"])["layers"]:
            (lab.store.layout.partial / blob["digest"][7:]).write_bytes(bytes(blob["size"] // 2))
        lab.pull(server)
    assert not lab.partial


def test_the_blob_of_the_store_is_safe_from_a_manifest_that_says_it_is_shorter(lab: Lab) -> None:
    """After a crash between a commit and its end a partial file is a blob's second name."""
    with serving() as server:
        layout = two_layers()
        server.add(layout, "1")
        lab.pull(server)
        blob = json.loads(server.tags["1"])["layers"][1]
        path = lab.store.layout.blob_path(blob["digest"])
        (lab.store.layout.partial / path.name).hardlink_to(path)
        lie = json.loads(server.tags["1"])
        lie["layers"][1]["size"] = 10
        server.tags["2"] = dump(lie)
        with pytest.raises(BulkheadError):
            lab.pull(server, "2")
        assert path.stat().st_size == blob["size"]


# --- lies


def test_a_blob_with_another_digest_is_refused(lab: Lab) -> None:
    with serving() as server:
        server.add(two_layers(), "1")
        layer = json.loads(server.tags["1"])["layers"][1]["digest"]
        fake = gzip.compress(small_layer("evil"), mtime=0)
        server.blobs[layer] = (fake + bytes(len(server.blobs[layer])))[: len(server.blobs[layer])]
        with pytest.raises(ImageError):
            lab.pull(server)
    assert lab.is_clean()
    assert not lab.partial


def test_a_manifest_with_another_digest_is_refused(lab: Lab) -> None:
    with serving() as server:
        wanted = server.add(two_layers(), "1")
        server.blobs[wanted] = server.tags["1"] + b" "
        with server.repository() as repository, pytest.raises(ImageError, match="in truth the digest"):
            lab.exchange.pull(repository, server.source(wanted), platform=None, progress=quiet)
        server.twist = lambda _, answer: answer.replace(
            b"Docker-Content-Digest: sha256:", b"Docker-Content-Digest: sha256:0"[:-1]
        )
        server.kinds.clear()
        other = "sha256:" + "0" * 64
        server.twist = lambda _, answer: answer.replace(wanted.encode(), other.encode(), 1)
        with pytest.raises(ImageError, match="in truth the digest"):
            lab.pull(server)
    assert lab.is_clean()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (lambda: itertools.repeat(bytes(1 << 16)), "more than|longer"),
        (lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "sends more than"),
        (
            lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], (b"X-%d: y\r\n" % n * 50 for n in itertools.count())),
            "failed|more",
        ),
        (lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"y" * 65536)), "failed|more"),
        (
            lambda: itertools.chain(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
                itertools.repeat(b"10000\r\n" + bytes(65536) + b"\r\n"),
            ),
            "longer|more",
        ),
        (
            lambda: itertools.chain(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"], itertools.repeat(b"x" * 65536)
            ),
            "failed|more",
        ),
        (
            lambda: itertools.chain(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"], itertools.repeat(b"X: y\r\n" * 1000)
            ),
            "failed|more|JSON",
        ),
    ],
    ids=["noise", "continue", "headers", "header", "chunks", "chunk-size", "trailers"],
)
def test_answers_without_end_are_ended(lab: Lab, more: Any, told: str) -> None:
    def answer(server: Server, request: Request) -> bytes | Iterator[bytes]:
        return response(200, b"{}") if request.path == "/v2/" else more()

    with serving(answer) as server:
        with pytest.raises(BulkheadError, match=told):
            lab.pull(server)
        assert server.sent < 64 << 20
    assert lab.is_clean()


def test_a_blob_longer_than_promised_is_refused(lab: Lab) -> None:
    with serving() as server:
        server.add(two_layers(), "1")
        layer = json.loads(server.tags["1"])["layers"][1]["digest"]
        server.blobs[layer] += bytes(10 << 20)
        with pytest.raises(ImageError, match=r"longer|more"):
            lab.pull(server)
    assert lab.is_clean()


def test_an_answer_that_trickles_is_given_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "PATIENCE", 0.3)

    def trickle() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
        while True:
            yield b"x"
            time.sleep(0.05)

    def answer(server: Server, request: Request) -> bytes | Iterator[bytes]:
        return response(200, b"{}") if request.path == "/v2/" else trickle()

    with serving(answer) as server, pytest.raises(Unavailable, match="too slow"):
        lab.pull(server)


def test_a_connection_that_breaks_is_made_again(lab: Lab) -> None:
    layout = Layout()
    big = make_tar(entry("big", random.Random(1).randbytes(2_000_000)))
    layout.image(big)
    with serving() as server:
        server.add(layout, "1")
        times = itertools.count()
        server.twist = lambda request, answer: (
            answer[:-500_000] if digest(big) in request.path and next(times) < 2 else answer
        )
        lab.pull(server)


# --- where a registry may not lead


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{other}/secret",
        "http://localhost:{other}/secret",
        "http://[::1]:{other}/secret",
        "http://[::ffff:127.0.0.1]:{other}/secret",
        "http://0.0.0.0:{other}/secret",
        "http://2130706433:{other}/secret",
        "http://169.254.169.254/latest/meta-data",
        "//localhost:{other}/secret",
        "file:///etc/shadow",
        "ftp://127.0.0.1/x",
        "http://user:password@example.test/",
        "gopher://127.0.0.1:{other}/",
        "http://127.0.0.1:{other}\r\nX: y/",
        "",
    ],
)
@pytest.mark.parametrize("what", ["manifests", "blobs"])
def test_redirects_to_the_hosts_own_addresses_are_refused(lab: Lab, target: str, what: str) -> None:
    with serving() as other, serving() as server:
        server.add(two_layers(), "1")
        location = target.format(other=other.port)

        def lead(request: Request, answer: bytes) -> bytes:
            if f"/{what}/" not in request.path:
                return answer
            return f"HTTP/1.1 307 x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()

        server.twist = lead
        with pytest.raises(BulkheadError, match=r"leads to|redirects|failed|cannot be found"):
            lab.pull(server)
        assert not other.requests
    assert lab.is_clean()


def test_redirects_in_a_circle_end(lab: Lab) -> None:
    with serving() as server:
        server.twist = lambda request, answer: (
            response(302, b"", {"Location": request.path}) if "manifests" in request.path else answer
        )
        with pytest.raises(ImageError, match="redirects more than"):
            lab.pull(server)


def test_a_redirect_within_the_registry_is_followed(lab: Lab) -> None:
    with serving() as server:
        server.add(two_layers(), "1")

        def lead(request: Request, answer: bytes) -> bytes:
            if request.path.startswith("/elsewhere"):
                return server.answer(Request(request.method, request.path.removeprefix("/elsewhere"), request.headers))
            if "/blobs/" in request.path:
                return response(307, b"", {"Location": f"/elsewhere{request.path}"})
            return answer

        server.twist = lead
        lab.pull(server)


def test_a_named_place_may_be_led_to(lab: Lab) -> None:
    """registries.conf names it: then even the host's own address is meant."""
    with serving() as other, serving() as server:
        server.add(two_layers(), "1")
        other.blobs = server.blobs
        server.twist = lambda request, answer: (
            response(307, b"", {"Location": f"http://127.0.0.1:{other.port}{request.path}"})
            if "/blobs/" in request.path
            else answer
        )
        place = Place(server.host, insecure=True, trusted=frozenset({("127.0.0.1", other.port)}))
        with Repository(place, "app") as repository:
            lab.exchange.pull(repository, server.source(), platform=None, progress=quiet)
        assert other.requests


def test_how_far_inside_an_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["127.0.0.1", "::1", "169.254.1.1", "fe80::1%lo", "0.0.0.0", "::", "224.0.0.1", "::ffff:127.0.0.1"]
    assert {address: reach(address) for address in own} == dict.fromkeys(own, Reach.OWN)
    monkeypatch.setattr(addresses, "_is_mine", lambda _: False)
    assert [reach(address) for address in ("10.1.2.3", "192.168.0.1", "fd00::1")] == [Reach.PRIVATE] * 3
    assert [reach(address) for address in ("1.1.1.1", "2606:4700::1111")] == [Reach.PUBLIC] * 2
    assert reach("2002:7f00:1::1") is Reach.OWN


def test_a_public_registry_does_not_lead_into_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    where = {"registry.test": "1.1.1.1", "inside.test": "10.0.0.5"}
    monkeypatch.setattr(addresses, "_is_mine", lambda _: False)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where[host], port))],
    )
    monkeypatch.setattr(addresses.PlainSocket, "connect", lambda *_: None)
    guard = addresses.Guard(("registry.test", 443))
    guard.connect("registry.test", 443).close()
    with pytest.raises(ImageError, match="a private network"):
        guard.connect("inside.test", 443)


@pytest.mark.parametrize(
    ("address", "where"),
    [("10.0.0.5", "a private network"), ("127.0.0.1", "this host"), ("169.254.169.254", "this host")],
)
def test_a_tenant_s_registry_is_where_anybody_could_reach_it(
    monkeypatch: pytest.MonkeyPatch, address: str, where: str
) -> None:
    """What the daemon reaches and the tenant does not: the host's own services, its network, a cloud's metadata."""
    tried: list[object] = []
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(addresses, "_is_mine", lambda _: False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(addresses.PlainSocket, "connect", lambda _, address: tried.append(address))
    with pytest.raises(Forbidden, match=where):
        addresses.Guard(("registry.test", 443), outward=True).connect("registry.test", 443)
    assert tried == []
    named = addresses.Guard(("registry.test", 443), frozenset({("registry.test", 443)}), outward=True)
    named.connect("registry.test", 443).close()
    addresses.Guard(("registry.test", 443)).connect("registry.test", 443).close()
    found[0] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))
    addresses.Guard(("registry.test", 443), outward=True).connect("registry.test", 443).close()


# --- logins


def token_server(realm: str) -> Any:
    def twist(request: Request, answer: bytes) -> bytes:
        if request.path.startswith("/token"):
            return response(200, dump({"token": "t0ken"}))
        if request.headers.get("authorization") == "Bearer t0ken":
            return answer
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:app:pull"'
        return response(401, b"{}", {"WWW-Authenticate": challenge})

    return twist


def test_tokens_are_fetched_with_the_password_and_kept_for_the_next_request(lab: Lab) -> None:
    with serving() as server:
        server.add(two_layers(), "1")
        server.twist = token_server(f"http://{server.host}/token")
        with Repository(Place(server.host, insecure=True), "app", Credentials("me", "secret")) as repository:
            lab.exchange.pull(repository, server.source(), platform=None, progress=quiet)
        tokens = [request for request in server.requests if request.path.startswith("/token")]
        assert len(tokens) == 1
        assert tokens[0].headers["authorization"].startswith("Basic ")
        assert "scope=repository%3Aapp%3Apull" in tokens[0].path


def test_a_token_server_on_the_host_itself_gets_nothing(lab: Lab) -> None:
    with serving() as other, serving() as server:
        server.add(two_layers(), "1")
        server.twist = token_server(f"http://127.0.0.1:{other.port}/token")
        who = Credentials("me", "secret")
        place = Place(server.host, insecure=True)
        with Repository(place, "app", who) as repository, pytest.raises(ImageError, match="leads to"):
            lab.exchange.pull(repository, server.source(), platform=None, progress=quiet)
        assert not other.requests
        assert "secret" not in repr(who)


@pytest.mark.parametrize("token", [b"[]", b"nonsense", b'{"token": "a\\r\\nX: y"}', b'{"token": 1}', b"[" * 100_000])
def test_what_is_no_token_is_refused(lab: Lab, token: bytes) -> None:
    with serving() as server:
        server.twist = lambda request, answer: (
            response(200, token)
            if request.path.startswith("/token")
            else response(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})
        )
        with pytest.raises(ImageError, match="no token"):
            lab.pull(server)


def test_errors_of_a_registry_are_told_without_what_terminals_act_upon(lab: Lab) -> None:
    with serving() as server, pytest.raises(NotFound) as caught:
        lab.pull(server, "none")
    assert "no such thing" in caught.value.what
    assert "\x1b" not in caught.value.what


def test_lists_of_tags_are_bounded_and_checked() -> None:
    with serving() as server:
        server.twist = lambda request, answer: (
            response(200, dump({"tags": ["a"] * 1000}), {"Link": f'<{request.path}>; rel="next"'})
            if "tags" in request.path
            else answer
        )
        with server.repository() as repository, pytest.raises(ImageError, match="more than 100000 tags"):
            repository.begin()
            repository.tags()
        server.twist = lambda request, answer: (
            response(200, dump({"tags": ["../x"]})) if "tags" in request.path else answer
        )
        with server.repository() as repository, pytest.raises(ImageError, match="tags that are none"):
            repository.begin()
            repository.tags()
        server.twist = lambda request, answer: (
            response(200, dump({"tags": ["a"]}), {"Link": '<http://169.254.169.254/>; rel="next"'})
            if "tags" in request.path
            else answer
        )
        with server.repository() as repository, pytest.raises(ImageError, match="elsewhere"):
            repository.begin()
            repository.tags()


def test_other_things_than_images_are_refused_in_words(lab: Lab) -> None:
    with serving() as server:
        layout = two_layers()
        server.add(layout, "1")
        chart = json.loads(server.tags["1"])
        chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        server.tags["chart"] = dump(chart)
        with pytest.raises(ImageError, match="something else than an image"):
            lab.pull(server, "chart")
    assert lab.is_clean()


# --- noise


def test_a_registry_that_answers_with_noise_breaks_nothing(lab: Lab) -> None:
    """Seconds here; BULKHEAD_FUZZ_SECONDS=600 for ten minutes."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    wanted = ""
    with serving() as server:
        wanted = server.add(two_layers(), "1")
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        entry = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": wanted,
            "size": len(server.tags["1"]),
        }
        platform = {"os": "linux", "architecture": "amd64"}
        server.tags["2"] = dump({**index, "manifests": [{**entry, "platform": platform}]})
        server.kinds[digest(server.tags["2"])] = str(index["mediaType"])
        server.twist = lambda _, answer: _spoilt(chance, answer)
        deadline, rounds = time.monotonic() + FUZZ_SECONDS, 0
        while time.monotonic() < deadline:
            rounds += 1
            try:
                found = lab.pull(server, chance.choice("12"))
            except BulkheadError as error:
                assert error.what, f"seed {seed}"
            else:
                # What came through in spite of it is what was asked for, to the byte; or a config's own change.
                assert found.digest == digest(lab.store.layout.read_document(found.digest)), f"seed {seed}"
                lab.store.remove(found.digest, force=True)
            assert not _works(lab.store.layout.ingest), f"seed {seed}"
        server.twist = lambda _, answer: answer
        assert lab.pull(server).digest == wanted, f"seed {seed}"
    assert rounds > 5


def _spoilt(chance: random.Random, answer: bytes) -> bytes:
    if chance.random() < 0.6:
        return answer
    data = bytearray(answer)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(8):
            case 0:
                data[at : at + 1] = chance.randbytes(1)
            case 1:
                del data[at : at + chance.randrange(1, 200)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 200))
            case 3:
                data = data[:at]
            case 4:
                data = data.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX", 1)
            case 5:
                digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
                if digits:
                    data[chance.choice(digits)] = ord(chance.choice("0123456789"))
            case 6:
                status = chance.choice([b"100", b"206", b"301", b"401", b"404", b"500", b"999"])
                data[9:12] = status
            case 7:
                data[at:at] = chance.choice([b"\r\n", b"{", b'"', b"\0", b"null", b"[" * 5000, b"-1", b"9" * 30])
    return bytes(data)
