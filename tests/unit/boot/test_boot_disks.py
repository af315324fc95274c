"""Disks that boot by themselves: what is asked for, the partition table, where GRUB's parts go."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.boot import disks, grub
from bulkhead.boot.disks import DiskRecipe
from bulkhead.engine import systems
from bulkhead.errors import HostError, Refused
from tests.harness.abilities import require

MIB = 1 << 20
BOOT, CORE, LOADER = bytes(range(256)) * 2, os.urandom(5000), b"MZ" + os.urandom(3000)


def recipe(firmware: str = "bios") -> DiskRecipe:
    return disks.plan(size=1 << 30, firmware=firmware, label="debian:bookworm", epoch=1_700_000_000)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(Refused) as caught:
        systems.plan("windows:11", ["a b"], size=1, firmware="coreboot", epoch=0)
    assert len(caught.value.problems) == 4
    with pytest.raises(Refused, match="whole number"):
        disks.plan(size=(1 << 30) + 512, firmware=None, label="", epoch=0)


def test_a_plan() -> None:
    disk, root, name = systems.plan("debian:bookworm", ["nginx-light"], size=None, firmware=None, epoch=7)
    assert (disk.size, disk.firmware, name) == (2 << 30, "bios", "disk/debian:bookworm-nginx-light")
    assert root.packages == (*disks.PACKAGES, "nginx-light")
    assert "console=ttyS0" in root.files["/boot/grub/grub.cfg"].decode()
    assert str(disk.id("root")) in root.files["/etc/fstab"].decode()
    assert root.hooks == disk.hooks()
    # A unit that waits for a card which is not there ends in failure.
    (waits,) = [text for path, text in root.files.items() if "networkd-wait-online" in path]
    assert b"ConditionPathExistsGlob=" in waits
    assert systems.plan("debian:bookworm", [], size=None, firmware=None, epoch=7)[0].id("root") != disk.id("root")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A root file system with what GRUB consists of."""
    root = tmp_path / "tree"
    (root / "boot/grub").mkdir(parents=True)
    for name, data in (("boot.img", BOOT), ("core.img", CORE), ("core.efi", LOADER)):
        (root / "boot/grub" / name).write_bytes(data)
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text("guest")
    yield root


def built(tree: Path, tmp_path: Path, firmware: str) -> Path:
    require("root", "sfdisk", "mkfs.ext4", "mkfs.vfat", "mcopy")
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.add(tree, ".")
    (tmp_path / "work").mkdir()
    steps: list[str] = []
    data = (tmp_path / "tar").read_bytes()
    disk = disks.build(recipe(firmware), iter([data]), tmp_path / "work", lambda step: steps.append(step.label))
    assert len(steps) == 4
    return disk


def partitions(disk: Path) -> dict[int, tuple[int, int]]:
    """Begin and size in bytes by number."""
    said = json.loads(subprocess.run(["sfdisk", "-J", disk], check=True, capture_output=True).stdout)
    return {
        int(entry["node"].removeprefix(str(disk))): (entry["start"] * 512, entry["size"] * 512)
        for entry in said["partitiontable"]["partitions"]
    }


def test_a_disk_for_a_bios(tree: Path, tmp_path: Path) -> None:
    disk = built(tree, tmp_path, "bios")
    parts = partitions(disk)
    assert set(parts) == {1, 14, 15}
    assert disk.stat().st_size == 1 << 30
    assert disk.stat().st_blocks * 512 < 100 * MIB
    with disk.open("rb") as file:
        data = file.read(4 * MIB)
    at, size = parts[14]
    assert struct.unpack_from("<Q", data, 0x5C) == (at // 512,)
    assert data[:0x5C] == BOOT[:0x5C]
    assert data[at : at + 0x1F4] == CORE[:0x1F4]
    assert struct.unpack_from("<Q", data, at + 0x1F4) == (at // 512 + 1,)
    assert data[at + 0x1FC : at + len(CORE)] == CORE[0x1FC:]
    assert size >= len(CORE)
    check_root_and_esp(disk, parts)


def test_a_disk_for_uefi_has_no_boot_sector(tree: Path, tmp_path: Path) -> None:
    disk = built(tree, tmp_path, "uefi")
    parts = partitions(disk)
    assert set(parts) == {1, 15}
    with disk.open("rb") as file:
        assert not any(file.read(440))
    check_root_and_esp(disk, parts)


def check_root_and_esp(disk: Path, parts: dict[int, tuple[int, int]]) -> None:
    at, size = parts[1]
    assert at + size > (1 << 30) - 2 * MIB, "the root file system is not the last, or too small"
    root = f"{disk}?offset={at}"
    subprocess.run(["e2fsck", "-fn", root], check=True, capture_output=True)
    said = subprocess.run(["dumpe2fs", "-h", root], check=True, capture_output=True, text=True).stdout
    assert str(recipe().id("root")) in said
    shown = subprocess.run(["debugfs", "-R", "cat /etc/hostname", root], check=True, capture_output=True).stdout
    assert shown == b"guest"
    image = f"{disk}@@{parts[15][0]}"
    loader = subprocess.run(["mtype", "-i", image, "::/EFI/BOOT/BOOTX64.EFI"], check=True, capture_output=True).stdout
    assert loader == LOADER
    serial = subprocess.run(["mdir", "-i", image], check=True, capture_output=True, text=True).stdout
    assert f"{recipe().volume[:4]}-{recipe().volume[4:]}".upper() in serial


@pytest.mark.parametrize("wrong", ["missing", "link", "fifo", "large"])
def test_a_tree_without_an_honest_loader_is_refused(wrong: str, tree: Path, tmp_path: Path) -> None:
    core = tree / "boot/grub/core.img"
    core.unlink()
    if wrong == "link":
        core.symlink_to("/etc/shadow")
    elif wrong == "fifo":
        os.mkfifo(core)
    elif wrong == "large":
        core.write_bytes(bytes(2 * MIB))
    (tmp_path / "disk").write_bytes(bytes(4 * MIB))
    with pytest.raises(HostError):
        grub.write_bios(tree, tmp_path / "disk", at=2048, sectors=2048)
    assert not any((tmp_path / "disk").read_bytes())


def test_grubs_files_name_the_root() -> None:
    root = uuid.uuid4()
    assert all(str(root) in text for text in grub.files(root).values())
