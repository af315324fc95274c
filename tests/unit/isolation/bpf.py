"""A small interpreter of classic BPF: what a seccomp filter answers to a call, without making the call."""

from __future__ import annotations

import struct

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
X32_BIT = 0x40000000


def run(program: bytes, *, arch: int, number: int, args: tuple[int, ...] = ()) -> int:
    """The filter's return value."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(value & (1 << 64) - 1 for value in padded))
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        what, yes, no, value = code[at]
        at += 1
        match what:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x06:
                return int(value)
            case 0x05:
                at += value
            case 0x54:
                accumulator &= value
            case 0x15 | 0x25 | 0x35 | 0x45:
                hit = {
                    0x15: accumulator == value,
                    0x25: accumulator > value,
                    0x35: accumulator >= value,
                    0x45: bool(accumulator & value),
                }[what]
                at += yes if hit else no
            case _:
                raise AssertionError(f"instruction {what:#x} at {at - 1}")
