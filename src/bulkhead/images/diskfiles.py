"""A disk's bytes on their way: from a foreign file to a sparse raw one, from that to a zstd blob, and back.

The blob is zstd frames of 4 MiB each. One of zeros is made once, so that a disk's emptiness costs next to nothing.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import zstandard

from bulkhead.errors import HostError, ImageError
from bulkhead.events import Progress, Step
from bulkhead.host import jailed, processes
from bulkhead.images import compression
from bulkhead.images.bounds import Bounds, check_space
from bulkhead.images.diskformats import DiskFile
from bulkhead.quantities import format_size

_FRAME = 4 << 20
_LEVEL = 3
_PIECE = 64 << 10
"""Zeros of this size, at a multiple of it, become a hole."""
_NOTHING = bytes(1 << 20)
RATIO = 1 << 20
"""Of an empty disk; what bounds a disk is its size, and that it is checked for room as it grows."""
_CHECK_EVERY = 64 << 20
_PROGRAM = "/usr/bin/qemu-img"
_MEMORY, _CPU_SECONDS = 2 << 30, 3600
_REPAIRED = 64 << 20
"""Bytes by which a repair may make a file longer."""
_SOURCE, _TARGET = "/source", "/target"


def packed(fd: int, size: int) -> Iterator[bytes]:
    """The zstd frames of a raw disk."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    nothing = bytes(_FRAME)
    of_nothing = compressor.compress(nothing)
    for at in range(0, size, _FRAME):
        length = min(_FRAME, size - at)
        if length == _FRAME and _is_hole(fd, at, length):
            yield of_nothing
            continue
        data = _read(fd, at, length)
        yield of_nothing if data == nothing else compressor.compress(data)


def _is_hole(fd: int, at: int, length: int) -> bool:
    try:
        return os.lseek(fd, at, os.SEEK_DATA) >= at + length
    except OSError:  # ENXIO: no data from here to the end; where it is another one, reading tells
        return True


def _read(fd: int, at: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.pread(fd, length - len(data), at + len(data))
        if not piece:
            raise ImageError(f"the disk ends at {at + len(data)} bytes: it is truncated")
        data += piece
    return data


def unpack(chunks: Iterable[bytes], fd: int, size: int, bounds: Bounds) -> None:
    """Write a blob's disk of `size` bytes to an empty file, without its zeros. Raises ImageError for any other size."""
    unpacked = compression.unpack("zstd", chunks, replace(bounds, ratio=RATIO, total=min(size, bounds.total)))
    written = write(unpacked, fd, bounds)
    if written != size:
        raise ImageError(f"the disk ends at {written} bytes, it says it has {size}: it is truncated")


def write(chunks: Iterable[bytes], fd: int, bounds: Bounds) -> int:
    """Write a stream to an empty file, without its zeros. How long it was. Raises ImageError when there is no room."""
    at = checked = 0
    for data in chunks:
        if at >= checked:
            check_space(fd, bounds, coming=_CHECK_EVERY)
            checked = at + _CHECK_EVERY
        _write_sparse(fd, at, data)
        at += len(data)
    os.ftruncate(fd, at)
    return at


def _write_sparse(fd: int, at: int, data: bytes) -> None:
    if data == _NOTHING[: len(data)]:
        return
    view = memoryview(data)
    begin = 0
    while begin < len(data):
        # Pieces end where a multiple of their size is, wherever the stream's chunks do.
        end = min(begin + _PIECE - (at + begin) % _PIECE, len(data))
        piece = view[begin:end]
        if piece != _NOTHING[: end - begin]:
            done = 0
            while done < len(piece):
                done += os.pwrite(fd, piece[done:], at + begin + done)
        begin = end


def convert(disk: DiskFile, source: Path, target: Path, bounds: Bounds, progress: Progress) -> None:
    """Write the disk in `source`, no raw one, to the empty file `target`, in a jail without anything else in it.

    Both files' owner changes, and what is lost space in `source` may be taken out of it. Raises ImageError when the
    disk is damaged or there is no room.
    """
    processes.require("bwrap", jailed.PACKAGE)
    processes.require("qemu-img", "qemu-utils")
    os.truncate(target, disk.size)
    for path in (source, target):
        os.chown(path, jailed.USER, jailed.USER)
    progress(Step("checking the disk"))
    given = {_SOURCE: jailed.Given(source, write=True)}
    # A file that is cut off reads as zeros beyond its end, and nothing but this tells.
    for _ in _run(checking(disk.form), disk, given, largest=source.stat().st_size + _REPAIRED):
        pass
    given = {_SOURCE: jailed.Given(source), _TARGET: jailed.Given(target, write=True)}
    for chunk in _run(conversion(disk.form), disk, given, largest=disk.size):
        # It tells of each percent: so much may have come since, and so much comes until the next.
        check_space(target.parent, bounds, coming=disk.size // 50)
        _tell(chunk, disk, progress)


def _run(words: Sequence[str], disk: DiskFile, given: Mapping[str, jailed.Given], *, largest: int) -> Iterator[bytes]:
    limits = jailed.Bounds(memory=_MEMORY, file=largest, cpu_seconds=_CPU_SECONDS)
    argv = jailed.command((_PROGRAM, *words), given=given, bounds=limits)
    said: deque[str] = deque(maxlen=2)
    with processes.stream(argv, on_line=said.append, env={}, package="util-linux", grace=0) as chunks:
        try:
            yield from chunks
        except HostError as error:
            reason = "; ".join(line.removeprefix("qemu-img: ")[:200] for line in said) or error.what
            raise ImageError(f"the {disk.form} is damaged: {reason}") from error


def checking(form: str) -> tuple[str, ...]:
    """qemu-img's words to check a disk. Space that is lost in a qcow2 is no damage."""
    return ("check", "-q", *(("-r", "leaks") if form == "qcow2" else ()), _source(form))


def conversion(form: str) -> tuple[str, ...]:
    """qemu-img's words to convert a disk."""
    return ("convert", "-p", "-n", "--target-is-zero", "-t", "writeback", "-O", "raw", _source(form), _TARGET)


def _source(form: str) -> str:
    """The format is told, so that it is not guessed from what a guest has written; no other file belongs to it."""
    file = {"driver": "file", "filename": _SOURCE, "locking": "off"}
    return "json:" + json.dumps({"driver": form, "backing": None, "file": file})


def _tell(chunk: bytes, disk: DiskFile, progress: Progress) -> None:
    number = chunk.rpartition(b"(")[2].partition(b"/")[0]
    try:
        done = int(disk.size * min(float(number), 100.0) / 100)
    except ValueError:
        return
    progress(Step(f"converting the disk of {format_size(disk.size)}", done, disk.size, "bytes"))
