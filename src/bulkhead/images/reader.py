"""Byte streams: chunks from somewhere, read in exact pieces; their digest and their copy made on the way."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterable, Iterator

from bulkhead.errors import ImageError
from bulkhead.events import Progress, Step

CHUNK = 1 << 20
_DEPTH = 8
_REPORT_EVERY = 8 << 20


class Reader:
    """Reads exact numbers of bytes off a stream of chunks. What it hands out are views of the chunks: no copies."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._view = memoryview(b"")
        self._at = 0
        self._passed = 0

    @property
    def position(self) -> int:
        """Bytes handed out or skipped so far."""
        return self._passed + self._at

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises ImageError when the stream ends before."""
        end = self._at + size
        if end <= len(self._view):
            data = bytes(self._view[self._at : end])
            self._at = end
            return data
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes in pieces as they come. Raises ImageError when the stream ends before."""
        while size:
            if self._at == len(self._view) and not self._more():
                raise ImageError(f"the layer ends {size} bytes too early, inside a file: it is truncated")
            piece = self._view[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        for _ in self.pieces(size):
            pass

    def at_end(self) -> bool:
        """Whether nothing more comes."""
        return self._at == len(self._view) and not self._more()

    def drain(self) -> None:
        """Read to the end, for the digest's sake."""
        while not self.at_end():
            self._at = len(self._view)

    def _more(self) -> bool:
        self._passed += self._at
        self._at = 0
        self._view = memoryview(b"")
        for chunk in self._chunks:
            if chunk:
                self._view = memoryview(chunk)
                return True
        return False


class Digester:
    """SHA-256 of a stream, and a copy of it in a file, made by a thread beside the reader.

    Both release the interpreter's lock, so a second core does them while the first one parses.
    """

    def __init__(self, copy_to: int | None = None) -> None:
        self._hash = hashlib.sha256()
        self._copy_to = copy_to
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="digest", daemon=True)
        self._thread.start()
        self.size = 0

    def pass_on(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, each taken into the digest (and the copy) as it passes."""
        for chunk in chunks:
            self.size += len(chunk)
            self._queue.put(chunk)
            if self._error:
                raise self._error
            yield chunk

    def finish(self) -> str:
        """`sha256:` and the hex digest of all that passed. Raises OSError when the copy could not be written."""
        self.close()
        if self._error:
            raise self._error
        return "sha256:" + self._hash.hexdigest()

    def close(self) -> None:
        """End the thread. May be called again."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._error:
                continue
            self._hash.update(chunk)
            try:
                if self._copy_to is not None:
                    write_all(self._copy_to, chunk)
            except OSError as error:
                self._error = error


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def file_chunks(fd: int, *, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """A file's bytes from `offset` on, `size` of them or to its end. Raises ImageError when it is shorter."""
    left = size
    while left is None or left > 0:
        chunk = os.pread(fd, CHUNK if left is None else min(CHUNK, left), offset)
        if not chunk:
            if left is None:
                return
            raise ImageError(f"the file ends {left} bytes before the end that its archive promised: it is truncated")
        offset += len(chunk)
        left = None if left is None else left - len(chunk)
        yield chunk


def pipe_chunks(fd: int) -> Iterator[bytes]:
    """What a pipe or socket brings, to its end."""
    while chunk := os.read(fd, CHUNK):
        yield chunk


def reported(chunks: Iterable[bytes], progress: Progress, label: str, total: int = 0) -> Iterator[bytes]:
    """The same chunks; a Step with the bytes so far goes to `progress` now and then. `total` 0: unknown."""
    done = told = 0
    progress(Step(label, 0, total, "bytes"))
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if done - told >= _REPORT_EVERY:
            told = done
            progress(Step(label, done, total, "bytes"))
    progress(Step(label, done, total, "bytes"))
