"""Compressed streams, known by their first bytes and unpacked in bounded pieces."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

import zstandard

from bulkhead.errors import ImageError
from bulkhead.images.bounds import Bounds, check_ratio
from bulkhead.images.reader import CHUNK

_MEMORY = 192 << 20
"""What an unpacker may hold in memory; xz -9 needs 65 MiB, zstd --ultra -22 a window of 128 MiB."""
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}


class _Unpacker(Protocol):
    """One member of a compressed stream, as bz2 and lzma have it."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes of what `data` unpacks to."""

    @property
    def needs_input(self) -> bool:
        """Whether only new data brings more."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""


class _Gzip:
    """zlib in the shape of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(unpacked) < max_length
        return unpacked

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_UNPACKERS: dict[str, Callable[[], _Unpacker]] = {
    "gzip": _Gzip,
    "xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY),
    "bzip2": bz2.BZ2Decompressor,
}


def sniff(chunks: Iterable[bytes]) -> tuple[str, Iterator[bytes]]:
    """The compression ("gzip", "zstd", "xz", "bzip2" or "" for none) and the same chunks again."""
    rest = iter(chunks)
    first = b""
    for chunk in rest:
        first += chunk
        if len(first) >= 512:
            break
    kind = next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), "")
    return kind, chain([first], rest) if first else rest


def unpack(kind: str, chunks: Iterable[bytes], bounds: Bounds) -> Iterator[bytes]:
    """The uncompressed stream in pieces of at most 1 MiB. Raises ImageError for damage and for bombs."""
    counted = _Counted(chunks)
    done = 0
    try:
        for piece in _pieces(kind, counted):
            done += len(piece)
            check_ratio(counted.size, done, bounds)
            yield piece
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # not the decompressor's: the disk's or the pipe's
        raise ImageError(f"the layer's {kind} data is damaged: {error}") from error


def _pieces(kind: str, counted: _Counted) -> Iterator[bytes]:
    if kind == "":
        yield from counted
    elif kind == "zstd":
        yield from _zstd(counted)
    else:
        yield from _members(_UNPACKERS[kind], counted, kind)


class _Counted:
    """Chunks whose sizes are added up as they go; a file too, for what wants one."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self.size += len(chunk)
        return chunk


def _members(make: Callable[[], _Unpacker], counted: _Counted, kind: str) -> Iterator[bytes]:
    """Member after member (`cat a.gz b.gz` is one stream); zeros after the last are padding."""
    unpacker: _Unpacker | None = None
    for chunk in counted:
        data = chunk
        while True:
            if unpacker is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                unpacker = make()
            piece = unpacker.decompress(data, CHUNK)
            if piece:
                yield piece
            if unpacker.eof:
                data, unpacker = unpacker.unused_data, None
                continue
            data = b""
            if unpacker.needs_input:
                break
    if unpacker is not None:
        raise ImageError(f"the layer's {kind} data ends too early: it is truncated")


class _Source:
    """Chunks as the file that zstandard reads from: any number of bytes up to what it asks for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = len(self._rest) if size < 0 else size
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data


def _zstd(counted: _Counted) -> Iterator[bytes]:
    """Frame after frame. zstandard does not tell when the last one is cut off: the tar's end mark, or the diff id
    where there is one, does."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
    with unpacker.stream_reader(_Source(counted), read_across_frames=True) as stream:  # type: ignore[arg-type]
        while piece := stream.read(CHUNK):
            yield piece
