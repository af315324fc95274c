"""The user's terminal: raw while a session lasts, as it was on every way out."""

from __future__ import annotations

import os
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

# Indices in what tcgetattr gives (termios(3)).
IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6


def size(descriptor: int) -> tuple[int, int]:
    """Rows and columns; 0, 0 where it is no terminal."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return rows, columns


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Hand every key to the workload (cfmakeraw(3)); nothing where it is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[OFLAG] &= ~termios.OPOST
    mode[CFLAG] = mode[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[CC][termios.VMIN], mode[CC][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def parse_keys(text: str) -> bytes:
    """Bytes of "ctrl-p,ctrl-q" or "ctrl-],x"; "" for none. Raises ValueError."""
    keys = bytearray()
    for name in text.split(",") if text else []:
        key = name.removeprefix("ctrl-")
        if len(key) != 1 or not key.isascii() or not key.isprintable():
            raise ValueError(f"--detach-keys {text!r}: {name!r} is not a key such as a or ctrl-p")
        if key != name:
            if not "@" <= key.upper() <= "_":
                raise ValueError(f"--detach-keys {text!r}: there is no {name}")
            keys.append(ord(key.upper()) & 0x1F)
        else:
            keys.append(ord(key))
    return bytes(keys)


class DetachKeys:
    """Finds the detach keys in what the user types; holds back what may be the beginning of them."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys were typed."""
        if not self._keys:
            return typed, False
        passed = bytearray()
        for byte in typed:
            while self._matched and byte != self._keys[self._matched]:
                # What was held back was no beginning after all; a part of it may be one.
                held = self._keys[: self._matched]
                self._matched = self._border(held)
                passed += held[: len(held) - self._matched]
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False

    def _border(self, held: bytes) -> int:
        """How many keys at the end of `held`, but not all of it, are a beginning of the sequence."""
        return next(length for length in range(len(held) - 1, -1, -1) if held.endswith(self._keys[:length]))
