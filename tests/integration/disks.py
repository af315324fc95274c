"""Disks with a small system on them, made for the tests of what opens them, and looked at afterwards."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.harness.abilities import require

MIB = 1 << 20
FSTAB = "UUID=11111111-2222-3333-4444-555555555555 /data ext4 defaults 0 2\n/dev/vdz9 /../../etc ext4 defaults 0 0\n"
"""Nothing of it is on the disk: a system with it does not come up."""


def small_system(tmp_path: Path, busybox_tar: Path) -> Path:
    """A raw disk with a GPT and a small system on its first partition."""
    require("sfdisk", "mkfs.ext4")
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xf", busybox_tar], check=True)
    (root / "etc/fstab").write_text(FSTAB)
    (root / "etc/name").write_text("a system\n")
    part, made = tmp_path / "part", tmp_path / "disk.raw"
    subprocess.run(["mkfs.ext4", "-q", "-d", root, part, "40M"], check=True)
    with made.open("wb") as file:
        file.truncate(64 * MIB)
    table = "label: gpt\nstart=2048, size=81920\nsize=20480, type=U\n"
    subprocess.run(["sfdisk", "-q", made], input=table.encode(), check=True)
    put(part, made)
    return made


def put(part: Path, disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(part.read_bytes())


def look(disk: Path, path: str) -> str:
    """A file on the first partition of a raw disk, which must be clean: somebody has unmounted it in order."""
    part = disk.with_suffix(".part")
    with disk.open("rb") as file:
        file.seek(MIB)
        part.write_bytes(file.read(40 * MIB))
    checked = subprocess.run(["e2fsck", "-fn", part], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert "recovering journal" not in checked.stdout + checked.stderr
    return subprocess.run(["debugfs", "-R", f"cat {path}", part], capture_output=True, text=True, check=True).stdout


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
