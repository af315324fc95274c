"""Sizes: plans by peaks and a margin, what is wanted in each hour, how much of it the hour tells."""

from __future__ import annotations

import numpy as np
import pytest

from bulkhead.advise import sizing
from bulkhead.advise.prices import Prices
from bulkhead.model import Isolation
from tests.unit.advise.estates import GIB, estate, load, server

PRICES = Prices().changed([("margin", 0.25, "test")])


def week(value: float = 1.0) -> np.ndarray:
    return np.full(168, value)


def test_time_is_folded_by_how_long_was_measured() -> None:
    for hours, name, count in ((336, "hour of the week", 168), (72, "hour of the day", 24), (24, "all time", 1)):
        folded = sizing.slots(estate([server("a")], [load("w", "a", [1.0] * hours)]))
        assert (folded.name, folded.count) == (name, count)
        assert int(folded.of.max()) < count
    # 5 January 2026 is a Monday: the first slot of the week.
    assert sizing.slots(estate([server("a")], [load("w", "a", [1.0] * 336)])).of[0] == 0


def test_what_is_wanted_is_the_most_of_each_hour_with_the_margin() -> None:
    cpu = np.tile(week(), 2)
    cpu[10], cpu[168 + 10], cpu[20] = 3.0, 5.0, 4.0
    whole = estate([server("a")], [load("w", "a", cpu)])
    sized = sizing.size(whole.loads[0], server("a").capacity, 2.0, sizing.slots(whole), PRICES)
    assert sized.wants[0, 10] == pytest.approx(6.25) and sized.wants[0, 20] == pytest.approx(5.0)
    assert sized.wants[0, 11] == pytest.approx(1.25)
    assert set(sized.wants[1]) == {5 * GIB}
    # 6.25 GHz of 2 GHz cores in quarters; 5 GiB; 25 GiB.
    assert (sized.plan.cpus, sized.plan.memory, sized.plan.disk) == (3.25, 5 * GIB, 25 * GIB)
    assert sized.peak == 5.0


def test_nothing_is_wanted_beyond_the_server_that_it_ran_on() -> None:
    whole = estate([server("a")], [load("w", "a", [15.9] * 24, memory=31)])
    sized = sizing.size(whole.loads[0], server("a").capacity, 2.0, sizing.slots(whole), PRICES)
    assert sized.wants[0, 0] == 16.0 and sized.wants[1, 0] == 32 * GIB


def test_what_must_not_wait_keeps_its_peak() -> None:
    cpu = np.tile(week(), 2)
    cpu[10] = 4.0
    whole = estate([server("a")], [load("w", "a", cpu, latency="low")])
    sized = sizing.size(whole.loads[0], None, 2.0, sizing.slots(whole), PRICES)
    assert set(sized.wants[0]) == {5.0}


def test_seasonality_is_what_the_hour_tells() -> None:
    hours = np.arange(336)
    daily = 2 + np.sin(hours / 24 * 2 * np.pi)
    noise = np.random.default_rng(1).normal(2, 0.5, 336).clip(0)
    whole = estate([server("a")], [load("w", "a", daily), load("v", "a", noise), load("u", "a", [1.0] * 336)])
    folded = sizing.slots(whole)
    told = [sizing.size(each, None, 2.0, folded, PRICES).seasonal for each in whole.loads]
    assert told[0] > 0.99 and told[1] < 0.7 and told[2] == 0.0


def test_a_machine_takes_memory_and_cpu_of_its_own() -> None:
    whole = estate([server("a")], [load("w", "a", [1.0] * 24)])
    sized = sizing.size(whole.loads[0], None, 2.0, sizing.slots(whole), PRICES)
    machine = sizing.with_wall(sized, Isolation.VM, PRICES)
    assert machine[1, 0] - sized.wants[1, 0] == 80 << 20 and machine[0, 0] > sized.wants[0, 0]
    assert (sizing.with_wall(sized, Isolation.CONTAINER, PRICES) == sized.wants).all()
