"""The disk that `image bootstrap --disk` makes: boots by itself, with either firmware, and takes its seed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bulkhead.boot import seed
from bulkhead.boot.seed import Seed
from bulkhead.host.workspace import workspace
from bulkhead.images import Bounds, ImageStore
from tests.harness import systems
from tests.harness.systems import System

SIZE = 3 << 30
MULTI_USER = "- Multi-User System"
"""systemd says so on the console when it is reached; there are colours in the rest of the line."""


@pytest.fixture(scope="module")
def disk() -> Path:
    return systems.debian_disk()


def test_it_boots_and_is_what_its_seed_says(disk: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    told = f"#cloud-config\nssh_authorized_keys:\n  - {key.with_suffix('.pub').read_text()}"
    with workspace(tmp_path / "work") as (work, _):
        seed.write(Seed("one", "guest-1", told.encode()), tmp_path / "seed.img", work=work)
    with System(tmp_path / "system", disk, size=SIZE, seed=tmp_path / "seed.img") as system:
        system.wait_for(MULTI_USER)
        said = system.ssh(
            key,
            "hostname; cat /proc/cmdline; df --output=size -B1M / | tail -n1; sudo cloud-init status --wait; "
            "systemctl --failed --no-legend; findmnt -no FSTYPE /boot/efi; cat /var/lib/cloud/data/instance-id; "
            "test -e /usr/sbin/policy-rc.d || echo services start; ls /etc/ssh/*_key | wc -l",
        )
        lines = [line.strip(".") for line in said.splitlines()]
        assert lines[0] == "guest-1"
        assert lines[1].endswith("console=ttyS0,115200")
        assert int(lines[2]) > SIZE // (1 << 20) * 0.9, "the root file system has not grown"
        assert lines[3:] == ["status: done", "vfat", "one", "services start", lines[-1]]
        assert int(lines[-1]) >= 3
        assert "guest-1 login:" in system.console()
        system.ssh(key, "sudo systemctl --no-block poweroff")
        assert system.wait_off() == 0


def test_it_boots_by_uefi_too(disk: Path, tmp_path: Path) -> None:
    with System(tmp_path / "system", disk, size=SIZE, uefi=True) as system:
        system.wait_for("Welcome to")
        assert "EFI v2" in system.console()


def test_as_an_image_it_is_a_bios_disk(disk: Path, tmp_path: Path) -> None:
    image = ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0)).import_file(disk)
    assert image.disk is not None
    assert (image.disk.firmware, image.disk.size) == ("bios", 2 << 30)
