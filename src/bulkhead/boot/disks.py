"""Disks that boot by themselves: Debian with systemd, cloud-init and ssh, made from its packages.

What goes into the root file system is data here; who runs mmdebstrap hands the finished tree over as a tar, and
`build` makes the disk of it, in files alone: no mount, no loop device.

    GPT | BIOS boot partition (14) with GRUB | EFI system partition (15) | root, ext4 (1), the last, so that it can grow
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bulkhead.boot import grub
from bulkhead.errors import HostError, Problem, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.host import processes
from bulkhead.quantities import format_size

DEFAULT_SIZE = 2 << 30
MIN_SIZE, MAX_SIZE = 1 << 30, 64 << 30
FIRMWARES = ("bios", "uefi")
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "systemd-resolved", "systemd-timesyncd"),
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "grub-pc-bin", "grub-efi-amd64-bin"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "openssh-server", "sudo"),
    "qemu-guest-agent",  # bulkhead exec
    *("iproute2", "iputils-ping", "netbase", "ca-certificates", "less"),
)
_SECTOR, _MIB = 512, 1 << 20
_BIOS_AT, _EFI_AT, _ROOT_AT = 1 * _MIB, 2 * _MIB, 66 * _MIB
_TAIL = 1 * _MIB
"""Left free for the second partition table."""
_TYPES = {
    "bios": "21686148-6449-6E6F-744E-656564454649",
    "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "root": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
}
_NAMESPACE = uuid.UUID("0f2c5f0e-55b5-4a27-8f8a-6f6f4f0f7a1d")
_SECONDS = 900.0
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--")
"""In front of what takes its time: it ends with the thread that waits for it."""

_DHCP = """# Where cloud-init has set nothing up. The name sorts behind that of its files.
[Match]
Name=en* eth*
[Network]
DHCP=yes
IPv6AcceptRA=yes
"""
_CLOUD = """datasource_list: [NoCloud, None]
ssh_pwauth: false
# The package that would set one is not there: C.UTF-8 is the system's own.
locale: false
"""
_WAIT = """# A machine without a network card has nothing to wait for: after two minutes it would be degraded.
[Unit]
ConditionPathExistsGlob=/sys/class/net/e*
"""
_SSH_KEYS = """# Where cloud-init has made no keys.
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""


@dataclass(frozen=True, slots=True)
class DiskRecipe:
    """A disk that is to be made. `label` names what its identifiers are derived from: the same, the same ids."""

    size: int
    """Bytes, as a guest sees them."""
    firmware: str
    label: str
    epoch: int
    """When it is made, in seconds since the epoch."""

    def id(self, what: str) -> uuid.UUID:
        """The identifier of one of its parts."""
        return uuid.uuid5(_NAMESPACE, f"{self.label} {self.epoch} {what}")

    @property
    def volume(self) -> str:
        """The serial number of the EFI system partition's FAT, 8 hex digits."""
        return self.id("fat").hex[:8]

    def files(self) -> dict[str, bytes]:
        """What goes into the root file system besides packages, by absolute path."""
        root, volume = self.id("root"), self.volume.upper()
        texts = {
            "/etc/fstab": f"UUID={root} / ext4 errors=remount-ro 0 1\n"
            f"UUID={volume[:4]}-{volume[4:]} /boot/efi vfat umask=0077,nofail 0 2\n",
            "/etc/systemd/network/80-dhcp.network": _DHCP,
            "/etc/systemd/system/systemd-networkd-wait-online.service.d/card.conf": _WAIT,
            "/etc/cloud/cloud.cfg.d/90_bulkhead.cfg": _CLOUD,
            # Also without a seed: the root file system is to grow.
            "/etc/cloud/ds-identify.cfg": "policy: enabled\n",
            "/etc/systemd/system/ssh.service.d/keys.conf": _SSH_KEYS,
            "/etc/tmpfiles.d/resolv.conf": "L /etc/resolv.conf - - - - ../run/systemd/resolve/stub-resolv.conf\n",
            **grub.files(root),
        }
        return {path: text.encode() for path, text in texts.items()}

    def hooks(self) -> tuple[str, ...]:
        """Commands for mmdebstrap's end, with the root file system's path as "$1"."""
        return (
            *grub.hooks(),
            'chroot "$1" systemctl enable systemd-networkd.service',
            # Services start here, and every machine makes keys of its own.
            'rm -f "$1/usr/sbin/policy-rc.d" "$1"/etc/ssh/ssh_host_*',
            'mkdir -p "$1/boot/efi"',
        )


