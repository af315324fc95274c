"""Two seconds of each fuzzer; ten minutes: `python -m tests.unit.containerfile.fuzz containerfiles|archives 600`."""

from __future__ import annotations

from tests.unit.containerfile import fuzz


def test_containerfiles_are_read_or_refused() -> None:
    assert fuzz.containerfiles(2.0, 12345) > 100


def test_archives_are_taken_or_refused() -> None:
    assert fuzz.archives(2.0, 12345) > 10
