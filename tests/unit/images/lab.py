"""Layers made by hand, packed by the code under test, and looked at through a real mount."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bulkhead.host import syscalls
from bulkhead.images.bounds import Bounds
from bulkhead.images.layer import Unpacked, unpack

ROOMY = Bounds(keep_free=0)
Shown = dict[str, dict[str, Any]]


def entry(
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    pax: dict[str, str] | None = None,
    **fields: Any,
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry for `make_tar`; `fields` are those of a TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    info.pax_headers = pax or {}
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A directory for `make_tar`."""
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A symlink for `make_tar`."""
    return entry(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A hard link for `make_tar`."""
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def make_tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these entries, names exactly as given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def chunked(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    """A stream of chunks."""
    return (data[at : at + size] for at in range(0, len(data), size))


def pack(
    data: bytes, target: Path, *, bounds: Bounds = ROOMY, chunk: int = 1 << 20, below: Sequence[Path] = ()
) -> Unpacked:
    """Turn a layer's tar into an EROFS file at `target`."""
    with ExitStack() as stack:
        lower = [os.open(path, os.O_RDONLY) for path in reversed(below)]
        for fd in lower:
            stack.callback(os.close, fd)
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        stack.callback(os.close, fd)
        return unpack(chunked(data, chunk), bounds=bounds, must_end=True, erofs=fd, below=lower)


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """Mount an EROFS file, in the test run's own mount namespace."""
    where.mkdir(parents=True, exist_ok=True)
    syscalls.mount(image, where, "erofs", syscalls.MS_RDONLY)
    try:
        yield where
    finally:
        syscalls.umount2(where)


@contextmanager
def overlaid(images: Sequence[Path], where: Path) -> Iterator[Path]:
    """Mount layers, the lowest first, and an overlay of them with an empty upper directory."""
    with ExitStack() as stack:
        lower = [stack.enter_context(mounted(image, where / str(number))) for number, image in enumerate(images)]
        own = where / "own"
        own.mkdir()
        syscalls.mount("tmpfs", own, "tmpfs")
        stack.callback(syscalls.umount2, own)
        for name in ("upper", "work", "merged"):
            (own / name).mkdir()
        merged = own / "merged"
        dirs = ":".join(map(str, reversed(lower)))
        syscalls.mount("overlay", merged, "overlay", 0, f"lowerdir={dirs},upperdir={own}/upper,workdir={own}/work")
        stack.callback(syscalls.umount2, merged)
        yield merged


def show(root: Path) -> Shown:
    """Everything about every file below `root`, by path; hard links name one another."""
    found: Shown = {}
    inodes: dict[tuple[int, int], list[str]] = {}
    for path, info in _walk(root):
        name = os.path.relpath(path, root)
        about: dict[str, Any] = {
            "mode": stat.filemode(info.st_mode),
            "owner": (info.st_uid, info.st_gid),
            "mtime": info.st_mtime_ns,
            "xattrs": {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)},
        }
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as file:  # noqa: PTH123
                about["content"] = info.st_size, hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            about["target"] = str(Path(path).readlink())
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            about["device"] = os.major(info.st_rdev), os.minor(info.st_rdev)
        if not stat.S_ISDIR(info.st_mode):
            about["nlink"] = info.st_nlink
            inodes.setdefault((info.st_dev, info.st_ino), []).append(name)
        found[name] = about
    for names in inodes.values():
        for name in names:
            found[name]["same"] = sorted(names)
    return found


def _xattrs(path: str) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    todo = [str(root)]
    while todo:
        here = todo.pop()
        yield here, os.lstat(here)
        if stat.S_ISDIR(os.lstat(here).st_mode):
            todo += [f"{here}/{name}" for name in os.listdir(here)]  # noqa: PTH208


def unpacked_by_tar(archive: Path, where: Path) -> Shown:
    """The same as GNU tar sees it: unpacked on a tmpfs."""
    where.mkdir()
    syscalls.mount("tmpfs", where, "tmpfs", data="mode=755")
    try:
        options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--same-permissions", "--same-owner"]
        subprocess.run(["tar", "-C", str(where), *options, "-xf", str(archive)], check=True, capture_output=True)
        return show(where)
    finally:
        syscalls.umount2(where)


def fsck(image: Path) -> None:
    """Fail unless erofs-utils find nothing wrong, in the data either."""
    done = subprocess.run(["fsck.erofs", "--extract", str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
