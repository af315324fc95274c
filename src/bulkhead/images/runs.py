"""What a compressed layer consists of, so that one that differs a little is put together from one that is here.

A layer that is pushed in chunks is a row of zstd frames, a file or less in each (see chunked.py). Some frames in a row
make a run; where one ends depends on its bytes alone, so that a change moves no run but its own. The table of runs is
a skippable frame in the blob, which others pass over; the annotation RUNS of the layer's descriptor says where:

    "BHRUNS1\\n" | for each run: its length (u32, little-endian), the first 16 bytes of the SHA-256 of its bytes

Nothing of it is believed: what is put together counts only when the whole blob has its digest.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from bulkhead.errors import ImageError
from bulkhead.images.documents import Descriptor

RUNS = "org.bulkhead.runs"
"""Annotation of a layer: "<offset of the table>:<bytes of the table>"."""
MAGIC = b"BHRUNS1\n"
MOST_TABLE = 16 << 20
_ROW = struct.Struct("<I16s")
_SMALLEST, _LARGEST = 32 << 10, 256 << 10
_SKIPPABLE = struct.Struct("<II")
_SKIP_MAGIC = 0x184D2A50
SKIP_HEAD = _SKIPPABLE.size


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of a blob."""

    offset: int
    size: int
    mark: bytes
    """The beginning of their SHA-256."""

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size


class Runs:
    """Collects frames into runs while a blob is written."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0
        self._rows: list[bytes] = []

    def add(self, frame: bytes) -> None:
        """The next frame."""
        self._hash.update(frame)
        self._size += len(frame)
        if self._size >= _LARGEST or (self._size >= _SMALLEST and zlib.crc32(frame) & 3 == 0):
            self._cut()

    def table(self) -> bytes:
        """The table, when all frames have come."""
        if self._size:
            self._cut()
        return MAGIC + b"".join(self._rows)

    def _cut(self) -> None:
        self._rows.append(_ROW.pack(self._size, self._hash.digest()[:16]))
        self._hash, self._size = hashlib.sha256(), 0


def skippable(data: bytes) -> bytes:
    """A frame that zstd passes over (RFC 8878, 3.1.2)."""
    return _SKIPPABLE.pack(_SKIP_MAGIC, len(data)) + data


def place_of(blob: Descriptor) -> tuple[int, int] | None:
    """Where a layer's table is and how long; None where it has none, or one that cannot be."""
    offset, colon, size = blob.annotations.get(RUNS, "").partition(":")
    if not colon or not all(text.isascii() and text.isdigit() and len(text) < 16 for text in (offset, size)):
        return None
    at, length = int(offset), int(size)
    fits = at >= SKIP_HEAD and at + length <= blob.size and len(MAGIC) <= length <= MOST_TABLE
    return (at, length) if fits and (length - len(MAGIC)) % _ROW.size == 0 else None


def parse(table: bytes, before: int) -> list[Run]:
    """The runs of a table that begins at byte `before` of its blob. Raises ImageError where they do not fit."""
    if not table.startswith(MAGIC):
        raise ImageError("the layer's table of runs is none")
    return list(_rows(table[len(MAGIC) :], before))


def _rows(rows: bytes, before: int) -> Iterator[Run]:
    at = 0
    for size, mark in _ROW.iter_unpack(rows):
        if not size or at + size > before:
            raise ImageError("the layer's table of runs does not fit the layer")
        yield Run(at, size, mark)
        at += size
