"""GRUB on a disk, put there without grub-install, which would want the disk as a device.

Its parts are made in the new root file system, by the GRUB that is installed there. For a BIOS: boot.img in the first
sector loads core.img from the BIOS boot partition; where that begins is written into both (GRUB 2.06,
util/setup.c: kernel_sector of boot.img, the last block list of core.img's first sector). For UEFI: one program under
the name that firmware looks for where nothing is set up.
"""

from __future__ import annotations

import os
import stat
import struct
import uuid
from pathlib import Path

from bulkhead.errors import HostError

_BOOT, _CORE, _EFI = "boot/grub/boot.img", "boot/grub/core.img", "boot/grub/core.efi"
_EARLY = "/boot/grub/early.cfg"
_MODULES = (
    *("part_gpt", "ext2", "normal", "linux", "search", "search_fs_uuid", "configfile", "echo", "test", "all_video"),
    *("serial", "terminal", "gzio", "sleep", "reboot", "halt", "ls", "cat"),
)
_MOST = 16 << 20
_SECTOR = 512
_CODE = 440
"""Bytes of code in the first sector; the partition table follows."""
_KERNEL_SECTOR, _DRIVE_CHECK = 0x5C, 0x66
_FIRST_BLOCK = 0x1F4
"""In core.img's first sector: u64 of where the rest of it begins."""

_CONFIG = """# Written once. Kernels are found by the links that Debian's packages keep in /.
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=0
linux /vmlinuz root=UUID={root} ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
"""
_SEARCH = "search.fs_uuid {root} root\nset prefix=($root)/boot/grub\n"


def files(root: uuid.UUID) -> dict[str, str]:
    """What the root file system must have, by absolute path. `root` is its own identifier."""
    return {"/boot/grub/grub.cfg": _CONFIG.format(root=root), _EARLY: _SEARCH.format(root=root)}


def hooks() -> tuple[str, ...]:
    """Commands that make GRUB's parts in a root file system with `files`; its path is "$1"."""
    common = f"--config={_EARLY} --prefix=/boot/grub"
    modules = " ".join(_MODULES)
    return (
        f'chroot "$1" grub-mkimage --format=i386-pc --output=/{_CORE} {common} biosdisk {modules}',
        f'chroot "$1" grub-mkimage --format=x86_64-efi --output=/{_EFI} {common} {modules}',
        f'cp "$1/usr/lib/grub/i386-pc/boot.img" "$1/{_BOOT}"',
    )


def efi_loader(tree: Path) -> bytes:
    """The program that UEFI starts, of a root file system in which the hooks have run."""
    return _read(tree / _EFI)


def write_bios(tree: Path, disk: Path, *, at: int, sectors: int) -> None:
    """Make a disk bootable by a BIOS: `at` is the first sector of its BIOS boot partition. Raises HostError."""
    boot, core = bytearray(_read(tree / _BOOT)), bytearray(_read(tree / _CORE))
    if len(boot) != _SECTOR or not _SECTOR < len(core) <= sectors * _SECTOR:
        raise HostError(f"GRUB's parts have {len(boot)} and {len(core)} bytes, which is not to be believed")
    struct.pack_into("<Q", boot, _KERNEL_SECTOR, at)
    # Two NOPs: the drive is a hard disk whatever the BIOS says of it.
    boot[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<Q", core, _FIRST_BLOCK, at + 1)
    with disk.open("r+b") as file:
        file.write(boot[:_CODE])
        file.seek(at * _SECTOR)
        file.write(core)


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:  # noqa: PTH123
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and info.st_size <= _MOST:
                return file.read(_MOST)
    except OSError as error:
        raise HostError(f"the root file system lacks {path.name}: {error.strerror}") from error
    raise HostError(f"{path.name} of the root file system is no file of at most {_MOST} bytes")
