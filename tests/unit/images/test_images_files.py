"""Images that are no root file systems: kernels and the like, kept as the files that they are."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from bulkhead.errors import ImageError, Refused
from bulkhead.images import Image, ImageStore
from tests.unit.images.lab import ROOMY

ELF, INITRD = "application/vnd.bulkhead.kernel.elf", "application/vnd.bulkhead.kernel.initrd"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images", tmp_path / "cache", bounds=ROOMY)


def add(store: ImageStore, tmp_path: Path, *, kernel: bytes = b"kernel", name: str = "kernel/test:1") -> Image:
    (tmp_path / "elf").write_bytes(kernel)
    (tmp_path / "initrd").write_bytes(b"modules")
    files = [(ELF, tmp_path / "elf"), (INITRD, tmp_path / "initrd")]
    return store.add_files("kernel", files, names=[name], architecture="amd64", annotations={"release": "6.1"})


def test_the_files_are_kept_as_they_are(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, tmp_path)
    assert (image.kind, image.references, image.layers, image.size) == ("kernel", ("kernel/test:1",), (), 13)
    assert image.blob(ELF).path.read_bytes() == b"kernel"
    assert image.blob(INITRD).digest == "sha256:" + hashlib.sha256(b"modules").hexdigest()
    assert image.annotations["release"] == "6.1"
    with pytest.raises(ImageError, match="0 parts"):
        image.blob("application/vnd.bulkhead.disk")
    assert store.resolve("kernel/test:1") == image
    shown = store.inspect("kernel/test:1")
    assert shown["Kind"] == "kernel"
    assert [blob["Size"] for blob in shown["Blobs"]] == [6, 7]  # type: ignore[attr-defined]


def test_removal_and_prune(store: ImageStore, tmp_path: Path) -> None:
    first = add(store, tmp_path)
    second = add(store, tmp_path, kernel=b"another")
    assert store.resolve(first.digest).references == ()
    pruned = store.prune()
    assert pruned.digests == (first.digest,)
    assert not first.blob(ELF).path.exists()
    assert second.blob(INITRD).path.exists(), "both had it"
    store.remove("kernel/test:1")
    assert not second.blob(INITRD).path.exists()


def test_a_wrong_name_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        add(store, tmp_path, name="NOT A NAME")
    assert store.list() == []
    assert list((tmp_path / "images" / "blobs" / "sha256").iterdir()) == []


def test_recovery_keeps_what_is_whole_and_tells_what_is_lost(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, tmp_path)
    assert store.recover() == []
    image.blob(ELF).path.write_bytes(b"cut")
    assert any("lost" in line for line in store.recover())
    assert store.list() == []


def test_such_an_image_can_be_carried_over(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, tmp_path)
    other = ImageStore(tmp_path / "other", tmp_path / "cache", bounds=ROOMY)
    carried = other.import_file(tmp_path / "images", name="kernel/carried")
    assert (carried.digest, carried.kind) == (image.digest, "kernel")
    assert carried.blob(ELF).path.read_bytes() == b"kernel"


def changed(tmp_path: Path, image: Image, *, kind: str = "kernel", media_type: str = ELF) -> Path:
    """A copy of the layout whose manifest says something else."""
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "images", copy)
    blobs = copy / "blobs" / "sha256"
    manifest = json.loads((blobs / image.digest.removeprefix("sha256:")).read_bytes())
    manifest["annotations"]["org.bulkhead.kind"] = kind
    manifest["layers"][0]["mediaType"] = media_type
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    descriptor = {"mediaType": manifest["mediaType"], "digest": f"sha256:{digest}", "size": len(data)}
    (copy / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return copy


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"kind": "toaster"}, "'toaster', which is not known"),
        ({"kind": "rootfs"}, "is of type 'application/vnd.bulkhead.kernel.elf', which is not known"),
        ({"media_type": "application/vnd.oci.image.layer.v1.tar"}, "which no kernel has"),
    ],
)
def test_what_claims_another_kind_is_refused(
    store: ImageStore, tmp_path: Path, wrong: dict[str, str], what: str
) -> None:
    image = add(store, tmp_path)
    other = ImageStore(tmp_path / "other", tmp_path / "cache", bounds=ROOMY)
    with pytest.raises(ImageError, match=what):
        other.import_file(changed(tmp_path, image, **wrong))
    assert other.list() == []


def test_a_blob_that_is_not_what_was_promised_is_refused(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, tmp_path)
    image.blob(ELF).path.write_bytes(b"KERNEL")
    other = ImageStore(tmp_path / "other", tmp_path / "cache", bounds=ROOMY)
    with pytest.raises(ImageError, match="has in truth the digest"):
        other.import_file(tmp_path / "images", name="kernel/bad")
