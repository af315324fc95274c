"""A layer in the form zstd:chunked of containers/storage: a tar.zst that can be fetched file by file.

Every file's data are zstd frames of their own, what is between them (headers, padding) frames too. Behind them, in
skippable frames: our table of runs (runs.py), a table of contents (JSON as in CRFS, compressed) and a footer that
says where it is. Whoever knows nothing of that reads an ordinary layer. The tar's exact bytes are kept: its diff id is
what it was. Format: containers/storage, docs/containers-storage-zstd-chunked.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import zstandard

from bulkhead.images import tar
from bulkhead.images.bounds import Bounds
from bulkhead.images.reader import Reader
from bulkhead.images.runs import RUNS, SKIP_HEAD, Runs, skippable

CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"
POSITION = "io.github.containers.zstd-chunked.manifest-position"
_LEVEL = 3
_CHUNK = 1 << 20
_MOST_BETWEEN = 1 << 20
_CRFS = 1
_FOOTER = struct.Struct("<7Q8s")
_FOOTER_MAGIC = b"GNUlInUx"
_TYPES = {b"0": "reg", b"1": "hardlink", b"2": "symlink", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}


@dataclass(frozen=True, slots=True)
class Chunked:
    """A layer that was written."""

    size: int
    annotations: dict[str, str]
    """Of its descriptor."""


class _Recorder(Reader):
    """Keeps what is read but a file's data."""

    def __init__(self, chunks: Iterable[bytes], spill: Callable[[bytearray], None]) -> None:
        super().__init__(chunks)
        self.between = bytearray()
        self._data = False
        self._spill = spill

    def exactly(self, size: int) -> bytes:
        # The fast path of the base takes bytes off without `pieces`.
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        for piece in super().pieces(size):
            if not self._data:
                self.between += piece
                if len(self.between) >= _MOST_BETWEEN:
                    self.flush()
            yield piece

    def flush(self) -> None:
        """Hand on what has been kept."""
        if self.between:
            self._spill(self.between)
            self.between.clear()

    def data(self, size: int) -> bytes:
        """Bytes of a file."""
        self._data = True
        try:
            return self.exactly(size)
        finally:
            self._data = False

    def rest(self) -> None:
        """Everything up to the end."""
        while not self.at_end():
            self.skip(len(self._view) - self._at)


class _Writer:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)
        self.runs = Runs()
        self.size = 0

    def raw(self, data: bytes) -> None:
        self._write(data)
        self.size += len(data)

    def frame(self, data: bytes | bytearray) -> None:
        packed = self._zstd.compress(bytes(data))
        self.runs.add(packed)
        self.raw(packed)

    def packed(self, data: bytes) -> bytes:
        return self._zstd.compress(data)


def write(chunks: Iterable[bytes], out: Callable[[bytes], object], bounds: Bounds) -> Chunked:
    """Write a layer, given as an uncompressed tar, to `out`. Raises ImageError where that is damaged."""
    writer = _Writer(out)
    reader = _Recorder(chunks, writer.frame)
    contents: list[dict[str, Any]] = []
    for entry in tar.entries(reader, bounds, must_end=False, notes=set()):
        about = _about(entry)
        if entry.kind == b"0" and entry.stored and entry.segments is None:
            reader.flush()
            contents += _file(about, entry, reader, writer)
        else:
            contents.append(about)
    reader.rest()
    reader.flush()
    return _finish(writer, contents)


def _file(about: dict[str, Any], entry: tar.Entry, reader: _Recorder, writer: _Writer) -> list[dict[str, Any]]:
    """A file's data as frames; its entries in the table of contents."""
    whole, chunks = hashlib.sha256(), []
    for at in range(0, entry.stored, _CHUNK):
        data = reader.data(min(_CHUNK, entry.stored - at))
        whole.update(data)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        chunks.append({"offset": writer.size, "chunkSize": len(data), "chunkOffset": at, "chunkDigest": digest})
        writer.frame(data)
    about |= {"digest": "sha256:" + whole.hexdigest(), "offset": chunks[0]["offset"], "endOffset": writer.size}
    if len(chunks) == 1:
        return [about]
    about |= {key: value for key, value in chunks[0].items() if key != "chunkOffset"}
    return [about, *({"type": "chunk", "name": about["name"], **chunk} for chunk in chunks[1:])]


def _finish(writer: _Writer, contents: list[dict[str, Any]]) -> Chunked:
    table = writer.runs.table()
    runs_at = writer.size + SKIP_HEAD
    writer.raw(skippable(table))
    plain = json.dumps({"version": 1, "entries": contents}, separators=(",", ":")).encode()
    packed = writer.packed(plain)
    at = writer.size + SKIP_HEAD
    writer.raw(skippable(packed))
    writer.raw(skippable(_FOOTER.pack(at, len(packed), len(plain), _CRFS, 0, 0, 0, _FOOTER_MAGIC)))
    annotations = {
        CHECKSUM: "sha256:" + hashlib.sha256(packed).hexdigest(),
        POSITION: f"{at}:{len(packed)}:{len(plain)}:{_CRFS}",
        RUNS: f"{runs_at}:{len(table)}",
    }
    return Chunked(writer.size, annotations)


def _about(entry: tar.Entry) -> dict[str, Any]:
    """An entry of the table of contents, without what is zero, as Go writes it."""
    about: dict[str, Any] = {
        "type": _TYPES[entry.kind],
        "name": entry.path.decode(errors="replace") + ("/" if entry.kind == b"5" else ""),
        "linkName": entry.link.decode(errors="replace") if entry.kind in b"12" else "",
        "mode": entry.mode,
        "size": entry.size,
        "uid": entry.uid,
        "gid": entry.gid,
        "modtime": _time(entry.mtime),
        "devMajor": entry.major,
        "devMinor": entry.minor,
        "xattrs": {key.decode(errors="replace"): base64.b64encode(value).decode() for key, value in entry.xattrs},
    }
    return {key: value for key, value in about.items() if value}


def _time(nanoseconds: int) -> str:
    try:
        when = datetime.fromtimestamp(nanoseconds // 10**9, UTC).isoformat().removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return ""
    fraction = nanoseconds % 10**9
    return f"{when}.{fraction:09}Z" if fraction else f"{when}Z"
