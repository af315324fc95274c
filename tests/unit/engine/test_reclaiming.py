"""Who has done nothing for long enough that its memory may be taken."""

from __future__ import annotations

from bulkhead.engine.reclaiming import Idleness


def test_it_is_told_once_when_nothing_was_done_for_so_long() -> None:
    idle = Idleness(after=10)
    told = [idle.see("a", 1.0, now) for now in range(0, 40, 4)]
    assert told == [False, False, False, True, *[False] * 6]


def test_work_begins_it_anew() -> None:
    idle = Idleness(after=10)
    used, told = 1.0, []
    for now in range(0, 80, 5):
        used += 0.5 if now in (10, 40) else 0.001
        told.append((now, idle.see("a", used, now)))
    assert [now for now, yes in told if yes] == [20, 50]


def test_a_little_is_nothing_and_a_steady_share_of_a_core_is_work() -> None:
    little, steady = Idleness(after=10), Idleness(after=10)
    assert any(little.see("a", now * 0.004, now) for now in range(30))
    assert not any(steady.see("a", now * 0.01, now) for now in range(30))


def test_a_new_run_counts_from_its_own_beginning() -> None:
    idle = Idleness(after=10)
    assert not idle.see("a", 5.0, 0)
    assert not idle.see("a", 0.1, 9), "its counter began anew"
    assert not idle.see("a", 0.1, 18)
    assert idle.see("a", 0.1, 19)


def test_those_that_have_gone_are_forgotten() -> None:
    idle = Idleness(after=10)
    idle.see("a", 1.0, 0)
    idle.see("b", 1.0, 0)
    idle.forget_others({"b"})
    assert not idle.see("a", 1.0, 50)
    assert idle.see("b", 1.0, 50)
