"""Disks with a whole system: made by boot of a root file system's tar that images makes, kept as an image."""

from __future__ import annotations

from collections.abc import Sequence

from bulkhead.boot import disks
from bulkhead.config import Config
from bulkhead.errors import Problem, Refused
from bulkhead.events import Progress
from bulkhead.host.workspace import workspace
from bulkhead.images import Image, ImageStore, bootstrap


def make(
    images: ImageStore,
    config: Config,
    release: str,
    *,
    packages: Sequence[str] = (),
    name: str | None = None,
    size: int | None = None,
    firmware: str | None = None,
    progress: Progress,
) -> Image:
    """Make the image of a disk with a distribution's release: "debian:bookworm". Takes a few minutes.

    `size`: bytes of the disk; an instance gets a copy grown to its plan. `firmware`: "bios" or "uefi". The name is by
    default disk/<release>, with the packages after a dash. Raises Refused with all that is wrong, HostError,
    ImageError.
    """
    epoch = bootstrap.epoch_now()
    disk, recipe, usual = plan(release, packages, size=size, firmware=firmware, epoch=epoch)
    # The same place as a bootstrap's: what a crash leaves there is removed by the images' recovery.
    with workspace(config.cache_dir / "work") as (work, _):
        with images.bootstrapped(recipe, epoch=epoch, progress=progress) as chunks:
            made = disks.build(disk, chunks, work, progress)
        return images.import_file(made, name=name or usual, progress=progress)


def plan(
    release: str, packages: Sequence[str], *, size: int | None, firmware: str | None, epoch: int
) -> tuple[disks.DiskRecipe, bootstrap.Recipe, str]:
    """The disk, its root file system, and what an image of it is called. Raises Refused with all that is wrong."""
    problems: list[Problem] = []
    label = " ".join([release, *packages])
    try:
        disk = disks.plan(size=size, firmware=firmware, label=label, epoch=epoch)
    except Refused as error:
        problems += error.problems
        disk = disks.plan(size=None, firmware=None, label=label, epoch=epoch)
    try:
        asked = bootstrap.plan(release, packages=packages, files={})
        recipe = bootstrap.plan(
            asked.suite, packages=(*disks.PACKAGES, *packages), files=disk.files(), hooks=disk.hooks()
        )
    except Refused as error:
        problems += error.problems
    if problems:
        raise Refused(problems)
    return disk, recipe, f"disk/{asked.default_name}"
