"""Kernels of virtual machines: made by boot, kept as images, made ready for a start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bulkhead.agent.launch import find_agent
from bulkhead.boot import initrd, kernels
from bulkhead.config import Config
from bulkhead.errors import NotFound, Refused
from bulkhead.events import Progress
from bulkhead.host.workspace import workspace
from bulkhead.images import Image, ImageStore

KIND = "kernel"
DEFAULT = "kernel/debian:latest"
"""What a virtual machine boots where nothing else is asked for."""


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
        return images.add_files(
            KIND,
            [(kernels.ELF_TYPE, kernel.elf), (kernels.INITRD_TYPE, kernel.initrd)],
            names=[name] if name else kernel.names,
            architecture=kernel.architecture,
            annotations=kernel.annotations,
            progress=progress,
        )


def find(images: ImageStore, name: str | None) -> Image:
    """The kernel image of a name, None: the default. Raises NotFound, and Refused for an image of another kind."""
    try:
        image = images.resolve(name or DEFAULT)
    except NotFound as error:
        if name:
            raise
        raise NotFound("there is no kernel image yet", hint="bulkhead image kernel debian") from error
    if image.kind != KIND:
        raise Refused(f"image {name} is no kernel", hint="bulkhead image kernel debian makes one")
    return image


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
