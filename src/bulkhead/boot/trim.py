"""A kernel trimmed to what guests need, built from Debian's source package with the config beside this file.

What the throw-away root file system must hold in which it is built, and what is done there at the end, is data here;
who runs mmdebstrap hands the directory with the results back.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bulkhead.boot import cpio, vmlinux
from bulkhead.boot.kernels import LIST, Kernel
from bulkhead.errors import HostError, ImageError, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.host import processes
from bulkhead.quantities import format_size

RELEASE = "debian:bookworm"
"""Whose compiler builds it, whatever this host is: the same source gives the same bytes everywhere."""
SERIES = "6.1"
SOURCE = f"linux-source-{SERIES}"
TOOLS = ("gcc", "make", "libc6-dev", "flex", "bison", "libelf-dev", "bc", "xz-utils")
NAMES = (f"kernel/trim:{SERIES}", "kernel/trim:latest")
ROOM = 5 << 30
"""Bytes that a build takes on disk for its time: the tools, the source, what it is compiled to."""
RECIPE = "org.bulkhead.kernel.recipe"
"""Annotation: what it was made of. An image that has the one that is asked for need not be made again."""
_CONFIG, _SCRIPT, _OUT = "/usr/src/trim.config", "/usr/src/trim.sh", "/usr/src/out"
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]{0,127}")
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+_-]{0,63}")
_MAX_ELF = 128 << 20


@dataclass(frozen=True, slots=True)
class Build:
    """A kernel that is to be built."""

    version: str
    """Of the source package."""
    packages: tuple[str, ...]
    files: dict[str, bytes]

    @property
    def recipe(self) -> str:
        """Names everything that decides what comes out, but for the compiler's updates."""
        parts = (*self.packages, *(f"{path} {hashlib.sha256(data).hexdigest()}" for path, data in self.files.items()))
        return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def hooks(self, out: Path, *, only_config: bool = False) -> tuple[str, ...]:
        """Commands for mmdebstrap's end, with the root file system's path as "$1"; the results come to `out`."""
        script = f'chroot "$1" {_SCRIPT} {_OUT}{" config" if only_config else ""} >&2'
        return (f'mkdir "$1{_OUT}"', script, f'cp "$1{_OUT}"/* {shlex.quote(str(out))}/')


def plan(distribution: str, version: str | None, *, architecture: str | None = None) -> Build:
    """What is to be built: of the source package's `version`, None: the newest that this host's apt offers.

    Raises Refused for another distribution than Debian and for what is no version, Unavailable when apt does not know
    it and on another host than x86_64.
    """
    if distribution != "debian":
        raise Refused(f"no trimmed kernel can be made of {distribution!r}", hint="use debian")
    machine = architecture or platform.machine()
    if machine != "x86_64":
        raise Unavailable(f"kernels are made for x86_64 only, this host is {machine}")
    found = newest() if version is None else _known(version)
    here = resources.files("bulkhead.boot")
    files = {path: here.joinpath(path.rpartition("/")[2]).read_bytes() for path in (_CONFIG, _SCRIPT)}
    return Build(found, (f"{SOURCE}={found}", *TOOLS), files)


def newest() -> str:
    """The version of the source package that this host's apt offers. Raises Unavailable where it has none."""
    return _offered(SOURCE)


def _known(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise Refused(f"version {version!r} is not one of a package", hint=f"`apt list -a {SOURCE}`")
    return _offered(f"{SOURCE}={version}")


def _offered(wanted: str) -> str:
    hint = "apt-get update; apt's sources must have the main section of Debian 12"
    try:
        said = processes.run(["apt-cache", "show", "--no-all-versions", wanted], package="apt").decode(errors="replace")
    except HostError as error:
        raise Unavailable(f"apt has no package {wanted}: {error.what}", hint=hint) from error
    found = re.search(r"^Version: (\S+)$", said, re.MULTILINE)
    if not found or not _VERSION.fullmatch(found[1]):
        raise Unavailable(f"apt has no package {wanted}", hint=hint)
    return found[1]


def check_room(directory: Path) -> None:
    """Raise Unavailable where there is no room for a build."""
    free = shutil.disk_usage(directory).free
    if free < ROOM:
        what = (
            f"building a kernel takes {format_size(ROOM)} below {directory} for its time, {format_size(free)} are free"
        )
        raise Unavailable(what, hint="make room, or set cache_dir to another place")


def collect(build: Build, out: Path, work: Path, progress: Progress) -> Kernel:
    """The kernel of a build's results in `out`. Raises ImageError when they are of no use."""
    progress(Step("making the image of the trimmed kernel"))
    elf, release = out / "vmlinux", (out / "release").read_text().strip()
    if not _RELEASE.fullmatch(release):
        raise ImageError(f"the kernel that was built calls itself {release[:80]!r}")
    if elf.stat().st_size > _MAX_ELF:
        raise ImageError(f"the kernel that was built has {format_size(elf.stat().st_size)}")
    vmlinux.pvh_entry(elf.read_bytes())
    initrd = work / "modules.cpio"
    # Nothing is to be loaded, and the guest's agent reads that in the list.
    initrd.write_bytes(cpio.archive([cpio.file(LIST, b"")]))
    return Kernel(
        elf=elf,
        initrd=initrd,
        names=NAMES,
        architecture="amd64",
        annotations={
            "org.opencontainers.image.version": build.version,
            "org.opencontainers.image.title": f"Linux {release}, trimmed, of Debian's {SOURCE}",
            "org.bulkhead.kernel.release": release,
            RECIPE: build.recipe,
        },
    )
