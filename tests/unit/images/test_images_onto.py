"""A layer onto an image that is there: what is different, with whiteouts."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bulkhead.errors import HostError, ImageError, NotFound, Refused
from bulkhead.images import Bounds, ImageStore
from tests.unit.images.lab import entry, folder, make_tar
from tests.unit.images.test_images_import import ROOTFS, files


class Broken(io.BytesIO):
    """A connection that is lost."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 500:
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(512)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0))
    made.import_stream(io.BytesIO(ROOTFS), name="base", changes=["CMD a", "LABEL x=y", "EXPOSE 80"])
    return made


def test_both_layers_are_the_new_images(store: ImageStore) -> None:
    base = store.resolve("base")
    top = make_tar(folder("etc"), entry("etc/new", b"1"), entry("bin/.wh.sh"))
    image = store.import_onto("base", io.BytesIO(top), name="new", changes=['CMD ["/b"]'])
    assert [layer.diff_id for layer in image.layers][:1] == [layer.diff_id for layer in base.layers]
    assert len(image.layers) == 2
    assert image.references == ("new:latest",)
    assert (image.config.cmd, image.config.labels, image.config.exposed_ports) == (("/b",), {"x": "y"}, ("80/tcp",))
    assert image.architecture == base.architecture
    # The base can go; its layer stays for as long as something needs it.
    store.remove("base")
    assert all(layer.erofs.exists() for layer in store.resolve("new").layers)
    store.remove("new")
    assert not store.list()


def test_what_is_refused_leaves_nothing(tmp_path: Path, store: ImageStore) -> None:
    before = files(tmp_path)
    with pytest.raises(NotFound, match="nothing"):
        store.import_onto("nothing", io.BytesIO(make_tar()), name="new")
    with pytest.raises(ImageError):
        store.import_onto("base", io.BytesIO(make_tar(entry("../x", b"1"))), name="new")
    with pytest.raises(ImageError):
        store.import_onto("base", io.BytesIO(make_tar(entry("x", bytes(2000)))[:1000]), name="new")
    with pytest.raises(HostError):
        store.import_onto("base", Broken(make_tar(entry("x", b"1"))), name="new")
    with pytest.raises(Refused, match="WHAT"):
        store.import_onto("base", io.BytesIO(make_tar()), name="new", changes=["WHAT x"])
    assert files(tmp_path) == before


def test_a_base_that_is_no_root_file_system(tmp_path: Path, store: ImageStore) -> None:
    (tmp_path / "elf").write_bytes(b"x" * 100)
    store.add_files(
        "kernel",
        [("application/vnd.bulkhead.kernel.elf", tmp_path / "elf")],
        names=["kernel/x"],
        architecture="amd64",
        annotations={},
    )
    with pytest.raises(Refused, match="is a kernel"):
        store.import_onto("kernel/x", io.BytesIO(make_tar()), name="new")
