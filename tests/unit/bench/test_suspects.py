"""What counters come to beside a plan, and what a case says of a victim."""

from __future__ import annotations

import pytest

from bench.asking import Answers
from bench.measures.gauged import Row
from bench.measures.rogues import SOLD, Case, options_of
from bench.suspects import Count, Suspect, shares


class Fixed(Suspect):
    """Has used all of its processor, half of its link and twice its disk, a second after `BEFORE`."""

    def count(self) -> Count:
        return Count(2.0, self.counters())

    def counters(self) -> dict[str, float]:
        return {"cpu": SOLD.cpus + 5.0, "sent": SOLD.bandwidth / 16}

    def held(self) -> dict[str, float]:
        return {"disk": 2.0}


BEFORE = Count(1.0, {"cpu": 5.0, "sent": 0.0})


def test_use_is_a_share_of_the_plan() -> None:
    assert shares(Fixed(), BEFORE, SOLD) == {"cpu": 1.0, "sent": 0.5, "disk": 2.0}


def test_a_counter_that_begins_anew_is_not_negative() -> None:
    assert Count(3.0, {"cpu": 0.5}).rates_since(BEFORE) == {"cpu": 0.25}


def test_a_case_names_the_greediest_use_and_how_much_slower_the_victim_is() -> None:
    quiet, during = Answers((1.0, 1.0, 2.0), ()), Answers((2.0, 2.0, 4.0), ("no answer",))
    case = Case("container", "io flood", quiet, during, {"cpu": 0.4, "writes": 1.01})
    assert case.slower == pytest.approx(2.0, rel=0.05)
    assert case.most == ("writes", 1.01)


def test_differences_below_what_a_clock_tells_are_none() -> None:
    quick = Case("container", "spin", Answers((0.05,), ()), Answers((0.2,), ()), {"cpu": 1.0})
    assert quick.slower == 1.0
    nothing = Case("container", "spin", Answers((1.0,), ()), Answers((), ("no answer",)), {"cpu": 1.0})
    assert nothing.slower == float("inf")


def test_what_was_counted_outside_is_what_counts() -> None:
    row = Row("vm", "cpu", "cores", 0.5, 1.0, 0.4, 0.51)
    assert row.error == pytest.approx(0.02)
    assert Row("vm", "pids", "processes", 100, None, 100, None).error == 0.0


def test_the_whole_plan_is_asked_for() -> None:
    words = options_of(SOLD)
    assert [word for word in words if word.startswith("--")] == [
        *("--memory", "--cpus", "--disk", "--iops", "--disk-bps", "--pids", "--bandwidth"),
    ]
