"""One store, several tenants: each sees its own images and public ones, and gets nothing for knowing a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.errors import ImageError, NotFound, Refused
from bulkhead.images import Bounds, ImageStore
from tests.unit.images.oci import Layout, small_layer
from tests.unit.images.test_images_import import ROOTFS, put

BOUNDS = Bounds(keep_free=0)


@pytest.fixture
def public() -> set[str]:
    """Names of the operator's that everybody may see."""
    return set()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """The whole store."""
    return ImageStore(tmp_path / "store", tmp_path / "cache", bounds=BOUNDS)


@pytest.fixture
def acme(store: ImageStore, public: set[str]) -> ImageStore:
    """As acme sees it."""
    return store.seen_by("acme", lambda: public)


@pytest.fixture
def beta(store: ImageStore, public: set[str]) -> ImageStore:
    """As beta sees it."""
    return store.seen_by("beta", lambda: public)


def layered(tmp_path: Path, store: ImageStore, name: str, upper: str) -> str:
    """An image of two layers; the lower one is the same for all."""
    layout = Layout()
    layout.image(small_layer("base"), small_layer(upper), name=name)
    return store.import_file(put(tmp_path, layout.tar())).digest


def test_each_has_its_own_names(tmp_path: Path, store: ImageStore, acme: ImageStore, beta: ImageStore) -> None:
    theirs, ours = layered(tmp_path, acme, "app:1", "acme"), layered(tmp_path, beta, "app:1", "beta")
    assert acme.resolve("app:1").digest == theirs and beta.resolve("app:1").digest == ours
    assert [image.references for image in acme.list()] == [("app:1",)]
    assert store.resolve("acme@app:1").digest == theirs
    with pytest.raises(NotFound):
        store.resolve("app:1")
    assert store.inspect("acme@app:1")["RepoDigests"] == [f"app@{theirs}"]


def test_a_digest_opens_nothing(tmp_path: Path, acme: ImageStore, beta: ImageStore) -> None:
    made = layered(tmp_path, beta, "app:1", "beta")
    for name in (made, made[7:], made[7:13], "app:1", "beta@app:1", f"app@{made}", "acme@beta@app:1"):
        with pytest.raises((NotFound, Refused)) as caught:
            acme.resolve(name)
        assert "app:1" not in caught.value.hint
    for name in (made, "app:1"):
        with pytest.raises((NotFound, Refused)):
            acme.remove(name)
        with pytest.raises((NotFound, Refused)):
            acme.tag(name, ["mine"])
    assert beta.resolve("app:1").digest == made


def test_what_another_has_brought_is_not_believed_to_be_there(
    tmp_path: Path, acme: ImageStore, beta: ImageStore
) -> None:
    made = layered(tmp_path, beta, "app:1", "beta")
    manifest, _ = beta.layout.documents(made)
    for blob in manifest.layers:
        path = beta.layout.blob_path(blob.digest)
        assert beta.layout.may_reuse(path, size=blob.size)
        assert not acme.layout.may_reuse(path, size=blob.size), "a pull would hand it over unseen"
    assert acme.layout.unpacked() == frozenset() and beta.layout.unpacked()
    layout = Layout()
    layout.image(small_layer("base"), small_layer("beta"), name="stolen:1")
    without = {
        name: data for name, data in layout.finished().items() if not name.endswith(manifest.layers[1].digest[7:])
    }
    layout.files = without
    with pytest.raises(ImageError):
        acme.import_file(put(tmp_path, layout.tar()))
    assert acme.list() == []
    mine = layered(tmp_path, acme, "app:1", "beta")
    assert mine == made, "who brings it has it, and it is one file on disk"
    assert all(acme.layout.may_reuse(acme.layout.blob_path(blob.digest)) for blob in manifest.layers)


def test_who_removes_a_name_takes_nothing_from_others(
    tmp_path: Path, store: ImageStore, acme: ImageStore, beta: ImageStore
) -> None:
    made = layered(tmp_path, acme, "app:1", "same")
    layered(tmp_path, beta, "mine:2", "same")
    acme.remove("app:1")
    assert acme.list() == [] and beta.resolve("mine:2").digest == made
    assert all(layer.erofs.exists() for layer in beta.resolve("mine:2").layers)
    store.prune(all_images=True)
    assert beta.resolve("mine:2").digest == made, "the operator's prune leaves what tenants have"
    store.remove("beta@mine:2")
    assert beta.list() == [] and store.list() == []


def test_public_images_are_seen_and_not_touched(
    tmp_path: Path, store: ImageStore, acme: ImageStore, public: set[str]
) -> None:
    made = store.import_file(put(tmp_path, ROOTFS), name="debian:12").digest
    store.import_file(put(tmp_path, ROOTFS), name="private:1")
    with pytest.raises(NotFound):
        acme.resolve("debian:12")
    public.add("debian:12")
    assert acme.resolve("debian:12").digest == made
    assert [image.references for image in acme.list()] == [("debian:12",)], "of its names the public one alone"
    with pytest.raises(Refused, match="not yours"):
        acme.remove("debian:12")
    acme.tag("debian:12", ["base:1"])
    layered(tmp_path, acme, "debian:12", "own")
    assert acme.resolve("debian:12").digest != made, "one's own go before public ones"
    assert store.resolve("debian:12").digest == made
    public.clear()
    assert acme.resolve("base:1").digest == made


def test_steps_of_builds_are_each_tenants_own(store: ImageStore, acme: ImageStore, beta: ImageStore) -> None:
    step = "sha256:" + "1" * 64
    assert len({layout.step(step) for layout in (store.layout, acme.layout, beta.layout)}) == 3
    assert acme.layout.partial != beta.layout.partial != store.layout.partial
