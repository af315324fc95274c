"""A ledger to try things on, with a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bulkhead.metering.ledger import Ledger, Retention, Subject
from bulkhead.metering.meters import Counters, Reading, Sold

RETENTION = Retention(minutes=3 * 3600, hours=14 * 86400, days=400 * 86400, removed=100)
SOLD = Sold(memory=1 << 30, disk=2 << 30, cpu=2_000_000)


def ledger(path: Path, retention: Retention = RETENTION) -> Ledger:
    """A new one, or that which is there."""
    return Ledger(path / "usage.db", retention)


def subject(number: int = 1, *, tenant: str = "acme", plan: str = "small") -> Subject:
    """An instance."""
    return Subject(instance=f"{number:032x}", name=f"web{number}", tenant=tenant, plan=plan)


def keep(book: Ledger, whose: Subject, begin: str, end: str, *, sold: int, used: int | None, step: int = 3600) -> None:
    """Of a volume or a snapshot: made at `begin`, read every `step` seconds, removed at `end`. Bytes."""
    first, last = at(begin), at(end)
    for now in (*range(first + step * 1000, last, step * 1000), last):
        changes = {"kind": whose.kind, "sold": Sold(disk=sold), "disk": used, "existed": first}
        book.record([(whose, reading(now, run="", **changes))])
    book.end(whose.instance)


def at(text: str) -> int:
    """Milliseconds since the epoch of "2026-11-01T12:00"."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def reading(wall: int, *, run: str = "1.1", **changes: object) -> Reading:
    """Of a run, on a host that was booted at the epoch."""
    usual: dict[str, object] = {"boot": "one", "at": wall, "wall": wall, "sold": SOLD, "run": run, "existed": wall}
    return Reading(**{**usual, **changes})  # type: ignore[arg-type]


def run(book: Ledger, whose: Subject, begin: str, end: str, *, step: int = 3600, **counters: int) -> None:
    """One that runs from `begin` to `end`, read every `step` seconds, its counters rising evenly to those given."""
    first, last = at(begin), at(end)
    book.begin(whose, reading(first, run=f"{first}", counters=Counters()))
    for now in (*range(first + step * 1000, last, step * 1000), last):
        found = Counters(**{name: value * (now - first) // (last - first) for name, value in counters.items()})
        ended = now if now == last else None
        book.record([(whose, reading(now, run=f"{first}", counters=found, memory=1 << 29, disk=1 << 20, ended=ended))])
