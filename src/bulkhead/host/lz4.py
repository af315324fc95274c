"""LZ4 blocks, through liblz4, which apt and systemd bring to every Debian."""

from __future__ import annotations

import ctypes
from functools import cache

from bulkhead.errors import Unavailable

_LIBRARY = "liblz4.so.1"


def decompress_block(data: bytes, most: int) -> bytes:
    """What one block unpacks to, at most `most` bytes. Raises ValueError when it is damaged or larger."""
    out = ctypes.create_string_buffer(most)
    size = _liblz4().LZ4_decompress_safe(data, out, len(data), most)
    if size < 0:
        raise ValueError(f"a block of {len(data)} bytes is damaged, or unpacks to more than {most}")
    return out.raw[:size]


@cache
def _liblz4() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise Unavailable(f"{_LIBRARY} is not installed", hint="apt install liblz4-1") from error
    library.LZ4_decompress_safe.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    library.LZ4_decompress_safe.restype = ctypes.c_int
    return library
