"""Archives on their way into the store: a file of the host, or a stream that can only be read forwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bulkhead.errors import ImageError
from bulkhead.images.archive import Directory, open_file
from bulkhead.images.bounds import check_space
from bulkhead.images.config import Image
from bulkhead.images.importer import Request, import_archive, import_fd
from bulkhead.images.ingest import Ingest
from bulkhead.images.reader import CHUNK, reported, write_all

Work = Callable[[Ingest], str]
"""Fills an ingest; the digest of the (first) image."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image of an archive."""

    image: Image
    names: tuple[str, ...]
    """Those that the archive gives it, sorted."""


def of_file(file: Path, request: Request) -> Work:
    """Takes in a file or a directory."""

    def take(into: Ingest) -> str:
        with ExitStack() as stack:
            if file.is_dir():
                return import_archive(into, Directory(file, stack), request)
            return import_fd(into, open_file(file, stack), request)

    return take


def of_stream(stream: BinaryIO, request: Request) -> Work:
    """Takes in what a stream brings."""

    def take(into: Ingest) -> str:
        bounds = into.layout.bounds
        with into.draft() as (_, fd):
            done = 0
            for chunk in reported(iter(lambda: stream.read(CHUNK), b""), request.progress, "receiving"):
                done += len(chunk)
                if done > bounds.total:
                    raise ImageError(f"the stream is longer than {bounds.total} bytes")
                if done % (64 << 20) < len(chunk):
                    check_space(fd, bounds)
                into.share.grew(done)
                write_all(fd, chunk)
            into.share.grew(done, last=True)
            return import_fd(into, fd, request)

    return take


def noting(work: Work, taken: dict[str, set[str]]) -> Work:
    """The same, and what was taken in, with its names."""

    def take(into: Ingest) -> str:
        digest = work(into)
        for found, names in into.named():
            taken.setdefault(found, set()).update(names)
        return digest

    return take
