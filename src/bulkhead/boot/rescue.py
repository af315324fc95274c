"""The helper machine's tools: which packages, the modules of its kernel, and the script that opens a foreign disk.

The modules of file systems that guests have no use for (XFS, Btrfs, FAT, device mapper, RAID) are in this image and not
in the initrd: no other machine's boot reads them or has them in memory.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from dataclasses import dataclass
from pathlib import Path

RELEASE = "debian:bookworm"
NAME = f"rescue/{RELEASE}"
RECIPE = "org.bulkhead.rescue.recipe"
SCRIPT = "org.bulkhead.rescue.script"
"""The labels that say which recipe an image was made by, and which script is in it."""
PROGRAM = "/usr/local/sbin/bulkhead-rescue"
PACKAGES = (
    *("btrfs-progs", "cryptsetup-bin", "dosfstools", "e2fsprogs", "exfatprogs", "xfsprogs"),
    *("fdisk", "gdisk", "kmod", "lvm2", "mdadm", "gddrescue", "testdisk"),
    *("ca-certificates", "curl", "iproute2", "less", "nano", "openssh-client", "procps", "rsync", "vim-tiny"),
)
_PARTS = (
    "kernel/fs",
    "kernel/drivers/md",
    "kernel/lib",
    "kernel/crypto",
    "kernel/arch",
    "kernel/drivers/block",
    "modules.*",
)
"""Of the kernel's modules."""
_SCRIPT = Path(__file__).with_name("rescue.sh")


@dataclass(frozen=True, slots=True)
class Tools:
    """What goes into the image."""

    release: str
    """The kernel's, as uname -r says."""
    deb: Path
    """Its package, downloaded."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """Commands for a shell of the host's, whose "$1" is the root file system."""
        parts = " ".join(shlex.quote(f"./lib/modules/{self.release}/{part}") for part in _PARTS)
        unpack = 'tar -C "$1" --keep-directory-symlink --wildcards -xf -'
        return (
            f"dpkg-deb --fsys-tarfile {shlex.quote(str(self.deb))} | {unpack} {parts}",
            f'depmod -b "$1" {shlex.quote(self.release)}',
        )


def recipe(release: str) -> str:
    """What says whether an image has the packages and modules that it would get now."""
    return hashlib.sha256(repr((release, PACKAGES, _PARTS)).encode()).hexdigest()[:32]


def script_path() -> str:
    """Where the script is on this host."""
    return str(_SCRIPT)


def script() -> tuple[bytes, str]:
    """The script in a layer of its own, a tar, and what says which one it is. So a new one needs no new image."""
    data = _SCRIPT.read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.size, entry.mode = len(data), 0o755
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue(), hashlib.sha256(data).hexdigest()[:32]
