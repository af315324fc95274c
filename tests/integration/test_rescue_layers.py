"""Systems below other layers: a mirror (mdadm) that is encrypted (LUKS), with Btrfs' subvolumes in it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.rescue import rescue_layout
from tests.integration.disks import MIB, digest

pytestmark = pytest.mark.timeout(1800)
PATIENCE = 300.0
PASSPHRASE = "open sesame"
MAKE = f"""
set -e
modprobe -a raid1 dm-mod dm-crypt xts aes_generic btrfs
d=$(ls /dev/vd? | tail -n 1)
printf 'label: gpt\\nsize=200M\\nsize=200M\\n' | sfdisk -q --no-tell-kernel $d
blockdev --rereadpt $d
mdadm --create /dev/md0 --run --quiet --level=1 --raid-devices=2 --metadata=1.2 ${{d}}1 ${{d}}2
printf %s '{PASSPHRASE}' >/tmp/key
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --cipher aes-xts-plain64 /dev/md0 /tmp/key
cryptsetup open --key-file /tmp/key /dev/md0 inner
mkfs.btrfs -q /dev/mapper/inner
mount /dev/mapper/inner /mnt
btrfs -q subvolume create /mnt/@rootfs
cd /mnt/@rootfs
mkdir -p etc bin dev proc sys run tmp lib64 lib/x86_64-linux-gnu
echo 'below layers' >etc/name
cp /bin/sh /bin/cat bin
cp -L /lib64/ld-linux-x86-64.so.2 lib64
cp -L /lib/x86_64-linux-gnu/libc.so.6 lib/x86_64-linux-gnu
cd /
umount /mnt
cryptsetup close inner
mdadm --stop --quiet /dev/md0
sync
echo made
"""
"""By the helper machine's own tools; what is on the host is not asked."""


@pytest.fixture
def helper(shared_daemon: Daemon) -> Daemon:
    shared_daemon.cli("image", "import", rescue_layout())
    return shared_daemon


def at_terminal(daemon: Daemon, *arguments: str | Path) -> str:
    """`bulkhead rescue` at a terminal, at which the passphrase is typed when it is asked for; what was shown."""
    with ExitStack() as stack:
        ours, theirs = pty.openpty()
        stack.callback(os.close, ours)
        process = subprocess.Popen(
            [str(BULKHEAD), "rescue", "--network", "none", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**daemon.environment(), "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)
        stack.callback(process.wait, timeout=PATIENCE)
        stack.callback(process.terminate)
        shown, typed = "", 0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed: it has ended
                break
            shown += data.decode(errors="replace")
            if len(re.findall("Enter passphrase", shown)) > typed:
                os.write(ours, f"{PASSPHRASE}\n".encode())
                typed += 1
        assert process.wait(timeout=PATIENCE) == 0, shown
        return shown


def test_a_mirror_that_is_encrypted_with_btrfs_in_it(helper: Daemon, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(420 * MIB)
    made = helper.cli("rescue", "--network", "none", "--tools", "-w", disk, stdin=MAKE, timeout=PATIENCE)
    assert made.stdout.endswith("made\n"), made.stdout + made.stderr
    before = digest(disk)
    shown = at_terminal(helper, disk, "cat", "/etc/name")
    assert "below layers" in shown
    assert "linux_raid_member" in shown
    assert "btrfs" in shown
    assert digest(disk) == before
    # One half of the mirror is gone: what is left is opened, and repaired.
    with disk.open("r+b") as file:
        file.seek(201 * MIB)
        file.write(bytes(8 * MIB))
    at_terminal(helper, "-w", disk, "sh", "-c", "echo repaired > /etc/name")
    assert "repaired" in at_terminal(helper, disk, "cat", "/etc/name")
    assert helper.json("ps", "-a", "--format", "json") == []
