"""Kernels for virtual machines, made from a distribution's packages: the uncompressed kernel, and its modules.

The modules are one half of the initrd; the other half is the agent, which `boot/initrd.py` puts in front of them.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bulkhead.boot import cpio, debian, modules, vmlinux
from bulkhead.boot.unpacking import unpack
from bulkhead.errors import ImageError, Refused, Unavailable
from bulkhead.events import Progress, Step

DISTRIBUTIONS = ("debian",)
ELF_TYPE = "application/vnd.bulkhead.kernel.elf"
INITRD_TYPE = "application/vnd.bulkhead.kernel.initrd"
"""Media types of a kernel image's two files."""
LIST = "modules"
"""The initrd's file that names the modules, a path in each line, in the order in which they are to be loaded."""
_DIRECTORY = "lib/modules"
_MAX_IMAGE, _MAX_MODULE = 128 << 20, 32 << 20


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that was made: two files, and what is to be said of them."""

    elf: Path
    """The uncompressed kernel, an ELF file with the entry of PVH."""
    initrd: Path
    """A cpio archive with its modules and the list of them."""
    names: tuple[str, ...]
    """What an image of it is called by default."""
    architecture: str
    """In Go's words."""
    annotations: dict[str, str]


def make(distribution: str, *, version: str | None, work: Path, held: int, cache: Path, progress: Progress) -> Kernel:
    """Make a kernel in the workspace `work`, whose lock is `held`; downloads are kept below `cache`.

    `version`: of the distribution's package; None is the newest that this host's apt offers. Takes some seconds.
    Raises Refused, Unavailable, HostError when the package cannot be had, ImageError when it is of no use.
    """
    if distribution not in DISTRIBUTIONS:
        raise Refused(f"no kernel can be made of {distribution!r}", hint=f"use {', '.join(DISTRIBUTIONS)}")
    if platform.machine() != "x86_64":
        raise Unavailable(f"kernels are made for x86_64 only, this host is {platform.machine()}")
    progress(Step("looking for the kernel's package"))
    package = debian.find(version)
    deb = debian.download(package, cache / "apt" / "kernels", progress)
    progress(Step(f"unpacking {package.name}"))
    (work / "package").mkdir()
    found = debian.unpack(deb, work / "package", held=held)
    progress(Step(f"making the image of {found.release}"))
    elf, initrd = work / "vmlinux", work / "modules.cpio"
    elf.write_bytes(vmlinux.extract(_read(found.image, _MAX_IMAGE)))
    initrd.write_bytes(pack_modules(found.modules))
    return Kernel(
        elf=elf,
        initrd=initrd,
        names=(f"kernel/{distribution}:{package.short_version}", f"kernel/{distribution}:latest"),
        architecture="amd64",
        annotations={
            "org.opencontainers.image.version": package.version,
            "org.opencontainers.image.title": f"Linux {found.release} of Debian's {package.name}",
            "org.bulkhead.kernel.release": found.release,
        },
    )


def pack_modules(directory: Path) -> bytes:
    """A cpio archive with the modules that a guest needs, of a directory that depmod has been through."""
    texts = [_read(directory / name, _MAX_MODULE).decode() for name in ("modules.dep", "modules.builtin")]
    paths = modules.order(modules.read_catalogue(*texts))
    files = [cpio.file(_place(path), _module(directory / path)) for path in paths]
    listed = "".join(f"/{_place(path)}\n" for path in paths).encode()
    parents = [cpio.directory(str(parent)) for parent in reversed(PurePosixPath(_DIRECTORY, "x").parents[:-1])]
    return cpio.archive([*parents, *files, cpio.file(LIST, listed)])


def _place(path: str) -> str:
    return f"{_DIRECTORY}/{modules.name_of(path)}.ko"


def _module(path: Path) -> bytes:
    data = unpack(_read(path, _MAX_MODULE), most=_MAX_MODULE, what=f"module {path.name}")
    if not data.startswith(b"\x7fELF"):
        raise ImageError(f"module {path.name} is no ELF file")
    return modules.without_signature(data)


def _read(path: Path, most: int) -> bytes:
    """A regular file of the package. Raises ImageError when it is none, or larger than it can honestly be."""
    if path.is_symlink() or not path.is_file():
        raise ImageError(f"{path.name} of the kernel's package is not a regular file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ImageError(f"{path.name} of the kernel's package is larger than {most} bytes")
    return data
