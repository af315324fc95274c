"""Detach keys, and a terminal that is as it was afterwards."""

from __future__ import annotations

import os
import pty
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.cli import terminal


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-P", b"\x10"),
        ("a,b", b"ab"),
        ("ctrl-],x", b"\x1dx"),
        ("", b""),
        ("ctrl-@", b"\0"),
    ],
)
def test_parse_keys(text: str, keys: bytes) -> None:
    assert terminal.parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ab", "ctrl-p,", "ctrl-é", "é", "ctrl-1", ","])
def test_wrong_keys(text: str) -> None:
    with pytest.raises(ValueError, match="--detach-keys"):
        terminal.parse_keys(text)


@given(
    keys=st.binary(min_size=1, max_size=4).map(lambda raw: bytes(byte % 3 for byte in raw)),
    typed=st.lists(st.binary(max_size=6).map(lambda raw: bytes(byte % 3 for byte in raw)), max_size=8),
)
def test_detach_keys_are_found_and_nothing_else_is_lost(keys: bytes, typed: list[bytes]) -> None:
    finder, passed, detached = terminal.DetachKeys(keys), b"", False
    for portion in typed:
        out, detached = finder.feed(portion)
        passed += out
        if detached:
            break
    whole = b"".join(typed)
    where = whole.find(keys)
    assert detached == (where >= 0)
    if detached:
        assert passed == whole[:where]
    else:
        # What is held back is the longest beginning of the keys at the end.
        held = next(count for count in range(len(keys) - 1, -1, -1) if whole.endswith(keys[:count]))
        assert passed == whole[: len(whole) - held]


def test_no_detach_keys() -> None:
    assert terminal.DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_raw_and_back() -> None:
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(RuntimeError), terminal.raw(slave):
            assert not termios.tcgetattr(slave)[terminal.LFLAG] & (termios.ECHO | termios.ICANON | termios.ISIG)
            raise RuntimeError
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_no_terminal() -> None:
    reader, writer = os.pipe()
    try:
        assert terminal.size(reader) == (0, 0)
        with terminal.raw(reader):
            pass
    finally:
        os.close(reader)
        os.close(writer)
