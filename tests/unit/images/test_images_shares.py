"""What imports may take is judged before it is written, and while it is: a tenant's quota, and the host's room."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from bulkhead.errors import NoRoom, Refused, Unavailable
from bulkhead.events import quiet
from bulkhead.images import Bounds, Image, ImageStore
from bulkhead.images.exchange import Exchange
from bulkhead.images.registry import addresses
from bulkhead.images.shares import Share, Shares
from tests.unit.images.lab import entry, folder, make_tar
from tests.unit.images.oci import Layout, digest
from tests.unit.images.registry_server import Request, Server, response, serving

MIB = 1 << 20


def layer(name: str, size: int) -> bytes:
    """A layer that nothing makes smaller."""
    return make_tar(folder("d"), entry(f"d/{name}", random.Random(name).randbytes(size)))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0))


@pytest.fixture
def acme(store: ImageStore) -> ImageStore:
    """A tenant's, which may have 4 MiB of images."""
    seen = store.seen_by("acme", set)
    seen.layout.left = lambda: 4 * MIB - sum(image.size for image in seen.list())
    return seen


def left_over(store: ImageStore) -> list[Path]:
    """Files that are no image's."""
    layout = store.layout
    partial = [path for path in layout.root.glob("partial*/*") if path.is_file()]
    ingest = [path for path in layout.ingest.rglob("*") if path.is_file() and path.name != "lock"]
    return [*layout.blobs.iterdir(), *layout.erofs.iterdir(), *ingest, *partial]


class Endless(io.RawIOBase):
    """A stream that says how much of it has been read."""

    def __init__(self, head: bytes) -> None:
        self.read_bytes, self._head = 0, head

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._head[:size] or random.Random(self.read_bytes).randbytes(size)
        self._head = self._head[size:]
        self.read_bytes += len(data)
        return data


def pull(store: ImageStore, tmp_path: Path, server: Server, tag: str) -> Image:
    exchange = Exchange(store, tmp_path / "cache")
    with server.repository() as repository:
        return exchange.pull(repository, server.source(tag), platform=None, progress=quiet)


def test_a_stream_without_end_ends_at_the_quota_and_leaves_nothing(store: ImageStore, acme: ImageStore) -> None:
    stream = Endless(layer("begin", MIB)[:MIB])
    with pytest.raises(Refused, match="tenant acme may grow by 4M"):
        acme.import_stream(cast(BinaryIO, stream), name="app")
    assert stream.read_bytes < 8 * MIB, "it was read long after its end was known"
    assert not left_over(store) and store.layout.shares.coming() == 0


def test_a_layer_onto_a_base_ends_at_the_quota_with_what_is_below(
    tmp_path: Path, store: ImageStore, acme: ImageStore
) -> None:
    (tmp_path / "base").write_bytes(layer("base", 3 * MIB))
    acme.layout.left = lambda: None
    acme.import_file(tmp_path / "base", name="base")
    before = left_over(store)
    acme.layout.left = lambda: 4 * MIB  # the new image counts its layers as if it were alone
    stream = Endless(make_tar(folder("d"), entry("d/more", b"x" * (64 * MIB)))[: 2 * MIB])
    with pytest.raises(Refused, match="may grow by 4M"):
        acme.import_onto("base", cast(BinaryIO, stream), name="app")
    assert left_over(store) == before


def test_a_pull_that_does_not_fit_is_refused_by_its_manifest(
    tmp_path: Path, store: ImageStore, acme: ImageStore
) -> None:
    layout = Layout()
    layout.image(layer("one", 3 * MIB), layer("two", 2 * MIB))
    with serving() as server:
        server.add(layout, "1")
        with pytest.raises(Refused, match="may grow by 4M"):
            pull(acme, tmp_path, server, "1")
        assert not [request.path for request in server.requests if "/blobs/" in request.path]
    assert not left_over(store) and store.layout.shares.coming() == 0


def test_a_pull_that_unpacks_to_too_much_ends_there(tmp_path: Path, store: ImageStore, acme: ImageStore) -> None:
    layout = Layout()
    layout.image(make_tar(folder("d"), entry("d/zeros", bytes(32 * MIB))), packed=True)
    with serving() as server:
        server.add(layout, "1")
        with pytest.raises(Refused, match="may grow by 4M"):
            pull(acme, tmp_path, server, "1")
    assert not left_over(store), "a blob that may not come stays for no next time"


