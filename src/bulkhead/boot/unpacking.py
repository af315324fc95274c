"""Compressed pieces of a kernel package in memory: known by their first bytes, unpacked within a bound."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable

import zstandard

from bulkhead.errors import ImageError
from bulkhead.host import lz4

_MEMORY = 192 << 20
"""What an unpacker may hold; xz -9 needs 65 MiB, the kernel's zstd -22 a window of 128 MiB."""
_LZ4_BLOCK = 8 << 20
"""Size that the blocks of the legacy format, the only one the kernel knows, unpack to at most."""


def unpack(data: bytes, *, most: int, what: str) -> bytes:
    """`data` uncompressed (gzip, xz, zstd, lz4's legacy format), or as it is where it is not compressed.

    Bytes after the compressed stream are passed over. Raises ImageError when it is damaged, cut off, or unpacks to
    more than `most` bytes; `what` names it then.
    """
    unpacker = next((unpacker for magic, unpacker in _UNPACKERS.items() if data.startswith(magic)), None)
    if unpacker is None:
        return data
    try:
        unpacked = unpacker(data, most + 1)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, ValueError, struct.error) as error:
        raise ImageError(f"{what} is damaged: {error}") from error
    if len(unpacked) > most:
        raise ImageError(f"{what} unpacks to more than {most} bytes")
    return unpacked


def _gzip(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    return _whole(unpacker.decompress(data, most), most, ended=unpacker.eof)


def _xz(data: bytes, most: int) -> bytes:
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    return _whole(unpacker.decompress(data, most), most, ended=unpacker.eof)


def _zstd(data: bytes, most: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
    with unpacker.stream_reader(data, read_across_frames=False) as stream:
        unpacked = stream.read(most)
    claimed = zstandard.frame_content_size(data)
    return _whole(unpacked, most, ended=claimed in (-1, len(unpacked)))


def _lz4(data: bytes, most: int) -> bytes:
    """Blocks, each with its size in front. The kernel's build puts the unpacked size behind the last one."""
    out = bytearray()
    at = 4
    while at + 4 < len(data) and len(out) < most:
        size = struct.unpack_from("<I", data, at)[0]
        block = data[at + 4 : at + 4 + size]
        if not size or len(block) != size:
            raise EOFError(f"a block of {size} bytes at {at} is cut off")
        out += lz4.decompress_block(block, _LZ4_BLOCK)
        at += 4 + size
    return bytes(out[:most])


def _whole(unpacked: bytes, most: int, *, ended: bool) -> bytes:
    if not ended and len(unpacked) < most:
        raise EOFError("it ends too early")
    return unpacked


_UNPACKERS: dict[bytes, Callable[[bytes, int], bytes]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\x00": _xz,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\x02\x21\x4c\x18": _lz4,
}
