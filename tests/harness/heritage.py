"""What a daemon of the tests need not find out or make anew: it is made once and handed on as files.

Every daemon gets how guests run on this host and the root of the hypervisor's jail: three seconds and two. A module
whose tests need a daemon each has an `Estate` besides: images, and templates of machines that have booted once.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bulkhead.boot import probe, processors, vmm
from bulkhead.boot.templates import KEY
from bulkhead.config import Config
from bulkhead.errors import BulkheadError
from tests.harness.images import CACHE

_LARGE = 1 << 20
"""Bytes from which a file is linked. Layers, kernels and templates' memory are never written to; small files may be."""


@dataclass(frozen=True, slots=True)
class Estate:
    """Images and templates of a daemon that was stopped, for others to begin with."""

    directory: Path

    @classmethod
    def of(cls, config: Config, directory: Path) -> Estate:
        """Take what a daemon that does not run any more has."""
        estate = cls(directory)
        for source, name in _places(config):
            if source.is_dir():
                shutil.copytree(source, directory / name, copy_function=_hand_on)
        return estate

    def give(self, config: Config) -> None:
        """To a daemon that has not been started yet."""
        for directory in (config.state_dir, config.cache_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for target, name in _places(config):
            if (self.directory / name).is_dir():
                shutil.copytree(self.directory / name, target, copy_function=_hand_on, dirs_exist_ok=True)
        for key in (config.cache_dir / "templates").glob(f"*/{KEY}"):
            os.utime(key, (0, 0))  # it has not been used there: no memory of it is to be held


def give_host(config: Config) -> None:
    """What is true of this host, whoever asks. Where there is no QEMU a daemon finds that out by itself."""
    with suppress(BulkheadError):
        jail = _jail()
        places = (config.run_dir, config.cache_dir, config.cache_dir / "vmm")
        for directory in places:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _hand_on(str(jail), str(places[-1] / jail.name))
        for record in (probe.RECORD, processors.RECORD):
            if (CACHE / record).exists():  # of KVM there is none where there is nothing to be tried
                _hand_on(str(CACHE / record), str(config.run_dir / record))


@cache
def _jail() -> Path:
    """The jail's root of the QEMU that is installed, beside the records of how it runs guests."""
    CACHE.mkdir(parents=True, exist_ok=True)
    processors.known(CACHE, probe.find(CACHE).accelerator)
    return vmm.prepare(CACHE).erofs


def _places(config: Config) -> tuple[tuple[Path, str], ...]:
    return (
        (config.images_dir, "images"),
        (config.cache_dir / "initrd", "initrd"),
        (config.cache_dir / "templates", "templates"),
    )


def _hand_on(source: str, target: str) -> str:
    """Copy a file, or link it where it is large and on the same file system."""
    if Path(source).stat().st_size >= _LARGE:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return target
    return shutil.copy2(source, target)
