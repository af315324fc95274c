"""What is kept, for how long, and how large it becomes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import pytest

from bulkhead.errors import HostError
from bulkhead.metering import query, schema
from bulkhead.metering.ledger import Ledger, Retention, Subject
from bulkhead.metering.meters import Counters, Usage
from bulkhead.metering.query import By, Row, Wanted
from tests.unit.metering.ledgers import RETENTION, at, keep, ledger, reading, run, subject

DAY = 86_400
BYTES_PER_ROW = 170
"""Of bins that are in use: 16 large numbers, in pages that are not full."""


def ask(book: Ledger, begin: str, end: str, *by: By, wanted: Wanted | None = None, now: str = "") -> list[Row]:
    """Rows of use between two times."""
    least = min((query.TIMES[each] for each in by if each in query.TIMES), default=DAY)
    span = query.span(at(begin) / 1000, at(end) / 1000, at(now or end) / 1000, book.retention, least=least)
    return query.rows(book, span, wanted or Wanted(), by)


def summed(rows: Collection[Row]) -> Usage:
    """All of it."""
    return sum((row.usage for row in rows), Usage())


def count(book: Ledger, table: str) -> int:
    """Rows of a table."""
    with book.read() as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_every_resolution_tells_the_same(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-29T22:10", "2026-11-30T01:20", step=60, cpu=10**12, sent=12345)
    sums = [summed(ask(book, "2026-11-29T22:00", "2026-11-30T02:00", by)) for by in ("instance", "hour", "minute")]
    assert sums[0] == sums[1] == sums[2]
    assert (sums[0].cpu, sums[0].sent, sums[0].uptime) == (10**12, 12345, 11_400_000)
    assert len(ask(book, "2026-11-29", "2026-12-01", "day")) == 2
    assert {row.begin % 3600 for row in ask(book, "2026-11-29T22:00", "2026-11-30T02:00", "hour")} == {0}


def test_sums_are_by_what_is_asked_for(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    run(book, subject(1), "2026-11-01", "2026-11-02", sent=1)
    run(book, subject(2, plan="large"), "2026-11-01", "2026-11-02", sent=10)
    run(book, subject(3, tenant="beta"), "2026-11-01", "2026-11-02", sent=100)

    def sent(*by: By, wanted: Wanted | None = None) -> dict[tuple[str, str, str], int]:
        found = ask(book, "2026-11-01", "2026-11-03", *by, wanted=wanted)
        return {(row.subject.name, row.subject.tenant, row.subject.plan): row.usage.sent for row in found}

    assert sent("tenant") == {("", "acme", ""): 11, ("", "beta", ""): 100}
    assert sent("plan") == {("", "", "small"): 101, ("", "", "large"): 10}
    assert sent("tenant", "plan", wanted=Wanted(tenant="acme")) == {("", "acme", "small"): 1, ("", "acme", "large"): 10}
    assert sent("instance", wanted=Wanted(instances=["web2"], tenant="acme")) == {("web2", "acme", "large"): 10}
    assert sent("instance", wanted=Wanted(instances=["beta@web3"])) == {("web3", "beta", "small"): 100}
    # Another tenant's is none that acme ever had, by name or by id.
    for stranger in ("web3", f"{3:032x}"):
        asked = Wanted(instances=["web2", stranger], tenant="acme")
        assert sent("instance", wanted=asked) == {("web2", "acme", "large"): 10}
        assert query.unknown(book, asked) == (stranger,)


def test_another_plan_is_another_subject_from_then_on(tmp_path: Path) -> None:
    book, small = ledger(tmp_path), subject()
    large = subject(plan="large")
    book.begin(small, reading(at("2026-11-01"), run="r"))
    book.record([(large, reading(at("2026-11-02"), run="r", counters=Counters(cpu=5)))])
    book.record([(large, reading(at("2026-11-03"), run="r", counters=Counters(cpu=7)))])
    found = {row.subject.plan: row.usage for row in ask(book, "2026-11-01", "2026-11-04", "instance")}
    assert (found["small"].cpu, found["large"].cpu) == (5, 2)
    assert found["small"].uptime == found["large"].uptime == DAY * 1000


def test_one_that_was_removed_is_not_begun_again_by_a_late_reading(tmp_path: Path) -> None:
    book, whose = ledger(tmp_path), subject()
    run(book, whose, "2026-11-01T00:00", "2026-11-01T01:00", cpu=100)
    book.end(whose.instance)
    book.end(whose.instance)
    before = summed(ask(book, "2026-11-01", "2026-11-02", "tenant"))
    late = reading(at("2026-11-01T01:00"), run="late", counters=Counters(cpu=100), existed=at("2026-10-01"))
    book.record([(whose, late)])
    assert summed(ask(book, "2026-10-01", "2026-11-02", "tenant")) == before
    assert book.known() == set()


def test_a_month_that_was_billed_gets_nothing_more(tmp_path: Path) -> None:
    book, whose = ledger(tmp_path), subject()
    with book.transaction() as connection:
        connection.execute("INSERT INTO closed VALUES ('acme', ?)", (at("2026-11-01") // 1000,))
    run(book, whose, "2026-10-31T23:00", "2026-11-01T01:00", step=7200, sent=100)
    run(book, subject(2), "2026-10-31T22:00", "2026-10-31T23:00", step=3600, sent=10)
    run(book, subject(3, tenant="beta"), "2026-10-31T22:00", "2026-10-31T23:00", step=3600, sent=1)
    assert summed(ask(book, "2026-10-01", "2026-11-01", "tenant", wanted=Wanted(tenant="acme"))) == Usage()
    assert summed(ask(book, "2026-11-01", "2026-11-02", "tenant", wanted=Wanted(tenant="acme"))).sent == 110
    assert summed(ask(book, "2026-10-01", "2026-11-01", "tenant")).sent == 1


def test_a_time_whose_short_bins_are_gone_is_widened() -> None:
    now = at("2026-11-30T12:00") / 1000
    exact = query.span(now - 7200, now - 60, now, RETENTION)
    assert (exact.length, exact.begin, exact.end) == (60, now - 7200, now - 60)
    old = query.span(now - 86_400 - 60, now - 86_400, now, RETENTION)
    assert (old.length, old.end - old.begin) == (3600, 3600)
    older = query.span(now - 86_400 * 30 - 60, now - 86_400 * 30, now, RETENTION)
    assert (older.length, older.end - older.begin) == (86_400, 86_400)
    month = query.span(at("2026-11-01") / 1000, now, now, RETENTION)
    assert (month.length, month.end) == (86_400, at("2026-12-01") / 1000)


def test_removed_instances_become_sums(tmp_path: Path) -> None:
    book = ledger(tmp_path, Retention(minutes=3600, hours=2 * DAY, days=62 * DAY, removed=3))
    for number in range(1, 9):
        run(
            book,
            subject(number, plan=("small", "large")[number % 2]),
            "2026-11-01T00:00",
            "2026-11-01T01:00",
            sent=number,
        )
        book.end(subject(number).instance)
    before = [summed(ask(book, "2026-11-01", "2026-11-02", by)) for by in ("tenant", "plan")]
    book.trim(at("2026-11-01T01:00") / 1000)
    assert [summed(ask(book, "2026-11-01", "2026-11-02", by)) for by in ("tenant", "plan")] == before
    assert count(book, "subject") == 3 + 2
    book.trim(at("2027-11-01T01:00") / 1000)
    assert (count(book, "subject"), count(book, "bin")) == (0, 0)


def test_a_year_of_a_thousand_instances_is_bounded(tmp_path: Path) -> None:
    """Read twice: the bins that are kept are all filled by then, as they are when it is read every minute."""
    book = ledger(tmp_path)
    instances, begin = [subject(number) for number in range(1000)], at("2026-01-01")
    for whose in instances:
        book.begin(whose, reading(begin, run="r"))
    for days in (364, 365):
        now, large = begin + days * DAY * 1000, days * 10**10
        counters = Counters(large * 8640, large, large, large, large, large // 10**4, large // 10**4)
        found = [(each, reading(now, run="r", counters=counters, memory=1 << 29, disk=1 << 30)) for each in instances]
        book.record(found)
        book.trim(now / 1000)
    rows = 180 + 1 + 336 + 1 + 365 + 1
    assert 1000 * (180 + 336 + 365) <= count(book, "bin") <= 1000 * rows
    with book.read() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "usage.db").stat().st_size <= 1000 * rows * BYTES_PER_ROW
    used = summed(ask(book, "2026-01-01", "2027-01-01", "tenant"))
    assert used.uptime == 1000 * 365 * DAY * 1000
    assert used.cpu == 1000 * 365 * 10**10 * 8640


def test_a_crash_keeps_all_or_nothing_of_a_reading(tmp_path: Path) -> None:
    """Killed while it writes, again and again: how far it was counted and what was counted always agree."""
    program = (
        "import sys, itertools; from pathlib import Path; from bulkhead.metering.meters import Counters\n"
        "from tests.unit.metering.ledgers import *\n"
        "book = ledger(Path(sys.argv[1])); before = book.position(subject().instance)\n"
        "first = before.counters.cpu if before else 0\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count(first + 1):\n"
        "    book.record([(subject(), reading(at('2026-11-01') + n * 1000, counters=Counters(cpu=n)))])\n"
    )
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
        process.communicate()
    book = ledger(tmp_path)
    position = book.position(subject().instance)
    assert position
    assert position.counters.cpu
    for by in ("day", "hour"):
        assert summed(ask(book, "2026-11-01", "2026-12-01", by)).cpu == position.counters.cpu  # type: ignore[arg-type]


def test_other_files_are_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "usage.db").write_bytes(b"not a database, but a file of somebody's" * 100)
    with pytest.raises(HostError, match="damaged"):
        ledger(tmp_path)
    (tmp_path / "usage.db").unlink()
    with sqlite3.connect(tmp_path / "usage.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(HostError, match="not a ledger"):
        ledger(tmp_path)


def test_the_file_is_for_root_alone(tmp_path: Path) -> None:
    ledger(tmp_path).close()
    assert (tmp_path / "usage.db").stat().st_mode & 0o777 == 0o600
    assert schema.LENGTHS == (60, 3600, 86_400)


def test_volumes_are_told_by_their_own_name_and_stay_apart_when_they_are_sums(tmp_path: Path) -> None:
    book = ledger(tmp_path, Retention(minutes=3600, hours=2 * DAY, days=62 * DAY, removed=0))
    run(book, subject(1, plan=""), "2026-11-01T00:00", "2026-11-01T01:00", sent=1)
    again = [Subject(letter * 32, "web1", "acme", "", "volume") for letter in "ab"]
    for whose, begin in zip(again, ("2026-11-01T00:00", "2026-11-01T02:00"), strict=True):
        keep(book, whose, begin, begin.replace(":00", ":30"), sold=1 << 30, used=1 << 29)

    def told(reference: str) -> list[tuple[str, str]]:
        found = ask(book, "2026-11-01", "2026-11-02", "instance", wanted=Wanted([reference], tenant="acme"))
        return sorted((row.subject.instance[:1], row.subject.kind) for row in found)

    assert told("volume:web1") == [("a", "volume"), ("b", "volume")], "one made anew is another"
    assert told("web1") == [("0", "instance")]
    before = summed(ask(book, "2026-11-01", "2026-11-02", "tenant"))
    assert (before.volume_sold, before.volume_used) == (3600 << 20, 1800 << 20)
    book.end(subject(1).instance)
    book.trim(at("2026-11-01T04:00") / 1000)
    (row,) = ask(book, "2026-11-01", "2026-11-02", "instance")
    assert (row.usage, row.subject) == (before, Subject("", "", "acme", "", ""))
    late = reading(at("2026-11-01T05:00"), run="", kind="volume", existed=at("2026-11-01T00:00"))
    book.record([(again[0], late)])


def test_a_file_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    """What was in it is what comes out of it, and a crash in the middle leaves the old one."""
    path = tmp_path / "usage.db"
    book = ledger(tmp_path)
    run(book, subject(), "2026-11-01T00:00", "2026-11-01T01:00", sent=7)
    before = summed(ask(book, "2026-11-01", "2026-11-02", "tenant"))
    book.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE subject DROP COLUMN kind")
        for name in ("volume_sold", "volume_used", "snapshot_sold", "uncounted"):
            connection.execute(f"ALTER TABLE bin DROP COLUMN {name}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    book = ledger(tmp_path)
    keep(book, Subject("a" * 32, "data", "acme", "", "volume"), "2026-11-01", "2026-11-02", sold=1 << 20, used=None)
    after = summed(ask(book, "2026-11-01", "2026-11-02", "tenant"))
    assert (after.sent, after.volume_sold) == (before.sent, DAY << 10)
    book.close()
    assert {row.subject.kind for row in ask(ledger(tmp_path), "2026-11-01", "2026-11-02", "instance")} == {
        "instance",
        "volume",
    }
