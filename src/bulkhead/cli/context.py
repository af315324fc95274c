"""A build's context: the Containerfile, the ignore file, and a tar of the rest. The daemon may be on another host."""

from __future__ import annotations

import os
import stat
import sys
from collections import namedtuple
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from bulkhead.containerfile.ignore import Ignore

FILES = ("Containerfile", "Dockerfile")
PORTION = 1 << 20
MOST_FILE = 1 << 20
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")

Context = namedtuple("Context", ("text", "chunks"))
"""The Containerfile's text, and what makes the tar, in pieces; it may be asked for again."""


def open_context(place: str, file: str | None) -> Context:
    """What is at `place`: a directory, or `-` for a tar or a Containerfile on stdin. Raises Refused."""
    if place == "-":
        return _standard_input(file)
    if not os.path.isdir(place):  # noqa: PTH112
        hint = "give a directory, or - for a tar on stdin"
        raise _refused(f"the context {place!r} is not a directory", hint=hint)
    path = _find(place, file)
    text = _read(sys.stdin.buffer if file == "-" else path)
    ignore = _ignore(place, path)
    return Context(text, lambda: _tar(place, ignore))


def _find(place: str, file: str | None) -> str:
    """The Containerfile: as it was given, or below the context."""
    if file == "-":
        return ""
    names = (file,) if file else FILES
    places = ("", place) if file else (place,)
    for name in names:
        for directory in places:
            path = os.path.join(directory, name)  # noqa: PTH118
            if os.path.isfile(path):  # noqa: PTH113
                return path
    raise _refused(f"there is no {' or '.join(names)} in {place}", hint="name it with -f FILE")


def _read(file: str | BinaryIO) -> str:
    try:
        if isinstance(file, str):
            with open(file, "rb") as opened:  # noqa: PTH123
                data = opened.read(MOST_FILE + 1)
        else:
            data = file.read(MOST_FILE + 1)
        return data.decode()
    except OSError as error:
        raise _refused(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _refused(f"the Containerfile is not UTF-8: {error.reason} at byte {error.start}") from error


def _ignore(place: str, path: str) -> Ignore:
    """The rules that hold for this Containerfile: its own, else those of the context."""
    from bulkhead.containerfile.ignore import NAMES, Ignore

    own = [path + name for name in NAMES] if path else []
    for name in (*own, *(os.path.join(place, name) for name in NAMES)):  # noqa: PTH118
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                return Ignore(file.read(MOST_FILE).splitlines())
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise _refused(f"{name}: {error}") from error
        except OSError as error:
            raise _refused(f"{name} cannot be read: {error.strerror}") from error
    return Ignore(())


def _tar(place: str, ignore: Ignore) -> Iterator[bytes]:
    """Everything that is not left out, in the order of names, as root's."""
    from bulkhead import ustar

    pending = [os.fsencode(name) for name in sorted(os.listdir(place), reverse=True)]  # noqa: PTH208
    base = os.fsencode(place)
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(os.path.join(base, path))  # noqa: PTH118
            kind = stat.S_IFMT(status.st_mode)
            left_out = bool(ignore) and ignore.excludes(os.fsdecode(path))
            if kind == stat.S_IFDIR:
                if left_out and not ignore.exceptions:
                    continue
                names = sorted(os.listdir(os.path.join(base, path)), reverse=True)  # noqa: PTH118, PTH208
                pending += [path + b"/" + name for name in names]
            if left_out:
                continue
            if kind == stat.S_IFREG:
                yield from _file(base, path)
            elif kind in (stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO):
                of = {stat.S_IFDIR: ustar.DIRECTORY, stat.S_IFLNK: ustar.SYMLINK, stat.S_IFIFO: ustar.FIFO}
                target = os.readlink(os.path.join(base, path)) if kind == stat.S_IFLNK else b""  # noqa: PTH115, PTH118
                mode = stat.S_IMODE(status.st_mode)
                yield ustar.head(ustar.Member(path, of[kind], mode, mtime=int(status.st_mtime), link=target))
        except OSError as error:
            raise _refused(
                f"{os.fsdecode(path)!r} of the context cannot be read: {error.strerror}",
                hint="leave it out by a line in .containerignore",
            ) from error
    yield ustar.END


def _file(base: bytes, path: bytes) -> Iterator[bytes]:
    from bulkhead import ustar

    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(os.path.join(base, path), flags), "rb", buffering=0) as file:  # noqa: PTH118, PTH123
        status = os.fstat(file.fileno())
        size, mode = status.st_size, stat.S_IMODE(status.st_mode)
        head = ustar.head(ustar.Member(path, ustar.FILE, mode, mtime=int(status.st_mtime), size=size))
        if size <= PORTION:
            data = file.read(size)
            left = size - len(data)
            yield head + data + (ustar.padding(size) if not left else b"")
        else:
            yield head
            left = size
            while left and (data := file.read(min(PORTION, left))):
                left -= len(data)
                yield data
            if not left:
                yield ustar.padding(size)
        if left:
            raise _refused(f"{os.fsdecode(path)!r} of the context became shorter while it was read")


def _standard_input(file: str | None) -> Context:
    """A tar with a Containerfile in it, or a Containerfile alone."""
    from bulkhead import ustar

    if file == "-":
        raise _refused("the context and the Containerfile cannot both be on stdin")
    first = sys.stdin.buffer.read(ustar.BLOCK)
    if not (first.startswith(_MAGIC) or first[257:262] == b"ustar"):
        text = first + sys.stdin.buffer.read(MOST_FILE)
        try:
            return Context(text.decode(), lambda: iter([ustar.END]))
        except UnicodeDecodeError as error:
            raise _refused("stdin is neither a tar nor a Containerfile") from error
    import tarfile
    import tempfile

    spool = tempfile.TemporaryFile()  # noqa: SIM115 - read until this process ends
    spool.write(first)
    while data := sys.stdin.buffer.read(PORTION):
        spool.write(data)
    spool.seek(0)
    try:
        with tarfile.open(fileobj=spool) as archive:
            text = _member(archive, (file,) if file else FILES)
    except tarfile.TarError as error:
        raise _refused(f"the tar on stdin cannot be read: {error}") from error
    return Context(text, lambda: _again(spool))


def _again(spool: BinaryIO) -> Iterator[bytes]:
    spool.seek(0)
    return iter(lambda: spool.read(PORTION), b"")


def _member(archive: object, names: tuple[str, ...]) -> str:
    import tarfile

    assert isinstance(archive, tarfile.TarFile)
    for member in archive:
        if os.path.normpath(member.name) in names and member.isfile():
            opened = archive.extractfile(member)
            return opened.read(MOST_FILE).decode(errors="replace") if opened else ""
    raise _refused(f"the tar on stdin has no {' or '.join(names)}", hint="name it with -f FILE")


def _refused(what: str, *, hint: str = "") -> Exception:
    # The error tree is loaded only where something is wrong.
    from bulkhead.errors import Refused

    return Refused(what, hint=hint)
