"""Which modules a guest gets, and in which order."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from bulkhead.boot import kernels, modules
from bulkhead.errors import ImageError
from tests.unit.boot.kernel_parts import read_cpio

DEPENDENCIES = """\
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko
kernel/net/unwanted.ko:
"""
BUILTIN = "kernel/fs/ext4/ext4.ko\nkernel/net/packet/af_packet.ko\n"


def test_what_is_needed_comes_first_and_once() -> None:
    catalogue = modules.read_catalogue(DEPENDENCIES, BUILTIN)
    found = modules.order(catalogue, required=("virtio_pci", "ext4"), welcome=("virtio_rng", "vmgenid"))
    assert [modules.name_of(path) for path in found] == ["virtio_ring", "virtio", "virtio_pci", "virtio_rng"]


def test_everything_that_is_missing_is_named() -> None:
    with pytest.raises(ImageError, match="no virtio_blk, erofs"):
        modules.order(modules.read_catalogue(DEPENDENCIES, BUILTIN), required=("virtio_blk", "virtio_pci", "erofs"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("/etc/passwd.ko:", "no module"),
        ("kernel/../../../x.ko:", "no module"),
        ("kernel/a.ko: ../b.ko", "no module"),
        ("kernel/a.txt:", "no module"),
        ("no colon here", "none of its format"),
        ("a.ko: b.ko\nb.ko: a.ko", "circle"),
        ("a.ko: b.ko", "does not have it"),
    ],
)
def test_a_hostile_list_is_refused(text: str, what: str) -> None:
    with pytest.raises(ImageError, match=what):
        modules.order(modules.read_catalogue(text, ""), required=("a",), welcome=())


def test_signatures_are_taken_off() -> None:
    signed = b"\x7fELFmodule" + b"S" * 300 + bytes(8) + (300).to_bytes(4, "big") + b"~Module signature appended~\n"
    assert modules.without_signature(signed) == b"\x7fELFmodule"
    assert modules.without_signature(b"\x7fELF plain") == b"\x7fELF plain"
    with pytest.raises(ImageError, match="signature"):
        modules.without_signature(bytes(12) + (2**31).to_bytes(4, "big") + b"~Module signature appended~\n")


def make_directory(directory: Path, dependencies: str = "", builtin: str = "") -> Path:
    """A directory of modules as depmod leaves it, with all that is required."""
    names = [name for name in modules.REQUIRED if name != "erofs"]
    lines = [f"kernel/{name}.ko:" for name in names]
    (directory / "kernel").mkdir(parents=True)
    for name in names:
        (directory / "kernel" / f"{name}.ko").write_bytes(b"\x7fELF" + name.encode())
    (directory / "kernel" / "erofs.ko.xz").write_bytes(lzma.compress(b"\x7fELFerofs"))
    text = dependencies or "\n".join([*lines, "kernel/erofs.ko.xz: kernel/ext4.ko"])
    (directory / "modules.dep").write_text(text)
    (directory / "modules.builtin").write_text(builtin)
    return directory


def test_the_archive_of_modules(tmp_path: Path) -> None:
    found = {path: data for path, _, data in read_cpio(kernels.pack_modules(make_directory(tmp_path)))}
    listed = found["modules"].decode().splitlines()
    assert listed.index("/lib/modules/ext4.ko") < listed.index("/lib/modules/erofs.ko")
    assert found["lib/modules/erofs.ko"] == b"\x7fELFerofs"
    assert {path.removeprefix("/") for path in listed} | {"lib", "lib/modules", "modules"} == found.keys()


def test_a_link_in_place_of_a_module_is_refused(tmp_path: Path) -> None:
    directory = make_directory(tmp_path)
    module = directory / "kernel" / "virtio_blk.ko"
    module.unlink()
    module.symlink_to("/etc/shadow")
    with pytest.raises(ImageError, match="not a regular file"):
        kernels.pack_modules(directory)


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    directory = make_directory(tmp_path)
    (directory / "kernel" / "virtio_blk.ko").write_bytes(b"#!/bin/sh")
    with pytest.raises(ImageError, match="no ELF file"):
        kernels.pack_modules(directory)
