"""Whether an instance ran twice is told from looks that come one after the other: as much as they show."""

from __future__ import annotations

from tests.harness.harm import Copies

Look = dict[str, dict[str, frozenset[int]]]


def twice(before: Look, after: Look) -> set[str]:
    copies = Copies({host: host for host in before}, "sleep")
    copies.judge(before, after)
    return copies.twice


ONE, OTHER = {"i": frozenset({1})}, {"i": frozenset({2})}


def test_one_copy_is_one() -> None:
    assert twice({"a": ONE, "b": {}}, {"a": ONE, "b": {}}) == set()


def test_two_that_both_stay_are_two() -> None:
    assert twice({"a": ONE, "b": OTHER}, {"a": ONE, "b": OTHER}) == {"i"}


def test_what_went_from_one_to_the_other_between_two_looks_is_one() -> None:
    assert twice({"a": ONE, "b": {}}, {"a": {}, "b": OTHER}) == set()
    assert twice({"a": ONE, "b": OTHER}, {"a": {}, "b": OTHER}) == set(), "the first may have ended before b was seen"
    assert twice({"a": {}, "b": ONE}, {"a": OTHER, "b": {}}) == set()


def test_what_is_there_before_and_after_the_other_was_seen_is_two() -> None:
    assert twice({"a": ONE, "b": OTHER}, {"a": ONE, "b": {}}) == {"i"}
    assert twice({"a": {}, "b": ONE}, {"a": OTHER, "b": ONE}) == {"i"}


def test_another_process_may_have_begun_after_it() -> None:
    assert twice({"a": ONE, "b": OTHER}, {"a": {"i": frozenset({3})}, "b": {}}) == set()
