"""From counters to use: every reading adds what is new, whatever order they come in and whatever the clocks do."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.metering.meters import (
    METERS,
    Added,
    Counters,
    Position,
    Reading,
    Sold,
    Step,
    Usage,
    advance,
    split,
    start,
)

GIB = 1 << 20
"""KiB."""
SOLD = Sold(memory=1 << 30, disk=2 << 30, cpu=2_000_000)
HOUR = 3_600_000
EPOCH = 1_780_000_000_000


def reading(at: int, **changes: object) -> Reading:
    """Of a run at `at` ms after a host's boot, that is `at` ms after EPOCH."""
    usual: dict[str, object] = {"boot": "one", "at": at, "wall": EPOCH + at, "sold": SOLD, "run": "1.1"}
    return Reading(**{**usual, **changes})  # type: ignore[arg-type]


def total(*steps: Step) -> Usage:
    """All that steps have added."""
    return sum((each.usage for _, added in steps for each in added), Usage())


def test_a_life_adds_up() -> None:
    begun = start(None, reading(0, counters=Counters(cpu=500, sent=7), existed=EPOCH))
    first = advance(begun[0], reading(HOUR, counters=Counters(cpu=2500, sent=10, reads=3), memory=1 << 29))
    last = advance(first[0], reading(3 * HOUR, ended=2 * HOUR, counters=Counters(cpu=4500, sent=11, reads=4)))
    used = total(begun, first, last)
    assert used.uptime == 2 * HOUR
    assert (used.cpu, used.sent, used.reads) == (4000, 4, 4)
    assert used.memory_sold == GIB * 2 * 3600
    assert used.memory_used == GIB // 2 * 2 * 3600
    assert used.disk_sold == 2 * GIB * 3 * 3600, "the disk is there after the end as well"
    assert used.cpu_sold == 2_000_000 * 2 * 3600
    assert last[0].run == ""


def test_what_ended_is_not_added_again() -> None:
    begun, _ = start(None, reading(0))
    over, _ = advance(begun, reading(100, ended=90, counters=Counters(cpu=9)))
    for late in (reading(80, counters=Counters(cpu=8)), reading(200, counters=Counters(cpu=9)), reading(300, ended=90)):
        assert total(advance(over, replace(late, disk=0))).cpu == 0
        assert total(advance(over, late)).uptime == 0


def test_one_that_was_overtaken_adds_nothing_twice() -> None:
    begun, _ = start(None, reading(0))
    now, _ = advance(begun, reading(1000, counters=Counters(cpu=100, sent=5)))
    after, added = advance(now, reading(900, counters=Counters(cpu=90, sent=6)))
    assert total((after, added)) == Usage(sent=1)
    assert after == replace(now, counters=Counters(cpu=100, sent=6))


def test_a_disk_reading_of_one_that_was_starting_closes_no_run() -> None:
    begun, _ = start(None, reading(10))
    after, _ = advance(begun, reading(20, run=""))
    assert total(advance(after, reading(30, counters=Counters(cpu=5)))).cpu == 5


def test_a_run_that_was_never_begun_is_counted_since_it_began() -> None:
    used = total(advance(None, reading(5000, began=2000, counters=Counters(cpu=7), memory=1 << 30, existed=EPOCH)))
    assert (used.uptime, used.cpu) == (3000, 7)
    assert used.memory_used == GIB * 3
    assert used.disk_sold == 2 * GIB * 5


def test_a_new_run_begins_at_nothing() -> None:
    begun, _ = start(None, reading(0))
    now, _ = advance(begun, reading(1000, counters=Counters(cpu=100)))
    again = start(now, reading(2000, run="2.2"))
    used = total(advance(again[0], reading(3000, run="2.2", counters=Counters(cpu=60))))
    assert (used.cpu, used.uptime) == (60, 1000)
    # Without its begin having been written down, too.
    used = total(advance(now, reading(3000, run="2.2", began=2500, counters=Counters(cpu=60))))
    assert (used.cpu, used.uptime) == (60, 500)


