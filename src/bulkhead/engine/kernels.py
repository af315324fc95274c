"""Kernels of virtual machines: made by boot, kept as images, made ready for a start."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from bulkhead import elf
from bulkhead.agent.launch import find_agent
from bulkhead.boot import initrd, kernels
from bulkhead.boot import trim as trimmed
from bulkhead.config import Config
from bulkhead.errors import HostError, ImageError, NotFound, Refused
from bulkhead.events import Progress, Step
from bulkhead.host.workspace import workspace
from bulkhead.images import Image, ImageStore, bootstrap
from bulkhead.images.archive import open_file

KIND = "kernel"
DEFAULT = "kernel/debian:latest"
DEFAULTS = ("kernel/trim:latest", DEFAULT)
"""What a virtual machine or a unikernel boots where nothing else is asked for: the first of these that is there."""


_STEP = 4 << 20


@dataclass(frozen=True, slots=True)
class ReadyKernel:
    """What QEMU is given."""

    digest: str
    """The image's."""
    elf: Path
    initrd: Path
    """With this host's agent in it."""


def make(
    images: ImageStore, config: Config, distribution: str, *, version: str | None, name: str | None, progress: Progress
) -> Image:
    """Make a kernel image of a distribution's package. `name` instead of kernel/<distribution>:<series> and :latest."""
    # The same place as a bootstrap's: what a crash leaves there is removed by the images' recovery.
    with workspace(config.cache_dir / "work") as (work, held):
        kernel = kernels.make(
            distribution, version=version, work=work, held=held, cache=config.cache_dir, progress=progress
        )
        return _add(images, kernel, name, None, progress)


def trim(
    images: ImageStore, config: Config, distribution: str, *, version: str | None, name: str | None, progress: Progress
) -> Image:
    """Make an image of a kernel that is trimmed to what guests need. Takes minutes; an image of the same recipe serves.

    `version`: of the distribution's source package. `name` instead of kernel/trim:<series> and :latest. Raises Refused,
    Unavailable, HostError when it cannot be built.
    """
    progress(Step("looking for the kernel's source"))
    build = trimmed.plan(distribution, version)
    made = next((image for image in images.list() if image.annotations.get(trimmed.RECIPE) == build.recipe), None)
    if made and made.kind == KIND:
        return _add(images, _kernel_of(made), name, made.created, progress)
    with workspace(config.cache_dir / "work") as (work, _):
        out = build_trimmed(images, build, work, progress=progress)
        kernel = trimmed.collect(build, out, work, progress)
        return _add(images, kernel, name, bootstrap.epoch_now(), progress)


def build_trimmed(
    images: ImageStore, build: trimmed.Build, work: Path, *, only_config: bool = False, progress: Progress
) -> Path:
    """Build in a throw-away root file system; the directory below `work` with the results.

    `only_config`: no further than the config. Raises Unavailable without room, HostError when it fails: also where
    the source does not take an option as the config asks for it.
    """
    trimmed.check_room(work)
    out = work / "built"
    out.mkdir()
    recipe = bootstrap.plan(
        trimmed.RELEASE,
        packages=build.packages,
        files=build.files,
        hooks=build.hooks(out, only_config=only_config),
        kept=False,
    )
    try:
        with images.bootstrapped(recipe, epoch=bootstrap.epoch_now(), progress=progress) as chunks:
            for _ in chunks:  # there are none; their end is that of the build
                pass
    except HostError as error:
        raise HostError(f"the trimmed kernel could not be built: {error.what}", hint=error.hint) from error
    return out


def _add(
    images: ImageStore, kernel: kernels.Kernel, name: str | None, created: float | None, progress: Progress
) -> Image:
    return images.add_files(
        KIND,
        [(kernels.ELF_TYPE, kernel.elf), (kernels.INITRD_TYPE, kernel.initrd)],
        names=[name] if name else kernel.names,
        architecture=kernel.architecture,
        annotations=kernel.annotations,
        created=created,
        progress=progress,
    )


def _kernel_of(image: Image) -> kernels.Kernel:
    """What a trimmed kernel's image was made of, to give it names again."""
    return kernels.Kernel(
        elf=elf_of(image),
        initrd=image.blob(kernels.INITRD_TYPE).path,
        names=trimmed.NAMES,
        architecture=image.architecture,
        annotations=dict(image.annotations),
    )


def find(images: ImageStore, name: str | None) -> Image:
    """The kernel image of a name, None: the default. Raises NotFound, and Refused for an image of another kind."""
    image = images.resolve(name) if name else _default(images)
    if image.kind != KIND:
        raise Refused(f"image {name} is no kernel", hint="bulkhead image kernel debian makes one")
    return image


def _default(images: ImageStore) -> Image:
    for name in DEFAULTS:
        with suppress(NotFound):
            return images.resolve(name)
    raise NotFound("there is no kernel image yet", hint="bulkhead image kernel debian")


def least_memory(kernel: Image) -> int:
    """Bytes of memory with which a machine of this kernel has some left for a workload. Raises ImageError.

    A sixth more than the kernel itself: with 6.1 the least that boots is 36 MiB for the trimmed one, which ends at 34,
    and 72 for Debian's, which ends at 62.
    """
    with ExitStack() as always:
        fd = open_file(elf_of(kernel), always)
        try:
            end = elf.end_in_memory(elf.read(lambda at, size: os.pread(fd, size, at)))
        except elf.Damaged as error:
            raise ImageError(f"the kernel of {kernel.digest} is damaged: {error}") from error
    return -(-(end + end // 6) // _STEP) * _STEP


def elf_of(image: Image) -> Path:
    """The kernel's own file."""
    return image.blob(kernels.ELF_TYPE).path


def prepare(image: Image, config: Config) -> ReadyKernel:
    """The kernel's files, its initrd joined with the agent. Cheap when called again."""
    modules = image.blob(kernels.INITRD_TYPE)
    return ReadyKernel(
        digest=image.digest,
        elf=elf_of(image),
        initrd=initrd.prepare(modules.path, digest=modules.digest, agent=find_agent(), cache=config.cache_dir),
    )
