"""Volumes: disks that outlive instances, one sparse ext4 file each."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, NotFound
from bulkhead.host import cgroups, loop, mounts, syscalls
from bulkhead.model import NAME_PATTERN
from bulkhead.storage import area, ext4, foreign
from bulkhead.storage.blank import Blanks
from bulkhead.tenancy.names import SEPARATOR

_NAME = re.compile(rf"(?:[a-z0-9-]{{1,32}}{SEPARATOR})?{NAME_PATTERN[1:-1]}")


class Volumes:
    """Makes, attaches and deletes volumes: `volumes_dir/NAME.img`, mounted at `run_dir/volumes/NAME`. Thread-safe.

    NAME is unique on the host (`Volume.key`).
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._area = area.directory(config, "volumes")
        self._blanks = Blanks(config.state_dir / "pool")
        self._lock = threading.Lock()

    @cached_property
    def _layout(self) -> cgroups.Layout:
        return cgroups.detect()

    def create(self, name: str, size: int) -> None:
        """Make a volume of `size` bytes with an empty `data` directory, owned by 0:0. Conflict when there is one."""
        with self._lock:
            file = self._file(name)
            if file.exists():
                raise Conflict(f"volume {name} is there already")
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._blanks.write(file, size, ("data",))

    def attach(self, name: str) -> Path:
        """Mount a volume; returns the directory `data` in it, which is what an instance sees. Fine when mounted."""
        with self._lock:
            file = self._file(name)
            if not file.exists():
                raise NotFound(f"volume {name} does not exist", hint="bulkhead volume ls")
            foreign.check(file, f"volume {name}")
            ext4.mount_file(file, self._target(name), flags=syscalls.MS_NODEV)
            return self._target(name) / "data"

    def give(self, name: str, *, read_only: bool) -> Path:
        """The file of a volume that nobody else uses, for a guest's kernel; one that writes gets it for good."""
        with self._lock:
            file = self._file(name)
            if not file.exists():
                raise NotFound(f"volume {name} does not exist", hint="bulkhead volume ls")
            busy = ext4.release(self._target(name), layout=self._layout)
            if busy is not None:
                raise Conflict(f"volume {name} is still in use on the host as {busy.path}")
            if not read_only:
                foreign.mark(file)
            return file

    def device(self, name: str) -> tuple[int, int] | None:
        """(major, minor) of the block device of an attached volume."""
        return mounts.device_at(self._target(name))

    def detach(self, name: str) -> None:
        """Write everything and unmount. Idempotent. As with disks, a process of the host's can keep the device."""
        with self._lock:
            ext4.release(self._target(name), layout=self._layout)

    def delete(self, name: str) -> None:
        """Delete a volume with its data. Idempotent."""
        with self._lock:
            target = self._target(name)
            ext4.destroy(ext4.condemn(self._file(name), target), target, layout=self._layout)
            foreign.forget(self._file(name))

    def usage(self, name: str) -> tuple[int, int]:
        """Bytes used and in all, as df tells. NotFound when the volume is not attached."""
        if self.device(name) is None:
            raise NotFound(f"volume {name} is not attached")
        return ext4.usage(self._target(name))

    def recover(self, known: Collection[str]) -> list[str]:
        """After a crash: detach every volume that is not in `known`. Says which. Data is never deleted."""
        found = []
        with self._lock:
            for entry in area.mounted(self._config, "volumes"):
                if entry.target.name not in known:
                    found.append(f"volume {entry.target.name}")
                    ext4.release(entry.target, layout=self._layout)
            files = self._config.volumes_dir.resolve()
            for device in loop.attached():
                if device.backing.parent == files and device.backing.stem not in known:
                    found.append(f"loop device of {device.backing}")
                    ext4.free(device, layout=self._layout)
            for file in self._config.volumes_dir.glob("*.img.new"):
                found.append(f"file {file}")
                file.unlink(missing_ok=True)
            area.tidy(self._config, "volumes")
        return found

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise HostError(f"{name!r} is no volume's name")
        return self._config.volumes_dir / f"{name}.img"

    def _target(self, name: str) -> Path:
        return self._area / self._file(name).stem