def test_after_a_reboot_the_wall_clock_tells_of_the_disk() -> None:
    begun, _ = start(None, reading(0))
    now, _ = advance(begun, reading(HOUR, counters=Counters(cpu=100)))
    booted = Reading(boot="two", at=50, wall=EPOCH + 3 * HOUR, sold=SOLD, run="1.1", ended=0, counters=Counters())
    after, added = advance(now, booted)
    used = total((after, added))
    assert used.disk_sold == 2 * GIB * 2 * 3600
    assert used.cpu == 0
    # Where its supervisor has written down that it ended before: until then.
    ended = 50 - (2 * HOUR - 600)
    assert total(advance(now, replace(booted, ended=ended, counters=Counters(cpu=150)))).uptime == 600
    assert total(advance(now, replace(booted, ended=ended, counters=Counters(cpu=150)))).cpu == 50


@pytest.mark.parametrize("step", [-HOUR, HOUR, 40 * 24 * HOUR])
def test_a_stepped_wall_clock_changes_no_sum(step: int) -> None:
    begun, _ = start(None, reading(0))
    now, _ = advance(begun, reading(60_000, counters=Counters(cpu=100)))
    later = reading(120_000, counters=Counters(cpu=300))
    after, added = advance(now, replace(later, wall=later.wall + step))
    assert total((after, added)) == total(advance(now, later))
    assert {each.end for each in added} == {later.wall + step}
    assert total(advance(after, reading(180_000, counters=Counters(cpu=300)))).uptime == 60_000


def test_a_plan_counts_until_it_is_changed() -> None:
    begun, _ = start(None, reading(0))
    changed = advance(begun, reading(1000, sold=Sold(memory=4 << 30, disk=2 << 30)))
    assert total(changed).memory_sold == GIB
    assert total(advance(changed[0], reading(2000, sold=Sold()))).memory_sold == 4 * GIB


@settings(deadline=None)
@given(
    begin=st.integers(0, 10**7),
    length=st.integers(0, 10**6),
    amounts=st.tuples(*(st.integers(0, 2**60) for _ in METERS)),
    size=st.sampled_from([1000, 60_000, 3_600_000]),
)
def test_bins_hold_exactly_what_was_added(begin: int, length: int, amounts: tuple[int, ...], size: int) -> None:
    added = Added(begin, begin + length, Usage(*amounts))
    bins = list(split(added, size))
    assert sum((Usage(*amounts) for _, amounts in bins), Usage()) == added.usage
    assert all(at % size == 0 for at, _ in bins)
    assert len({at for at, _ in bins}) == len(bins)


COUNTER_NAMES = [each.name for each in fields(Counters)]


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["look", "stale", "stop", "start", "dead"])), max_size=60)
)
def test_whatever_happens_the_sum_is_what_was_counted(acts: list[tuple[int, str]]) -> None:
    """A kernel's counters beside ours, through starts, ends, readings that come late, and daemons that are dead."""
    at, run, counted, ended = 0, 0, 0, 0
    position: Position | None = None
    used = Usage()
    stale: Reading | None = None

    def take(step: Step) -> None:
        nonlocal position, used
        position = step[0]
        used += total(step)

    up = 0
    for more, act in acts:
        at += 1 + more
        if run:
            counted += more
            up += 1 + more
        now = reading(at, run=str(run) if run else "", counters=Counters(cpu=counted) if run else Counters())
        if act == "start" and not run:
            run, counted = at, 0
            take(start(position, reading(at, run=str(run))))
        elif act == "stop" and run:
            take(advance(position, replace(now, ended=at)))
            ended, run, counted = ended + counted, 0, 0
        elif act == "look":
            take(advance(position, now))
            stale = now
        elif act == "stale" and stale:
            take(advance(position, stale))
        elif act == "dead":
            stale = now
    if run:
        take(advance(position, reading(at, run=str(run), counters=Counters(cpu=counted))))
    assert used.cpu == ended + counted
    assert used.uptime == up
