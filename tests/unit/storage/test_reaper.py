"""Work in the background."""

from __future__ import annotations

import threading

import pytest

from bulkhead.storage import reaper
from bulkhead.storage.reaper import Reaper


def test_settle_waits_for_all() -> None:
    """Nothing is under way after it."""
    done: list[int] = []
    work = Reaper()
    for number in range(20):
        work.submit(str(number), lambda number=number: done.append(number))  # type: ignore[misc]
    work.settle()
    assert sorted(done) == list(range(20))
    work.close()


def test_errors_come_out_of_settle_once() -> None:
    """The other jobs are done all the same."""
    done: list[str] = []
    work = Reaper()

    def fail() -> None:
        raise OSError("busy")

    work.submit("a", fail)
    work.submit("b", lambda: done.append("b"))
    with pytest.raises(OSError, match="busy"):
        work.settle()
    work.settle()
    assert done == ["b"]
    work.close()


def test_a_job_of_the_same_name_waits() -> None:
    """Two of one name never overlap."""
    gate, order = threading.Event(), []
    work = Reaper()

    def first() -> None:
        gate.wait(10)
        order.append("first")

    work.submit("x", first)
    threading.Timer(0.05, gate.set).start()
    work.submit("x", lambda: order.append("second"))
    work.settle()
    assert order == ["first", "second"]
    work.close()


def test_a_long_queue_makes_the_caller_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting faster than can be cleaned up slows the deleting down."""
    monkeypatch.setattr(reaper, "_BACKLOG", 2)
    gate, where = threading.Event(), []
    work = Reaper()
    for number in range(2):
        work.submit(str(number), lambda: where.append(gate.wait(10)))
    work.submit("own", lambda: where.append(threading.current_thread() is threading.main_thread()))
    assert where == [True]
    gate.set()
    work.close()
    assert len(where) == 3
