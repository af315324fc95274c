"""Debian's kernel for clouds, taken from the package that this host's own apt has of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from bulkhead.errors import HostError, ImageError, Refused, Unavailable
from bulkhead.events import Progress, Step
from bulkhead.host import processes
from bulkhead.host.workspace import locked

PACKAGE = "linux-image-cloud-amd64"
"""It has no files: it depends on the package of the newest kernel."""
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]{0,127}")
_DEPENDS = re.compile(r"(?:^|[\s,])(linux-image-[a-z0-9.+-]+) \(= ([^\s)]+)\)")
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOWNLOAD_SECONDS, _UNPACK_SECONDS = 900.0, 300.0


@dataclass(frozen=True, slots=True)
class Package:
    """A package as apt knows it."""

    name: str
    version: str
    digest: str
    """SHA-256 of the file, in hex, from the archive's signed lists."""
    size: int

    @property
    def short_version(self) -> str:
        """The kernel's series: "6.1" of "6.1.192-2"."""
        return ".".join(self.version.partition("-")[0].split(".")[:2])


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Where the files of a kernel package are."""

    release: str
    """As `uname -r` tells it."""
    image: Path
    """The bzImage."""
    modules: Path
    """The directory that depmod has written modules.dep into."""


def find(version: str | None) -> Package:
    """The kernel package of a version (of linux-image-cloud-amd64), None: the newest that this host's apt offers.

    Raises Refused for what is no version, Unavailable when apt does not know it.
    """
    if version is not None and not _VERSION.fullmatch(version):
        raise Refused(f"version {version!r} is not one of a package", hint="`apt list -a linux-image-cloud-amd64`")
    newest = _show(PACKAGE if version is None else f"{PACKAGE}={version}")
    found = _DEPENDS.search(newest.get("Depends", ""))
    if not found:
        raise Unavailable(f"{PACKAGE} {newest.get('Version', '')} names no kernel: {newest.get('Depends', '')[:200]!r}")
    name, exact = found.groups()
    fields = _show(f"{name}={exact}")
    digest = fields.get("SHA256", "")
    if not _SHA256.fullmatch(digest) or not fields.get("Size", "").isdecimal():
        raise Unavailable(f"apt knows neither size nor SHA-256 of {name} {exact}", hint="apt-get update")
    return Package(name, exact, digest, int(fields["Size"]))


def _show(wanted: str) -> dict[str, str]:
    """The fields of a package's first record."""
    hint = "apt-get update; apt's sources must have Debian's main section"
    try:
        said = processes.run(["apt-cache", "show", wanted], package="apt").decode(errors="replace")
    except HostError as error:
        raise Unavailable(f"apt has no package {wanted}: {error.what}", hint=hint) from error
    found = re.findall(r"^([A-Za-z0-9-]+): (.*)$", said.partition("\n\n")[0], re.MULTILINE)
    if not found:
        raise Unavailable(f"apt has no package {wanted}", hint=hint)
    return dict(found)


def download(package: Package, directory: Path, progress: Progress) -> Path:
    """The package's file in `directory`, which keeps this one alone. Raises HostError when apt cannot bring it."""
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / "lock"):
        there = _verified(package, directory)
        for path in directory.glob("*.deb"):
            # apt takes a file of the right size for the right one.
            if path != there:
                path.unlink()
        if there:
            return there
        progress(Step(f"downloading {package.name} {package.version}", 0, package.size, "bytes"))
        get = ("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", f"{package.name}={package.version}")
        argv = [*processes.CONFINED, "env", f"--chdir={directory}", *get]
        processes.run(argv, timeout=_DOWNLOAD_SECONDS, package="util-linux")
        there = _verified(package, directory)
    if there is None:
        raise HostError(f"what apt brought for {package.name} {package.version} has another SHA-256 than its list says")
    return there


def _verified(package: Package, directory: Path) -> Path | None:
    for path in directory.glob(f"{package.name}_*.deb"):
        if path.stat().st_size == package.size:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == package.digest:
                    return path
    return None


def unpack(deb: Path, directory: Path, *, held: int) -> Unpacked:
    """Unpack a kernel package into an empty directory. Raises ImageError when it holds no kernel with modules.

    `held`: a descriptor that stays open in what works there, of the lock of its workspace.
    """

    def work(*argv: str | Path) -> None:
        confined = [*processes.CONFINED, *argv]
        processes.run(confined, timeout=_UNPACK_SECONDS, package="util-linux", pass_fds=(held,))

    work("dpkg-deb", "-x", deb, directory)
    # Debian 13 has moved the modules below /usr.
    tops = [top for top in (directory, directory / "usr") if _is_real_directory(top / "lib" / "modules")]
    found = [(top, path.name) for top in tops for path in (top / "lib" / "modules").iterdir()]
    if len(found) != 1 or not _RELEASE.fullmatch(found[0][1]):
        raise ImageError(f"{deb.name} holds the modules of {len(found)} kernels, one is needed")
    top, release = found[0]
    modules, image = top / "lib" / "modules" / release, directory / "boot" / f"vmlinuz-{release}"
    if not _is_real_directory(modules) or image.is_symlink() or not image.is_file():
        raise ImageError(f"{deb.name} lacks boot/vmlinuz-{release} or its modules")
    work("depmod", "-b", top, release)
    return Unpacked(release, image, modules)


def _is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
