"""The disk that `image bootstrap --disk` makes: boots by itself, with either firmware, and takes its seed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bulkhead.boot import seed
from bulkhead.boot.seed import Seed
from bulkhead.host.workspace import workspace
from bulkhead.images import Bounds, ImageStore
from tests.harness import systems
from tests.harness.systems import System

pytestmark = pytest.mark.timeout(900)
"""Where the disk is not in the cache it is made first."""
SIZE = 3 << 30
LOOK = """
until systemctl is-active -q multi-user.target; do sleep 1; done
hostname
cat /proc/cmdline
df --output=size -B1M / | tail -n1
tr -d '\\n' < /run/cloud-init/status.json; echo
systemctl --failed --no-legend
findmnt -no FSTYPE /boot/efi
cat /var/lib/cloud/data/instance-id
test -e /usr/sbin/policy-rc.d || echo services start
ls /etc/ssh/*_key | wc -l
"""


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
        # The console's own prompt: a line of systemd's may be lost when the terminal is hung up for it.
        system.wait_for("guest-1 login:")
        said = system.ssh(key, LOOK)
        lines = said.splitlines()
        assert lines[0] == "guest-1"
        assert lines[1].endswith("console=ttyS0,115200")
        assert int(lines[2]) > SIZE // (1 << 20) * 0.9, "the root file system has not grown"
        stages = json.loads(lines[3])["v1"]
        assert stages["datasource"].startswith("DataSourceNoCloud")
        assert not any(stages[name]["errors"] for name in ("init-local", "init", "modules-config"))
        assert lines[4:] == ["vfat", "one", "services start", lines[-1]]
        assert int(lines[-1]) >= 3
        system.press_power()
        assert system.wait_off() == 0


def test_it_boots_by_uefi_too(disk: Path, tmp_path: Path) -> None:
    with System(tmp_path / "system", disk, size=SIZE, uefi=True) as system:
        system.wait_for("Loading, please wait")
        assert "efi: EFI v2" in system.console()


def test_as_an_image_it_is_a_bios_disk(disk: Path, tmp_path: Path) -> None:
    image = ImageStore(tmp_path / "store", tmp_path / "cache", bounds=Bounds(keep_free=0)).import_file(disk)
    assert image.disk is not None
    assert (image.disk.firmware, image.disk.size) == ("bios", 2 << 30)