def test_what_fits_comes_and_the_next_one_does_not(tmp_path: Path, acme: ImageStore) -> None:
    for name, fits in (("one", True), ("two", False), ("small", True)):
        (tmp_path / name).write_bytes(layer(name, MIB // 2 if name == "small" else 2 * MIB + MIB // 2))
        if fits:
            acme.import_file(tmp_path / name, name=name)
        else:
            with pytest.raises(Refused):
                acme.import_file(tmp_path / name, name=name)
    assert {image.references for image in acme.list()} == {("one:latest",), ("small:latest",)}


def test_two_at_once_have_no_more_than_one_after_another(store: ImageStore, acme: ImageStore) -> None:
    """Each fits by itself. Both have read most of theirs before either may go on."""
    meeting = threading.Barrier(2, timeout=60)

    class Meets(io.BytesIO):
        met = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 2 * MIB and not self.met:
                self.met = True
                meeting.wait()
            return super().read(size)

    results: list[object] = []

    def come(name: str) -> None:
        try:
            results.append(acme.import_stream(Meets(layer(name, 3 * MIB)), name=name))
        except Refused as error:
            results.append(error)

    threads = [threading.Thread(target=come, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 2
    assert len([one for one in results if isinstance(one, Refused)]) >= 1
    assert sum(image.size for image in acme.list()) <= 4 * MIB
    assert store.layout.shares.coming() == 0


def test_one_tenants_imports_are_none_of_anothers(store: ImageStore, acme: ImageStore) -> None:
    with store.layout.shares.begin("beta", lambda: None) as beta:
        beta.expect(100 * MIB, new=100 * MIB)
        acme.import_stream(io.BytesIO(layer("one", MIB)), name="one")
        assert store.layout.shares.coming() == 100 * MIB


def test_the_host_is_asked_before_a_pull_and_a_file_come(tmp_path: Path, store: ImageStore) -> None:
    def full(size: int) -> None:
        asked.append((size, store.layout.shares.coming()))
        if size:
            raise NoRoom("disk: nothing is left")

    asked: list[tuple[int, int]] = []
    store.layout.shares.judge = full
    layout = Layout()
    layout.image(layer("one", MIB))
    (tmp_path / "file").write_bytes(layer("two", MIB))
    with serving() as server:
        server.add(layout, "1")
        with pytest.raises(NoRoom):
            pull(store, tmp_path, server, "1")
        assert not [request for request in server.requests if "/blobs/" in request.path]
    with pytest.raises(NoRoom):
        store.import_file(tmp_path / "file", name="two")
    assert all(size >= MIB and coming >= size for size, coming in asked), "it is reserved before it is judged"
    assert not left_over(store) and store.layout.shares.coming() == 0


def test_what_the_store_has_is_asked_no_room_for(tmp_path: Path, store: ImageStore) -> None:
    first, second = Layout(), Layout()
    first.image(layer("one", MIB))
    second.image(layer("one", MIB), run={"Cmd": ["other"]})
    with serving() as server:
        server.add(first, "1")
        server.add(second, "2")
        pull(store, tmp_path, server, "1")
        asked: list[int] = []
        store.layout.shares.judge = asked.append
        pull(store, tmp_path, server, "2")
    assert asked == [0]


@pytest.mark.parametrize("act", [lambda share: share.grew(5), lambda share: share.expect(5, new=5)])
def test_what_is_refused_is_not_reserved_after_it(act: Callable[[Share], None]) -> None:
    shares = Shares()
    with pytest.raises(Refused), shares.begin("acme", lambda: -1) as share:
        act(share)
        share.grew(0, last=True)
    assert shares.coming() == shares.of("acme") == 0


def break_off(server: Server, tmp_path: Path, store: ImageStore, tag: str, layer: bytes, *, after: int) -> None:
    """A pull of an image of one layer, of which so many bytes come."""
    layout = Layout()
    layout.image(layer)
    server.add(layout, tag)
    blob = digest(layer)

    def cut(request: Request, answer: bytes) -> bytes:
        if blob not in request.path:
            return answer
        return response(500, b"") if "range" in request.headers else answer[:after]

    server.twist = cut
    try:
        with pytest.raises(Unavailable):
            pull(store, tmp_path, server, tag)
    finally:
        server.twist = lambda _, answer: answer


def test_what_broken_pulls_leave_is_no_more_than_the_quota_leaves(
    tmp_path: Path, store: ImageStore, acme: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again an image that would fit is pulled, and given up when most of it is there."""
    monkeypatch.setattr(addresses, "READ_SECONDS", 0.5)
    partial = acme.layout.partial
    layers = [layer(f"of {number}", 3 * MIB) for number in range(4)]
    with serving() as server:
        for number, one in enumerate(layers):
            break_off(server, tmp_path, acme, str(number), one, after=2 * MIB + MIB // 2)
            assert sum(path.stat().st_size for path in partial.iterdir()) <= 4 * MIB
        assert [path.name for path in partial.iterdir()] == [digest(layers[-1])[7:]], "the last one's is kept"
        # It goes on with that.
        before = len(server.requests)
        image = pull(acme, tmp_path, server, "3")
        ranges = [request.headers.get("range") for request in server.requests[before:]]
        assert any(ranges) and not list(partial.iterdir())
        acme.remove(image.references[0])
        # What it imports goes before what it has left.
        break_off(server, tmp_path, acme, "0", layers[0], after=2 * MIB + MIB // 2)
        assert list(partial.iterdir())
        (tmp_path / "tar").write_bytes(layer("whole", 3 * MIB))
        acme.import_file(tmp_path / "tar", name="whole")
        assert not list(partial.iterdir())
        # The operator has no quota, and keeps what has come.
        for number in (0, 1):
            break_off(server, tmp_path, store, str(number), layers[number], after=2 * MIB + MIB // 2)
        assert len(list(store.layout.partial.iterdir())) == 2


def test_what_tenants_have_left_goes_with_a_prune_and_in_time(
    tmp_path: Path, store: ImageStore, acme: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "READ_SECONDS", 0.5)
    left = acme.layout.partial / ("0" * 64)
    for forget in (store.prune, store.recover, acme.forget_partial):
        left.write_bytes(b"some of it")
        os.utime(left, (0, 0))
        forget()
        assert not left.exists()
    left.write_bytes(b"some of it")
    store.recover()
    assert left.exists(), "a week has not passed"
