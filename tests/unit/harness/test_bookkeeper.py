"""The judge of etcd's histories can fail: a lost write, a write that was refused and is there all the same."""

from __future__ import annotations

import math

from tests.harness.linearizing import order
from tests.integration.etcd.bookkeeper import EMPTY, Entry


def possible(*entries: Entry) -> bool:
    return order([call for entry in entries if (call := entry.call())], EMPTY) is not None


WRITE = Entry("a", "write both", "p0", 0.0, 1.0, "made", [None, None], "x")


def read(began: float, left: str | None, right: str | None) -> Entry:
    return Entry("b", "read", "p0", began, began + 0.5, "made", [left, right])


def test_what_was_written_is_read() -> None:
    assert possible(WRITE, read(2, "x", "x"))
    assert not possible(WRITE, read(2, None, None))
    assert not possible(WRITE, read(0.1, "x", None)), "nobody sees a half"


def test_what_was_refused_is_not_there() -> None:
    refused = Entry("a", "write both", "p0", 0.0, 1.0, "refused", None, "x")
    assert possible(refused, read(2, None, None))
    assert not possible(refused, read(2, "x", "x"))


def test_what_is_undecided_is_there_or_not_and_stays() -> None:
    undecided = Entry("a", "write both", "p0", 0.0, math.inf, "undecided", None, "x")
    assert possible(undecided, read(2, None, None), read(3, "x", "x"))
    assert not possible(undecided, read(2, "x", "x"), read(3, None, None))


def test_two_that_have_read_the_same_cannot_both_have_written() -> None:
    other = Entry("b", "write both", "p0", 0.5, 1.5, "made", [None, None], "y")
    assert not possible(WRITE, other)
