"""One disk in the place of another: what a guest has written stays marked under every name, at each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bulkhead.config import Config
from bulkhead.storage import foreign
from bulkhead.storage.disks import Disks

ID = "a" * 32


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    """Those of no daemon."""
    return Disks(Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A disk that a guest has written; a fresh one is in `side`."""
    bundle, side = tmp_path / "bundle", tmp_path / "side"
    bundle.mkdir()
    side.mkdir()
    (bundle / "disk.img").write_text("the guest's")
    foreign.mark(bundle / "disk.img")
    (side / "disk.img").write_text("fresh")
    return bundle / "disk.img"


def exchange(disks: Disks, path: Path) -> None:
    """Put the fresh one in its place."""
    disks.exchange(ID, path, path.parent.parent / "side" / "disk.img")


def test_exchanged_and_put_back(disks: Disks, path: Path) -> None:
    exchange(disks, path)
    assert (path.read_text(), foreign.is_marked(path)) == ("fresh", False)
    assert foreign.is_marked(path.with_name("old-disk.img"))
    disks.put_back(ID, path)
    disks.put_back(ID, path)
    assert (path.read_text(), foreign.is_marked(path)) == ("the guest's", True)
    assert sorted(file.name for file in path.parent.iterdir()) == ["disk.guest", "disk.img"]


def test_exchanged_and_forgotten(disks: Disks, path: Path) -> None:
    exchange(disks, path)
    disks.forget_old(path)
    disks.forget_old(path)
    assert [file.name for file in path.parent.iterdir()] == ["disk.img"]


def _marked(path: Path) -> None:
    foreign.mark(path.with_name("old-disk.img"))


def _away(path: Path) -> None:
    _marked(path)
    path.rename(path.with_name("old-disk.img"))


@pytest.mark.parametrize("steps", [_marked, _away])
def test_cut_off_before_the_fresh_one_is_there(disks: Disks, path: Path, steps: Callable[[Path], None]) -> None:
    steps(path)
    assert not disks.finish_exchange(ID, path)
    assert (path.read_text(), foreign.is_marked(path)) == ("the guest's", True)
    assert sorted(file.name for file in path.parent.iterdir()) == ["disk.guest", "disk.img"]


def test_cut_off_before_its_mark_is_gone(disks: Disks, path: Path) -> None:
    _away(path)
    (path.parent.parent / "side" / "disk.img").rename(path)
    assert foreign.is_marked(path), "which is the safe side"
    assert disks.finish_exchange(ID, path)
    assert (path.read_text(), foreign.is_marked(path)) == ("fresh", False)
