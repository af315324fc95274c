"""Files of this host as a tar stream, made while it is sent."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bulkhead.errors import Refused

CHUNK = 1 << 18


def pack(local: Path, name: str, *, keep_owners: bool, seen: Callable[[Path], object]) -> Iterator[bytes]:
    """`local` with all that is in it, called `name` in the archive ("": its contents alone). Links are not followed.

    Everything belongs to root inside unless `keep_owners`. `seen` is called with each path. Raises Refused.
    """
    # Knows how to describe a file, hard links included; nothing is written to it.
    describer = tarfile.TarFile(fileobj=io.BytesIO(), mode="w")
    pending = [(local, name)]
    try:
        while pending:
            path, inner = pending.pop()
            if inner:
                yield from _member(describer, path, inner, keep_owners=keep_owners)
                seen(path)
            if path.is_dir() and not (inner and path.is_symlink()):
                entries = sorted(path.iterdir(), reverse=True)
                pending += [(entry, f"{inner}/{entry.name}" if inner else entry.name) for entry in entries]
        yield bytes(2 * tarfile.BLOCKSIZE)
    except OSError as error:
        raise Refused(f"cannot read {error.filename or local}: {error.strerror}") from error


def _member(describer: tarfile.TarFile, path: Path, inner: str, *, keep_owners: bool) -> Iterator[bytes]:
    info = describer.gettarinfo(path, inner)
    if info is None:
        return  # a socket: it means nothing elsewhere
    if not keep_owners:
        info.uid = info.gid = 0
    info.uname = info.gname = ""
    yield info.tobuf(tarfile.PAX_FORMAT)
    if not info.isreg():
        return
    left = info.size
    with path.open("rb") as file:
        while left:
            data = file.read(min(CHUNK, left))
            if not data:
                raise Refused(
                    f"{path} became shorter while it was copied", hint="copy it again when nothing writes to it"
                )
            left -= len(data)
            yield data
    yield bytes(-info.size % tarfile.BLOCKSIZE)
