"""The directories of mount points. Each lies on a private mount of its own.

Private, so that what is mounted there neither appears in other mount namespaces nor is kept from being moved.
"""

from __future__ import annotations

import errno
from pathlib import Path

from bulkhead.config import Config
from bulkhead.host import mounts
from bulkhead.host.syscalls import CallError

NAMES = ("disks", "layers", "pool", "volumes")


def directory(config: Config, name: str) -> Path:
    """Where one of `NAMES` is."""
    return config.run_dir / name


def prepare(config: Config) -> None:
    """Make the directories and their private mounts. Idempotent."""
    for name in NAMES:
        area = directory(config, name)
        area.mkdir(parents=True, exist_ok=True, mode=0o700)
        mounts.private_bind(area)


def release(config: Config) -> None:
    """Undo `prepare` for every area in which nothing is mounted any more. Idempotent."""
    for name in NAMES:
        area = directory(config, name)
        if not mounts.is_mounted(area):
            continue
        try:
            mounts.unmount(area)
        except CallError as error:
            if error.errno != errno.EBUSY:
                raise


def mounted(config: Config, name: str) -> list[mounts.MountEntry]:
    """What is mounted in an area, the topmost first."""
    area = directory(config, name).resolve()
    return [entry for entry in mounts.below(area) if entry.target.parent == area]


def tidy(config: Config, name: str) -> None:
    """Remove the mount points at which nothing is mounted."""
    area = directory(config, name)
    taken = {entry.target.name for entry in mounted(config, name)}
    if not area.is_dir():
        return
    for entry in area.iterdir():
        if entry.name not in taken:
            remove_mount_point(entry)


def remove_mount_point(target: Path) -> None:
    """Remove an empty directory; a missing one is fine."""
    try:
        target.rmdir()
    except FileNotFoundError:
        return
