"""Unikernels made here: a kernel, and an initramfs with one program, its files and a small init."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bulkhead.agent.launch import find_agent
from bulkhead.boot import closure, initrd, solo
from bulkhead.boot import kernels as boot_kernels
from bulkhead.boot.closure import Closure, OneProgram
from bulkhead.boot.solo import Settings
from bulkhead.config import Config
from bulkhead.engine import kernels
from bulkhead.errors import Refused
from bulkhead.events import Progress, Step
from bulkhead.host.workspace import workspace
from bulkhead.images import Image, ImageConfig, ImageStore, unikernels
from bulkhead.images.archive import open_file
from bulkhead.images.below import Below
from bulkhead.images.reference import parse_tagged
from bulkhead.isolation import vmm

_ETC = 1 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made."""

    source: str
    """An image's name, or with `program` the absolute path of a static program."""
    program: bool
    name: str
    command: Sequence[str] = ()
    """In the place of the image's, or the program's arguments."""
    keep: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str | None = None
    workdir: str | None = None
    kernel: str | None = None


def build(images: ImageStore, config: Config, order: Order, progress: Progress) -> Image:
    """Make an image of it. Raises Refused, NotFound, ImageError."""
    name, kernel = str(parse_tagged(order.name)), kernels.find(images, order.kernel)
    progress(Step(f"collecting the files of {order.source}"))
    with ExitStack() as always:
        files, base = _program(order) if order.program else _image(images, order, always)
        settings, settled = _settings(order, files, base)
        for path in (*settings.writable, settings.directory, solo.DISK):
            files.directory(path)
        for path in order.keep:
            files.keep(path)
        application = closure.archive(files.entries(), settings.encode())
    with workspace(config.cache_dir / "work") as (work, _):
        made = work / "initrd"
        modules = kernel.blob(boot_kernels.INITRD_TYPE).path
        made.write_bytes(initrd.agent_archive(find_agent().read_bytes()) + modules.read_bytes() + application)
        return images.add_unikernel(
            kernels.elf_of(kernel),
            made,
            names=[name],
            config=settled,
            annotations=unikernels.annotated(vmm.CMDLINE, type_="linux", initrd=True, own=solo.VERSION),
            source=f"build --unikernel {order.source}",
            progress=progress,
        )


def _program(order: Order) -> tuple[Closure, ImageConfig]:
    """A static program that is a file of the host."""
    path = Path(order.source)
    with ExitStack() as stack:
        fd = open_file(path, stack)
        size = path.stat().st_size
        if size > closure.MAX_BYTES:
            raise Refused(f"{path} has {size} bytes, at most {closure.MAX_BYTES} are allowed")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(closure.MAX_BYTES)
    place = f"/{path.name}"
    return Closure(OneProgram(place, data)), ImageConfig(entrypoint=(place,))


def _image(images: ImageStore, order: Order, always: ExitStack) -> tuple[Closure, ImageConfig]:
    image = images.resolve(order.source)
    if image.kind != "rootfs":
        raise Refused(f"image {order.source} is a {image.kind}, not a root file system")
    files = [open_file(layer.erofs, always) for layer in reversed(image.layers)]
    config = image.config
    if order.command:
        config = replace(config, entrypoint=(), cmd=tuple(order.command))
    return Closure(Below(files)), config


def _settings(order: Order, files: Closure, base: ImageConfig) -> tuple[Settings, ImageConfig]:
    """What the init is told, and the image's configuration."""
    argv = (*base.entrypoint, *(order.command if order.program else base.cmd))
    if not argv:
        raise Refused(f"image {order.source} has no command of its own", hint="name one after the image")
    environment = _merged(base.env, order.env)
    search = next((entry[5:] for entry in environment if entry.startswith("PATH=")), closure.DEFAULT_PATH)
    directory = order.workdir or base.workdir or "/"
    words = argv[0] if "/" not in argv[0] or argv[0].startswith("/") else str(PurePosixPath(directory) / argv[0])
    try:
        program = files.program(words, search)
    except Refused as error:
        if order.program:
            raise Refused(f"{order.source} is not a static program: {error.what}", hint=error.hint) from error
        raise
    for known in ("/etc/passwd", "/etc/group", "/etc/ld.so.cache"):
        files.optional(known)
    user = order.user if order.user is not None else base.user
    uid, gid = solo.find_user(user, files.read("/etc/passwd", _ETC), files.read("/etc/group", _ETC))
    writable = tuple(dict.fromkeys((*solo.WRITABLE, *base.volumes)))
    settings = Settings(uid, gid, directory, program, argv, environment, writable)
    return settings, replace(base, entrypoint=argv, cmd=(), env=environment, workdir=directory, user=user)


def _merged(*layers: Sequence[str]) -> tuple[str, ...]:
    merged = {entry.partition("=")[0]: entry for layer in layers for entry in layer}
    return tuple(merged.values())
