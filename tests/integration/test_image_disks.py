"""Disks through the whole: the command line, the daemon, the store."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.abilities import require
from tests.harness.daemon import Daemon

MIB = 1 << 20


def test_a_disk_is_imported_listed_not_run_as_a_root_and_removed(daemon: Daemon, tmp_path: Path) -> None:
    require("qemu-img", "bwrap", "sfdisk")
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["sfdisk", "-q", raw], input=b"label: gpt\nsize=8MiB, type=U\n", check=True, capture_output=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, qcow2], check=True, capture_output=True)
    assert daemon.cli("image", "import", str(qcow2), "disk/mine").stdout == "disk/mine:latest\n"
    (row,) = [line.split() for line in daemon.cli("image", "ls").stdout.splitlines() if "disk/mine" in line]
    assert row[2] == "disk"
    (about,) = daemon.json("image", "inspect", "disk/mine")
    assert about["Annotations"]["org.bulkhead.disk.firmware"] == "uefi"
    refused = daemon.cli("run", "--rm", "disk/mine", "true", check=False)
    assert refused.returncode == 125
    assert "is a disk, not a root file system" in refused.stderr
    (unpacked,) = (daemon.config.images_dir / "erofs").glob("*.raw")
    assert unpacked.stat().st_size == 64 * MIB
    unpacked.unlink()
    daemon.kill9()
    daemon.start()
    assert unpacked.stat().st_size == 64 * MIB
    daemon.cli("image", "rm", "disk/mine")
    assert not unpacked.exists()


def test_a_disk_that_points_at_a_file_of_the_hosts_is_refused_in_words(daemon: Daemon, tmp_path: Path) -> None:
    require("qemu-img")
    evil = tmp_path / "evil.img"
    subprocess.run(
        ["qemu-img", "create", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", evil, "1M"],
        check=True,
        capture_output=True,
    )
    refused = daemon.cli("image", "import", str(evil), "disk/evil", check=False)
    assert refused.returncode == 125
    assert "has a backing file" in refused.stderr
    assert "hint: convert it with qemu-img" in refused.stderr
    wrong = daemon.cli(
        "image", "bootstrap", "windows:11", "--disk", "--size", "1k", "--firmware", "coreboot", check=False
    )
    assert [text in wrong.stderr for text in ("windows:11", "not between 1G and 64G", "coreboot")] == [True] * 3
