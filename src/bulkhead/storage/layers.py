"""Layers of images: EROFS files, each mounted once, read-only, and shared by every instance."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Collection
from pathlib import Path

from bulkhead.config import Config
from bulkhead.errors import HostError, NotFound
from bulkhead.host import loop, mounts, syscalls
from bulkhead.host.syscalls import CallError
from bulkhead.storage import area

_DIFF_ID = re.compile(r"^sha256:([0-9a-f]{64})$")
_FLAGS = syscalls.MS_RDONLY | syscalls.MS_NODEV | syscalls.MS_NOSUID


class Layers:
    """Mounts layers at `run_dir/layers/<hex of the diff id>`. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._area = area.directory(config, "layers")
        self._lock = threading.Lock()
        self._mounted: dict[str, Path] = {}

    def mount_layer(self, diff_id: str, erofs: Path) -> Path:
        """Where the layer is mounted; mounts the EROFS file when it is not yet. `diff_id` is "sha256:<hex>"."""
        known = self._mounted.get(diff_id)
        if known:
            return known
        with self._lock:
            target = self._target(diff_id)
            if mounts.device_at(target) is None:
                if not erofs.is_file():
                    raise NotFound(f"layer {diff_id} has no file {erofs}")
                target.mkdir(exist_ok=True, mode=0o700)
                try:
                    _mount_erofs(erofs, target)
                except BaseException:
                    area.remove_mount_point(target)
                    raise
            self._mounted[diff_id] = target
            return target

    def unmount(self, diff_id: str) -> None:
        """Let go of a layer that no instance uses. Idempotent."""
        with self._lock:
            self._mounted.pop(diff_id, None)
            self._release(self._target(diff_id))

    def recover(self, known: Collection[str]) -> list[str]:
        """After a crash: unmount every layer that is not in `known` (diff ids). Says which."""
        kept = {self._target(diff_id).name for diff_id in known}
        found = []
        with self._lock:
            for entry in area.mounted(self._config, "layers"):
                if entry.target.name not in kept:
                    found.append(f"layer {entry.target.name}")
                    self._mounted.pop(f"sha256:{entry.target.name}", None)
                    self._release(entry.target)
            area.tidy(self._config, "layers")
        return found

    def close(self, in_use: Collection[str]) -> None:
        """Unmount all layers but those in use, whose instances run on."""
        self.recover(in_use)
        area.release(self._config)

    def _release(self, target: Path) -> None:
        mounts.unmount(target, patience=1.0, lazy=True)
        area.remove_mount_point(target)

    def _target(self, diff_id: str) -> Path:
        found = _DIFF_ID.fullmatch(diff_id)
        if not found:
            raise HostError(f"{diff_id!r} is no layer's digest")
        return self._area / found[1]


def _mount_erofs(file: Path, target: Path) -> None:
    """Mount an EROFS file. Kernels before 6.12 cannot without a block device: they answer ENOTBLK."""
    try:
        syscalls.mount(file, target, "erofs", _FLAGS)
    except CallError as error:
        if error.errno == errno.ENOTBLK:
            _mount_by_loop(file, target)
        elif error.errno == errno.ENODEV:
            raise CallError("mount erofs", file, errno.ENODEV, hint="modprobe erofs") from error
        else:
            raise


def _mount_by_loop(file: Path, target: Path) -> None:
    attached = loop.attach(file, read_only=True)
    try:
        syscalls.mount(attached.loop.path, target, "erofs", _FLAGS)
    finally:
        attached.close()