def plan(*, size: int | None, firmware: str | None, label: str, epoch: int) -> DiskRecipe:
    """Check what is asked for; None is the usual. Raises Refused with all that is wrong.

    Raises Unavailable on a host of another architecture than x86_64.
    """
    if platform.machine() != "x86_64":
        raise Unavailable(f"disks are made for x86_64 only, this host is {platform.machine()}")
    wanted, kind = size or DEFAULT_SIZE, firmware or "bios"
    problems = []
    if not MIN_SIZE <= wanted <= MAX_SIZE:
        what = f"a disk of {format_size(wanted)} is not between {format_size(MIN_SIZE)} and {format_size(MAX_SIZE)}"
        problems.append(Problem(what, "an instance's disk is grown to its plan: the image's need not be large"))
    elif wanted % _MIB:
        problems.append(Problem(f"a disk of {wanted} bytes is no whole number of MiB"))
    if kind not in FIRMWARES:
        problems.append(Problem(f"firmware {kind!r} is not known", f"use {' or '.join(FIRMWARES)}"))
    if problems:
        raise Refused(problems)
    return DiskRecipe(wanted, kind, label, epoch)


def build(recipe: DiskRecipe, chunks: Iterable[bytes], work: Path, progress: Progress) -> Path:
    """Make the disk in the empty directory `work` of a root file system's tar, made with the recipe's files and hooks.

    The sparse raw file. Raises HostError; the caller removes `work`.
    """
    archive, tree, disk = work / "root.tar", work / "root", work / "disk.raw"
    with archive.open("wb") as file:
        file.writelines(chunks)
    progress(Step("unpacking the root file system"))
    tree.mkdir(mode=0o755)
    names = ("--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--same-permissions")
    _run("tar", *names, f"--file={archive}", f"--directory={tree}")
    archive.unlink()
    (tree / "dev").mkdir(exist_ok=True)  # what makes the tar leaves it out with all that is in it
    with disk.open("xb") as file:
        file.truncate(recipe.size)
    progress(Step("writing the partition table"))
    _partition(recipe, disk)
    progress(Step("writing the root file system"))
    _write_root(recipe, tree, disk)
    progress(Step("writing the boot loader"))
    _write_esp(recipe, tree, disk, work)
    if recipe.firmware == "bios":
        grub.write_bios(tree, disk, at=_BIOS_AT // _SECTOR, sectors=(_EFI_AT - _BIOS_AT) // _SECTOR)
    return disk


def table(recipe: DiskRecipe) -> str:
    """The partition table, as sfdisk reads it."""
    parts = {
        14: ("bios", _BIOS_AT, _EFI_AT - _BIOS_AT),
        15: ("efi", _EFI_AT, _ROOT_AT - _EFI_AT),
        1: ("root", _ROOT_AT, recipe.size - _TAIL - _ROOT_AT),
    }
    lines = [
        f"{number} : start={at // _SECTOR}, size={size // _SECTOR}, "
        f"type={_TYPES[name]}, uuid={recipe.id(name + '-part')}"
        for number, (name, at, size) in parts.items()
        if name != "bios" or recipe.firmware == "bios"
    ]
    return "\n".join(["label: gpt", f"label-id: {recipe.id('disk')}", "unit: sectors", *lines]) + "\n"


def _partition(recipe: DiskRecipe, disk: Path) -> None:
    argv: list[str | Path] = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk]
    processes.run(argv, stdin=table(recipe).encode(), package="fdisk")


def _write_root(recipe: DiskRecipe, tree: Path, disk: Path) -> None:
    # What older GRUBs cannot read is left out, and what is zero in a new file is not written again.
    features = "^metadata_csum_seed,^orphan_file"
    extended = f"offset={_ROOT_AT},hash_seed={recipe.id('hash')},lazy_itable_init=1,nodiscard"
    kilobytes = (recipe.size - _TAIL - _ROOT_AT) >> 10
    options = ("-q", "-F", "-L", "root", "-U", str(recipe.id("root")), "-O", features, "-E", extended)
    env = {"E2FSPROGS_FAKE_TIME": str(recipe.epoch)}
    processes.run(
        [*_BOUND, "mkfs.ext4", *options, "-d", tree, disk, f"{kilobytes}k"],
        timeout=_SECONDS,
        env=env,
        package="util-linux",
    )


def _write_esp(recipe: DiskRecipe, tree: Path, disk: Path, work: Path) -> None:
    env = {"SOURCE_DATE_EPOCH": str(recipe.epoch)}
    size = (_ROOT_AT - _EFI_AT) >> 10
    options = ("-F", "32", "-s", "1", "-i", recipe.volume, "-n", "ESP", "--offset", str(_EFI_AT // _SECTOR))
    processes.run(["mkfs.vfat", *options, disk, str(size)], env=env, package="dosfstools")
    image = f"{disk}@@{_EFI_AT}"
    loader = work / "BOOTX64.EFI"
    loader.write_bytes(grub.efi_loader(tree))
    os.utime(loader, (recipe.epoch, recipe.epoch))
    processes.run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"], env=env, package="mtools")
    processes.run(["mcopy", "-m", "-i", image, loader, "::/EFI/BOOT/BOOTX64.EFI"], env=env, package="mtools")


def _run(*argv: str) -> None:
    try:
        processes.run([*_BOUND, *argv], timeout=_SECONDS, package="util-linux")
    except HostError as error:
        raise HostError(f"the disk could not be made: {error.what}", hint=error.hint) from error
