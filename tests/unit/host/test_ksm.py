"""The switch of the kernel's merging: ours only after we turned it, and left as it was found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkhead.errors import HostError
from bulkhead.host.ksm import Ksm, has_asked


@pytest.fixture
def switch(tmp_path: Path) -> Ksm:
    """One in a directory that looks as the kernel's."""
    root = tmp_path / "ksm"
    root.mkdir()
    for name, value in (("run", "0"), ("pages_shared", "0"), ("pages_sharing", "7")):
        (root / name).write_text(f"{value}\n")
    return Ksm(tmp_path / "kept", root)


def test_it_is_left_as_it_was_found(switch: Ksm) -> None:
    assert not switch.is_used()
    switch.begin()
    switch.begin()
    assert (switch.root / "run").read_text() == "1"
    assert switch.is_ours()
    assert Ksm(switch.kept, switch.root).is_ours(), "the next daemon knows as well"
    switch.end()
    assert (switch.root / "run").read_text().strip() == "0"
    assert not switch.is_ours()
    (switch.root / "run").write_text("1\n")
    switch.end()
    assert (switch.root / "run").read_text() == "1\n", "what is not ours is not turned off"


def test_others_that_merge_are_seen_also_where_it_was_stopped(switch: Ksm) -> None:
    (switch.root / "pages_shared").write_text("3\n")
    assert switch.is_used()
    (switch.root / "pages_shared").write_text("0\n")
    (switch.root / "run").write_text("1\n")
    assert switch.is_used()
    assert switch.saved() == 7


def test_a_kernel_without_it(tmp_path: Path) -> None:
    switch = Ksm(tmp_path / "kept", tmp_path / "none")
    assert not switch.exists()
    assert not switch.is_used()
    switch.end()
    with pytest.raises(HostError, match="cannot write 1"):
        switch.begin()


def test_who_has_not_asked_and_who_has_gone() -> None:
    assert not has_asked(os.getpid())
    assert not has_asked(1 << 30)
