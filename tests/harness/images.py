"""Root file systems for tests, as tar files: made once, kept in $BULKHEAD_TEST_CACHE, found there by later runs."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.abilities import require

CACHE = Path(os.environ.get("BULKHEAD_TEST_CACHE", "/var/cache/bulkhead-tests"))
MIRROR = os.environ.get("BULKHEAD_TEST_MIRROR", "http://deb.debian.org/debian")
SUITE = "bookworm"
_RECIPE = "1"
"""Part of every file's name: to be raised when the way they are made changes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into a root file system. `variant` is mmdebstrap's."""

    packages: tuple[str, ...] = ()
    variant: str = "essential"
    architecture: str = ""


RECIPES = {
    "debian": Recipe(variant="minbase"),
    "busybox-i386": Recipe(("busybox-static",), variant="extract", architecture="i386"),
    "servers": Recipe(("nginx-light", "redis-server", "python3")),
    "stock": Recipe(("linux-image-cloud-amd64", "initramfs-tools"), variant="minbase"),
    "runtimes": Recipe(("nodejs", "postgresql", "default-jre-headless")),
    "buildd": Recipe(("build-essential", "fakeroot"), variant="minbase"),
    "system": Recipe(("systemd-sysv", "libpam-systemd", "dbus", "openssh-server")),
}
"""Several applications share one image: each build takes a minute on two cores."""

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/:/bin/false\n"
    "user:x:1000:1000:User:/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\nuser:x:1000:\nextra:x:2000:user\n",
    "etc/hostname": "image\n",
    "etc/os-release": "ID=busybox\n",
}


def busybox_tar(path: Path) -> Path:
    """Write a root file system of one static program, this host's busybox, to `path`. Takes milliseconds."""
    require("busybox")
    binary = Path("/bin/busybox").read_bytes()
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(path, "w") as archive:
        for directory in ("bin", "dev", "etc", "home", "home/user", "proc", "root", "run", "sys", "tmp", "usr", "var"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            entry.uid = entry.gid = 1000 if directory == "home/user" else 0
            archive.addfile(entry)
        _add(archive, "bin/busybox", binary, 0o755)
        for applet in sorted({*applets} - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, text in _FILES.items():
            _add(archive, name, text.encode(), 0o644)
        _add(archive, "etc/not-executable", b"#!/bin/sh\n", 0o644)
    return path


def rootfs_tar(name: str) -> Path:
    """One of RECIPES as a tar file. The first time it is made from Debian packages, which takes a minute or more."""
    recipe = RECIPES[name]
    return make_rootfs_tar(recipe.packages, variant=recipe.variant, architecture=recipe.architecture, name=name)


def make_rootfs_tar(
    packages: Sequence[str], *, variant: str = "essential", architecture: str = "", name: str = "rootfs"
) -> Path:
    """A Debian root file system with these packages as a tar file, from the cache where it is there."""
    identity = hashlib.sha256(repr((_RECIPE, SUITE, variant, architecture, sorted(packages))).encode()).hexdigest()
    made = CACHE / f"{name}-{identity[:12]}.tar"
    if made.exists():
        return made
    require("root", "mmdebstrap")
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(CACHE / f"{name}.lock"):
        if not made.exists():
            draft = made.with_suffix(".new.tar")
            _mmdebstrap(draft, packages, variant, architecture)
            draft.rename(made)
    return made


def _mmdebstrap(target: Path, packages: Sequence[str], variant: str, architecture: str) -> None:
    debs = CACHE / "debs"
    debs.mkdir(exist_ok=True)
    archives = '"$1"/var/cache/apt/archives'
    argv = [
        "mmdebstrap",
        f"--variant={variant}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Check-Valid-Until "false"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        # What was downloaded once is put where apt looks, and what is new is kept.
        "--skip=download/empty",
        "--skip=essential/unlink",
        # Java's postinst links its manual pages and fails where their directory is not there.
        f'--setup-hook=mkdir -p {archives} "$1"/usr/share/man/man1',
        f"--setup-hook=cp -n {debs}/*.deb {archives}/ 2>/dev/null || true",
        f"--customize-hook=cp -n {archives}/*.deb {debs}/ 2>/dev/null || true",
        *([f"--architectures={architecture}"] if architecture else []),
        *([f"--include={','.join(packages)}"] if packages else []),
        SUITE,
        str(target),
        MIRROR,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mmdebstrap for {target.name} failed with {done.returncode}:\n{done.stderr[-3000:]}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def make_all() -> None:
    """Make what is missing of RECIPES, and say so: the tests then find everything in the cache."""
    for name in RECIPES:
        began = time.monotonic()
        sys.stderr.write(f"{name}: ")
        sys.stderr.flush()
        made = rootfs_tar(name)
        sys.stderr.write(f"{made.stat().st_size >> 20} MB, {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    make_all()
