"""Days that are held out: learned without them, judged by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bulkhead.advise import report
from bulkhead.advise.advising import Effort, advise
from bulkhead.advise.arranging import Wish
from bulkhead.advise.estate import Estate
from bulkhead.advise.holding import Held, held_out, part
from bulkhead.advise.prices import Prices
from bulkhead.model import Isolation
from tests.unit.advise.estates import estate, load, server

PRICES = Prices().changed([("margin", 0.2, "test")])


def weeks(hours: int, *, last: float = 2.0) -> Estate:
    """Two workloads that use 2 GHz of 16 each, but the first one `last` in the last hour."""
    loads = [load(name, name, [2.0] * (hours - 1) + [value]) for name, value in (("a", last), ("b", 2.0))]
    return estate([server("a"), server("b")], loads)


def held(whole: Estate) -> Held | None:
    levels = {load.name: Isolation.CONTAINER for load in whole.loads}
    return held_out(whole, levels, PRICES, Wish(), seconds=1.0, seed=0)


def test_a_part_is_the_estate_as_if_only_that_had_been_measured() -> None:
    whole = weeks(72, last=8.0)
    one = part(whole, 48, 72)
    assert (one.start, one.steps) == (whole.start + 48 * 3600, 24)
    assert one.loads[0].use.shape == (4, 24) and one.loads[0].cpu_mean == pytest.approx(2.25)


@pytest.mark.parametrize(("hours", "days"), [(71, None), (72, 1.0), (503, 1.0), (504, 7.0)])
def test_what_is_held_out_is_the_last_week_or_day(hours: int, days: float | None) -> None:
    found = held(weeks(hours))
    assert (found.checked_days if found else None) == days
    if found:
        assert found.learned_days + found.checked_days == pytest.approx(hours / 24)
        assert (found.servers, found.short, found.worst) == (1, 0.0, "")


def test_of_peaks_alone_nothing_is_held_out() -> None:
    assert held(replace(part(weeks(72), 0, 1), step=0.0)) is None


def test_who_wants_more_than_was_learned_is_short_in_the_report() -> None:
    # 4 GHz in the last hour: its plan, by 2 GHz and a margin, is less, and that counts, whatever the host has.
    found = held(weeks(72, last=4.0))
    assert found is not None
    assert (found.short, found.worst, found.worst_short) == (pytest.approx(1 / 24), "a", pytest.approx(1 / 24))
    advice = advise(weeks(72, last=4.0), PRICES, effort=Effort(1.0))
    # Who has seen that hour has planned for it.
    assert advice.played.short == 0.0 and advice.held_out is not None and advice.held_out.short > 0
    told = report.document(advice)
    assert told["held_out"]["worst"] == "a"
    for page in (report.html(advice), report.markdown(advice), "\n".join(report.lines(advice))):
        assert "4.167" in page


def test_what_does_not_fit_without_these_days_is_told_of_as_nothing() -> None:
    whole = weeks(72)
    wide = replace(
        whole.loads[0], use=np.concatenate([whole.loads[0].use[:, :48] * 100, whole.loads[0].use[:, 48:]], 1)
    )
    levels = {load.name: Isolation.CONTAINER for load in whole.loads}
    crowded = replace(whole, loads=(replace(wide, server=""), whole.loads[1]))
    assert held_out(crowded, levels, PRICES, Wish(), seconds=1.0, seed=0) is None
