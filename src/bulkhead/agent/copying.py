"""Trees of files as tar streams, out of and into an instance.

What comes from inside is untrusted, and so is a tar stream that a client sends: names, targets and sizes are checked
on this side, and paths are resolved inside the instance's root by its agent, so that no link leads a host's process.
"""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from bulkhead.agent.files import PORTION, Entry, Files
from bulkhead.errors import AgentError, NotFound, Refused

MAX_PATH = 4096
MAX_HEADER = 1 << 20
"""Bytes of a header that only describes the next entry (long names, PAX records)."""
NANO = 1_000_000_000
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
_DESCRIBING = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_Identity = tuple[int, ...]


def copy_out(files: Files, path: str) -> Iterator[bytes]:
    """A tar stream of a file, or a directory with all that is in it, under its own name. Raises NotFound.

    Links are copied, not followed. Sockets are left out, as in any tar file.
    """
    top = files.stat(path)
    name = PurePosixPath(path).name or "root"
    seen: dict[_Identity, str] = {}
    pending = [(path, name, top)]
    while pending:
        inside, outside, entry = pending.pop()
        if len(outside) > MAX_PATH:
            raise AgentError(f"a path below {path} is longer than {MAX_PATH} bytes")
        if stat.S_ISLNK(entry.mode) and not entry.target:
            entry = files.stat(inside)
        if stat.S_ISSOCK(entry.mode):
            continue
        yield from _member(files, inside, outside, entry, seen)
        if stat.S_ISDIR(entry.mode):
            children = sorted(files.list(inside), key=lambda child: child.name, reverse=True)
            pending += [(f"{inside.rstrip('/')}/{child.name}", f"{outside}/{child.name}", child) for child in children]
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(files: Files, inside: str, outside: str, entry: Entry, seen: dict[_Identity, str]) -> Iterator[bytes]:
    info = tarfile.TarInfo(outside)
    info.type = _TYPES[stat.S_IFMT(entry.mode)]
    info.mode, info.uid, info.gid = stat.S_IMODE(entry.mode), entry.uid, entry.gid
    info.mtime = entry.mtime // NANO if entry.mtime % NANO == 0 else entry.mtime / NANO
    info.linkname = entry.target
    info.devmajor, info.devminor = (entry.device >> 8) & 0xFFF, (entry.device & 0xFF) | (entry.device >> 12 & 0xFFF00)
    regular = stat.S_ISREG(entry.mode)
    if regular and entry.nlink > 1:
        # An inode's number is unique on its file system only; with the rest the file is known for sure.
        identity = (entry.inode, entry.nlink, entry.size, entry.mtime, entry.mode, entry.uid, entry.gid)
        if (first := seen.setdefault(identity, outside)) != outside:
            info.type, info.linkname, regular = tarfile.LNKTYPE, first, False
    info.size = entry.size if regular else 0
    yield info.tobuf(tarfile.PAX_FORMAT)
    if regular:
        yield from _content(files, inside, entry.size)


def _content(files: Files, path: str, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size:
        data = files.read(path, offset, size - offset)
        if not data:
            raise AgentError(
                f"{path} became shorter while it was copied", hint="copy it again when nothing writes to it"
            )
        offset += len(data)
        yield data
    yield bytes(-size % tarfile.BLOCKSIZE)


class _StrictInfo(tarfile.TarInfo):
    """A header that is none is an error: tarfile takes one in the middle for the end of the archive.

    Its description of the next entry cannot fill the memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise Refused(f"the tar stream is damaged: {error}", hint="what came before it was copied") from error
            raise  # zeros, or nothing: the end
        if info.type in _DESCRIBING and info.size > MAX_HEADER:
            raise Refused(f"the tar stream has a header of {info.size} bytes, at most {MAX_HEADER} make sense")
        return info


def copy_in(files: Files, stream: BinaryIO, path: str) -> None:
    """Unpack an uncompressed tar stream below the directory `path`. Raises NotFound, Refused for a bad stream."""
    if not stat.S_ISDIR(files.stat(path, follow=True).mode):
        raise Refused(f"{path} is not a directory in the instance", hint="name the directory to copy into")
    times: list[tuple[str, int]] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as archive:
            for info in archive:
                target = _inside(path, info.name)
                if target is not None:
                    _unpack_with_parents(files, archive, info, target, path)
                    times += [(target, int(info.mtime * NANO))] * info.isdir()
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has read
    except tarfile.TarError as error:
        raise Refused(f"the tar stream is damaged: {error}") from error
    # A directory's time changes with its entries, so it is set when all are there.
    for directory, mtime in times:
        files.set_time(directory, max(0, mtime))


def _inside(base: str, name: str) -> str | None:
    """The path of an entry in the instance; None for the top itself."""
    parts = PurePosixPath(name.lstrip("/")).parts
    if ".." in parts or "\0" in name or len(name) > MAX_PATH:
        raise Refused(f"the tar stream holds the path {name[:200]!r}", hint="paths must stay below the directory")
    return "/".join((base.rstrip("/"), *parts)) if parts else None


def _unpack_with_parents(files: Files, archive: tarfile.TarFile, info: tarfile.TarInfo, target: str, base: str) -> None:
    """Unpack a member; directories on its way that the stream has not named are made as root's."""
    try:
        _unpack(files, archive, info, target, base)
    except NotFound:
        parents = [str(parent) for parent in PurePosixPath(target).parents if parent.is_relative_to(base)]
        for parent in reversed(parents[:-1]):
            files.mkdir(parent, mode=0o755, uid=0, gid=0)
        _unpack(files, archive, info, target, base)


def _unpack(files: Files, archive: tarfile.TarFile, info: tarfile.TarInfo, target: str, base: str) -> None:
    mode, uid, gid = info.mode & 0o7777, info.uid, info.gid
    if not (0 <= uid < 1 << 32 and 0 <= gid < 1 << 32):
        raise Refused(f"{info.name} in the tar stream belongs to {uid}:{gid}")
    if info.isdir():
        files.mkdir(target, mode=mode, uid=uid, gid=gid)
    elif info.issym():
        files.symlink(target, info.linkname, uid=uid, gid=gid)
    elif info.islnk():
        existing = _inside(base, info.linkname)
        if existing is None:
            raise Refused(f"{info.name} in the tar stream is a hard link to nothing")
        files.link(target, existing)
    elif info.isreg():
        files.create(target, mode=mode, uid=uid, gid=gid)
        source = archive.extractfile(info) or io.BytesIO()
        offset = 0
        while data := source.read(PORTION):
            files.write(target, offset, data)
            offset += len(data)
        files.set_time(target, max(0, int(info.mtime * NANO)))
    else:
        raise Refused(
            f"{info.name} in the tar stream is a device, a pipe or of an unknown type",
            hint="only files, directories and links can be copied into an instance",
        )
