"""What has been used, by the ledger: from when to when, by whom, summed by what."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bulkhead.metering import schema
from bulkhead.metering.ledger import Ledger, Retention, Subject
from bulkhead.metering.meters import METERS, Usage
from bulkhead.tenancy import names

By = Literal["instance", "tenant", "plan", "day", "hour", "minute"]
TIMES = {"day": schema.DAY, "hour": schema.HOUR, "minute": schema.MINUTE}
VOLUME = "volume:"
"""Before the name of one, which may be an instance's as well."""
LEAST_ID = 4
"""Digits of an id that are enough to mean it."""
_SUMS = ", ".join(f"sum({name})" for name in METERS)


@dataclass(frozen=True, slots=True)
class Span:
    """From `begin` until `end` (s since the epoch), in bins of `length` seconds."""

    begin: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class Row:
    """Use of one subject, or of several: what they differ in is "" then."""

    begin: int
    end: int
    subject: Subject
    usage: Usage


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose use. None: everybody's."""

    instances: Collection[str] | None = None
    """Names, ids or beginnings of ids, also of instances that have been removed; TENANT@NAME where no tenant is set.
    Volumes are volume:NAME, snapshots INSTANCE/NAME."""
    tenant: str | None = None
    plan: str | None = None


def span(begin: float, end: float, now: float, retention: Retention, *, least: int = schema.MINUTE) -> Span:
    """The time that bins cover, at least from `begin` to `end`: in the longest bins that fit it exactly.

    Where the shorter bins that it would take are kept no longer, it is widened to whole bins of those that are.
    """
    kept = retention.kept
    length = schema.DAY
    for length in (schema.DAY, schema.HOUR, schema.MINUTE):
        shorter = {schema.DAY: schema.HOUR, schema.HOUR: schema.MINUTE}.get(length)
        fits = begin % length == 0 and (end % length == 0 or end >= now) and length <= least
        if fits or shorter is None or begin < now - kept[shorter]:
            break
    first, last = int(begin) // length * length, -(-int(end) // length) * length
    return Span(first, max(last, first + length), length)


def rows(ledger: Ledger, span: Span, wanted: Wanted, by: Collection[By]) -> list[Row]:
    """Use in a span, a row for each combination of what it is told by. None of instances that are not known."""
    times = {TIMES[each] for each in by if each in TIMES}
    length = max(*times, span.length) if times else span.end - span.begin
    with ledger.reader() as connection:
        subjects = _subjects(connection, wanted)
        found: dict[tuple[int, Subject], Usage] = {}
        for number, start, usage in _sums(connection, span, list(subjects), each=bool(times)):
            begin = start // length * length if times else span.begin
            key = (begin, _told(subjects[number], by))
            found[key] = found.get(key, Usage()) + usage
    result = [Row(begin, begin + length, subject, usage) for (begin, subject), usage in found.items()]
    return sorted(result, key=lambda row: (row.begin, row.subject.tenant, row.subject.name, row.subject.plan))


def unknown(ledger: Ledger, wanted: Wanted) -> tuple[str, ...]:
    """Which of the instances that are asked for the ledger has never heard of."""
    with ledger.reader() as connection:
        there = _candidates(connection, wanted).values()
    return tuple(
        each for each in wanted.instances or () if not any(_is_meant(one, each, wanted.tenant) for one in there)
    )


def _told(subject: Subject, by: Collection[By]) -> Subject:
    if "instance" in by:
        return subject
    return Subject("", "", subject.tenant if "tenant" in by else "", subject.plan if "plan" in by else "", "")


def _candidates(connection: sqlite3.Connection, wanted: Wanted) -> dict[int, Subject]:
    """By tenant and plan alone."""
    query, values = "SELECT id, instance, name, tenant, plan, kind FROM subject WHERE 1", list[str]()
    for column, value in (("tenant", wanted.tenant), ("plan", wanted.plan)):
        if value is not None:
            query += f" AND {column} = ?"
            values.append(value)
    return {row[0]: Subject(*row[1:]) for row in connection.execute(query, values)}


def _subjects(connection: sqlite3.Connection, wanted: Wanted) -> dict[int, Subject]:
    found, asked = _candidates(connection, wanted), wanted.instances
    if asked is None:
        return found
    return {number: each for number, each in found.items() if any(_is_meant(each, one, wanted.tenant) for one in asked)}


def _is_meant(subject: Subject, reference: str, tenant: str | None) -> bool:
    if not subject.instance:
        return False
    volume, plain = subject.kind == "volume", reference.removeprefix(VOLUME)
    whose, name = (tenant, plain) if tenant is not None else names.split(plain)
    if (subject.tenant, subject.name) == (whose, name) and volume == (plain != reference):
        return True
    return len(reference) >= LEAST_ID and subject.instance.startswith(reference)


def _sums(
    connection: sqlite3.Connection, span: Span, subjects: Sequence[int], *, each: bool
) -> Iterator[tuple[int, int, Usage]]:
    """Use by subject, with `each` in each bin. Sums of one subject fit SQLite's numbers; those of all may not."""
    group = " GROUP BY start" if each else ""
    start = "start" if each else "min(start)"
    query = f"SELECT {start}, {_SUMS} FROM bin WHERE subject = ? AND length = ? AND start >= ? AND start < ?{group}"  # noqa: S608
    for subject in subjects:
        for first, *amounts in connection.execute(query, (subject, span.length, span.begin, span.end)):
            if first is not None:
                yield subject, first, Usage(*amounts)
