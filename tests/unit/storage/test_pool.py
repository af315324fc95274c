"""The pool of ready disks, with disks that are only names."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bulkhead.storage.pool import Pool, Ready


class Maker:
    """Makes and drops names; fails while `broken`."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.dropped: list[str] = []
        self.broken = False

    def make(self, name: str, size: int) -> Ready:
        if self.broken:
            raise OSError("no space")
        self.made.append((name, size))
        return Ready(Path(name), Path(f"/{size}"))

    def drop(self, ready: Ready) -> None:
        self.dropped.append(ready.file.name)
        if self.broken:
            raise OSError("busy")


def test_keeps_as_many_as_wanted() -> None:
    """Filled at once, refilled after a take, never more."""
    maker = Maker()
    pool = Pool(maker.make, maker.drop)
    pool.want(10, 3)
    pool.want(20, 1)
    pool.settle()
    assert sorted(size for _, size in maker.made) == [10, 10, 10, 20]
    taken = pool.take(10)
    assert taken is not None and taken.target == Path("/10")
    pool.settle()
    assert len(maker.made) == 5
    assert pool.take(30) is None
    pool.close()
    assert len(maker.dropped) == 4
    assert taken.file.name not in maker.dropped
    assert len({name for name, _ in maker.made}) == 5


def test_no_disk_is_given_out_twice() -> None:
    """Also to many takers at once."""
    maker = Maker()
    pool = Pool(maker.make, maker.drop)
    pool.want(10, 8)
    pool.settle()
    got: list[str] = []

    def take() -> None:
        for _ in range(50):
            ready = pool.take(10)
            if ready:
                got.append(ready.file.name)

    takers = [threading.Thread(target=take) for _ in range(8)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    pool.close()
    assert len(got) == len(set(got)) >= 8
    assert not set(got) & set(maker.dropped)
    assert len(got) + len(maker.dropped) == len(maker.made)


def test_a_failure_is_kept_and_the_next_take_tries_again() -> None:
    """No endless loop on a full disk, and no silence."""
    maker = Maker()
    maker.broken = True
    pool = Pool(maker.make, maker.drop)
    pool.want(10, 2)
    pool.settle()
    assert isinstance(pool.problem, OSError)
    assert pool.take(10) is None
    pool.settle()
    maker.broken = False
    assert pool.take(10) is None
    pool.settle()
    assert pool.problem is None
    assert pool.take(10) is not None
    pool.close()


def test_close_tries_every_disk() -> None:
    """And tells of the first error at the end."""
    maker = Maker()
    pool = Pool(maker.make, maker.drop)
    pool.want(10, 3)
    pool.settle()
    maker.broken = True
    with pytest.raises(OSError, match="busy"):
        pool.close()
    assert len(maker.dropped) == 3
