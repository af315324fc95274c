"""A file that a guest may have written is remembered, and not mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkhead.errors import Conflict
from bulkhead.storage import foreign


def test_a_mark_stays_until_the_file_goes(tmp_path: Path) -> None:
    file = tmp_path / "disk.img"
    file.touch()
    foreign.check(file, "the disk of web")
    foreign.mark(file)
    foreign.mark(file)
    with pytest.raises(Conflict, match="the disk of web") as caught:
        foreign.check(file, "the disk of web")
    assert caught.value.hint
    foreign.forget(file)
    foreign.forget(file)
    foreign.check(file, "the disk of web")


def test_files_beside_it_are_not_meant(tmp_path: Path) -> None:
    foreign.mark(tmp_path / "data.img")
    foreign.check(tmp_path / "data2.img", "volume data2")
    foreign.check(tmp_path / "data.more.img", "volume data.more")
