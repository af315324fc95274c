"""Blobs on their way here: several at a time, into files that outlive a crash, read while they grow.

partial/<hex of the blob's digest> holds the first bytes of a blob; whoever fills it holds a lock on it. Nothing
believes them: they are unpacked and their digest is taken as if they had just come, and a file whose bytes turn out
wrong is thrown away.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import accumulate
from pathlib import Path

from bulkhead.errors import ImageError
from bulkhead.events import Progress, Step
from bulkhead.images.bounds import Bounds, check_space
from bulkhead.images.documents import Descriptor
from bulkhead.images.reader import CHUNK, write_all

AT_ONCE = 4
KEPT_SECONDS = 7 * 24 * 3600.0
"""How long the beginnings of blobs that nobody goes on with are kept."""
_SPACE_EVERY = 64 << 20
_TICK = 0.2
_TOLD_EVERY = 8 << 20

Fill = Callable[["Download"], None]
"""Appends what a download lacks by `append`."""


class Download:
    """One blob in a file that grows up to its size."""

    def __init__(self, descriptor: Descriptor, path: Path, fd: int, bounds: Bounds) -> None:
        self.descriptor, self.path, self.fd = descriptor, path, fd
        self.have = min(os.fstat(fd).st_size, descriptor.size)
        """Bytes that are in the file."""
        self.resumed = self.have > 0
        """Some of it was there before: it may be wrong without anybody's intent."""
        self.moved = 0
        """Bytes that came from the registry."""
        self.failure: BaseException | None = None
        self.cancelled = False
        self._bounds = bounds
        self._checked = 0
        self._changed = threading.Condition()
        os.ftruncate(fd, self.have)
        os.lseek(fd, self.have, os.SEEK_SET)

    def append(self, data: bytes, *, moved: bool = True) -> None:
        """More of it. Raises ImageError where the disk becomes full, or nobody wants it any more."""
        if self.cancelled:
            raise ImageError("the pull was given up")
        if self.have + len(data) > self.descriptor.size:
            raise ImageError(f"blob {self.descriptor.digest} is longer than its {self.descriptor.size} bytes")
        if self.have - self._checked >= _SPACE_EVERY:
            check_space(self.fd, self._bounds)
            self._checked = self.have
        write_all(self.fd, data)
        with self._changed:
            self.have += len(data)
            self.moved += len(data) if moved else 0
            self._changed.notify_all()

    def restart(self) -> None:
        """Forget what there is: it was wrong. Only while nobody reads."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.have = 0

    def fail(self, error: BaseException) -> None:
        """Nothing more comes."""
        with self._changed:
            self.failure = error
            self._changed.notify_all()

    def chunks(self, tick: Callable[[], None]) -> Iterator[bytes]:
        """All of it from the beginning, as it comes. `tick` is called again and again meanwhile."""
        at, size = 0, self.descriptor.size
        while at < size:
            tick()
            with self._changed:
                if self.have <= at:
                    if self.failure:
                        raise self.failure
                    self._changed.wait(_TICK)
                have = self.have
            while at < have:
                chunk = os.pread(self.fd, min(CHUNK, have - at), at)
                if not chunk:
                    raise ImageError(f"the file of {self.descriptor.digest} was cut off while it was read")
                at += len(chunk)
                yield chunk


class Downloads:
    """The blobs of one pull. Close it: what has come stays in its files."""

    def __init__(self, directory: Path, bounds: Bounds, progress: Progress) -> None:
        self._directory = directory
        self._bounds = bounds
        self._progress = progress
        self._stack = ExitStack()
        self._pool = ThreadPoolExecutor(AT_ONCE, "download")
        self.all: dict[str, Download] = {}
        self._told, self._told_bytes = 0.0, 0

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        for download in self.all.values():
            download.cancelled = True
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def begin(self, wanted: Sequence[Descriptor], fill: Fill) -> None:
        """Have blobs come, the first ones first."""
        for descriptor in wanted:
            if descriptor.digest not in self.all:
                download = self._open(descriptor)
                self.all[descriptor.digest] = download
                self._pool.submit(self._fill, download, fill)

    def _open(self, descriptor: Descriptor) -> Download:
        """The partial file, or one of this pull's own where another pull is filling that."""
        usual, own = descriptor.digest.removeprefix("sha256:"), f"{os.getpid()}-{id(self)}-{len(self.all)}"
        for name in (usual, usual, own):
            path = self._directory / name
            with ExitStack() as stack:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                stack.callback(os.close, fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if not _is_ours(fd, path):
                    continue
                if name == own:
                    stack.callback(path.unlink, missing_ok=True)
                self._stack.push(stack.pop_all())
                return Download(descriptor, path, fd, self._bounds)
        raise ImageError(f"blob {descriptor.digest} has no file to come to")

    @staticmethod
    def _fill(download: Download, fill: Fill) -> None:
        try:
            if not download.cancelled and download.have < download.descriptor.size:
                fill(download)
        except BaseException as error:
            download.fail(error)

    def tick(self) -> None:
        """Tell how far all of it has come. Raises where nobody is there any more to be told."""
        now, have = time.monotonic(), sum(download.have for download in self.all.values())
        if now - self._told < _TICK and have - self._told_bytes < _TOLD_EVERY:
            return
        self._told, self._told_bytes = now, have
        total = sum(download.descriptor.size for download in self.all.values())
        self._progress(Step(f"pulling {len(self.all)} blobs", have, total, "bytes"))

    @property
    def resumed(self) -> bool:
        """Whether anything had been left by a pull before."""
        return any(download.resumed for download in self.all.values())

    def done(self) -> None:
        """The store has all of it: the files are no longer needed."""
        for download in self.all.values():
            download.path.unlink(missing_ok=True)

    def discard(self, digest: str) -> None:
        """A blob turned out wrong: the next pull begins anew."""
        if digest in self.all:
            self.all[digest].path.unlink(missing_ok=True)


def _is_ours(fd: int, path: Path) -> bool:
    """Whether a locked file is the one of that name still, and nobody else's: a crash may have left one that is a
    blob of the store as well, whose name is taken away here.
    """
    found = os.fstat(fd)
    if found.st_nlink > 1:
        path.unlink(missing_ok=True)
    return found.st_nlink == 1


def forget(directory: Path, *, older: float = 0.0) -> int:
    """Remove what nobody fills and has not been touched for `older` seconds; the bytes that this freed."""
    freed = 0
    for path, found in _left_behind(directory):
        if time.time() - found.st_mtime >= older or "-" in path.name:
            path.unlink()
            freed += found.st_blocks * 512
    return freed


def fit(directory: Path, most: int) -> None:
    """Remove what nobody fills, what was touched longest ago first, until the rest has at most `most` bytes."""
    there = sorted(_left_behind(directory), key=lambda one: -one[1].st_mtime)
    sizes = accumulate(found.st_size for _, found in there)
    gone = {path for (path, _), size in zip(there, sizes, strict=True) if size > most}
    for path, _ in _left_behind(directory) if gone else ():
        if path in gone:
            path.unlink()


def _left_behind(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files that nobody fills, each locked until the next one is asked for."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, os.fstat(file.fileno())
