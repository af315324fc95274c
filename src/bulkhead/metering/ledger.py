"""Where use is kept: bins of a minute, an hour and a day, in an SQLite file of its own.

Each reading is one transaction: what it adds goes into the three bins that it falls into, and how far the counters
have been counted is written down with it. So a crash at any moment loses nothing and doubles nothing.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import quote

from bulkhead.errors import HostError
from bulkhead.metering import schema
from bulkhead.metering.meters import (
    METERS,
    Added,
    Counters,
    Kind,
    Position,
    Reading,
    Sold,
    Step,
    advance,
    split,
    start,
)

COUNTERS = tuple(each.name for each in fields(Counters))
_PAGES = 10_000
"""That are given back to the file system at a time, where nothing is in them any more: 40 MB."""
_POSITION = ("boot", "at", "wall", "run", "over", *COUNTERS, "memory", "disk", "sold_memory", "sold_disk", "sold_cpu")
_ADD = ", ".join(f"{name} = {name} + excluded.{name}" for name in METERS)
_UPSERT = (
    f"INSERT INTO bin (length, start, subject, {', '.join(METERS)}) VALUES (?, ?, ?{', ?' * len(METERS)})"  # noqa: S608
    f" ON CONFLICT DO UPDATE SET {_ADD}"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose use it is."""

    instance: str
    """Its id, of a volume or a snapshot theirs; "" in sums of what has been removed long ago."""
    name: str
    tenant: str
    plan: str
    """The plan's name; "" where it was given inline, and of what has none."""
    kind: Kind = "instance"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long bins are kept, in seconds, and how many removed instances are kept apart."""

    minutes: int
    hours: int
    days: int
    removed: int

    @property
    def kept(self) -> dict[int, int]:
        """By the length of a bin in seconds."""
        return {schema.MINUTE: self.minutes, schema.HOUR: self.hours, schema.DAY: self.days}


class Ledger:
    """The file. Safe to use from any thread."""

    def __init__(self, path: Path, retention: Retention) -> None:
        self._path = path
        self.retention = retention
        self._lock = threading.RLock()
        with self._words():
            self._connection = schema.open_file(path)

    def close(self) -> None:
        """Let go of the file; idempotent."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Change the file, all or nothing. `durable`: it is on the disk on return, also after a power cut."""
        with self._lock, self._words():
            connection = self._connection
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if durable:
                    connection.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A quick look."""
        with self._lock, self._words():
            yield self._connection

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A long look, at the file as it is at one moment; others may write meanwhile."""
        with self._words(), closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")
            yield connection

    # --- writing

    def begin(self, subject: Subject, reading: Reading) -> None:
        """A run begins, with counters that have nothing to do with it yet."""
        self._record([(subject, reading)], start)

    def record(self, readings: Iterable[tuple[Subject, Reading]], *, durable: bool = False) -> None:
        """Add what readings tell, as one transaction."""
        self._record(readings, advance, durable=durable)

    def _record(
        self,
        readings: Iterable[tuple[Subject, Reading]],
        step: Callable[[Position | None, Reading], Step],
        *,
        durable: bool = False,
    ) -> None:
        with self.transaction(durable=durable) as connection:
            for subject, reading in readings:
                before, whose = _position(connection, subject.instance)
                if before is None and _is_gone(connection, subject.instance):
                    continue  # removed since it was read
                after, added = step(before, reading)
                # What has been used until now is of the plan that it was used with.
                number = _subject(connection, subject)
                self._add(connection, whose or number, added, _closed(connection, subject.tenant))
                if after != before or whose != number:
                    _keep(connection, subject.instance, number, after)

    def end(self, instance: str) -> None:
        """An instance has been removed: nothing more will come. Idempotent."""
        with self.transaction() as connection:
            connection.execute("UPDATE subject SET gone = ? WHERE instance = ? AND gone = 0", (_now(), instance))
            connection.execute("DELETE FROM position WHERE instance = ?", (instance,))

    def known(self) -> set[str]:
        """Ids of the instances that it expects more of."""
        with self.read() as connection:
            return {row[0] for row in connection.execute("SELECT instance FROM position")}

    def position(self, instance: str) -> Position | None:
        """Up to where an instance has been counted."""
        with self.read() as connection:
            return _position(connection, instance)[0]

    def trim(self, now: float | None = None) -> None:
        """Drop bins that are kept no longer, and put removed instances that are too many into sums."""
        now = time.time() if now is None else now
        with self.transaction() as connection:
            subjects = connection.execute("SELECT id FROM subject").fetchall()
            for length, kept in self.retention.kept.items():
                connection.executemany(
                    "DELETE FROM bin WHERE subject = ? AND length = ? AND start < ?",
                    [(subject, length, int(now - kept) - length) for (subject,) in subjects],
                )
            schema.merge_removed(connection, self.retention.removed, METERS)
            connection.execute("DELETE FROM subject WHERE gone AND NOT EXISTS (SELECT 1 FROM bin WHERE subject = id)")
        with self.read() as connection:
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()

    # --- inside

    def _add(self, connection: sqlite3.Connection, subject: int, added: Sequence[Added], closed: int) -> None:
        """Put use into its bins. What would fall into a time that has been billed falls into the time after it.

        Short bins that would be dropped at once are not made; in those of days nothing is missing.
        """
        rows = []
        for each in added:
            moved = replace(each, begin=max(each.begin, closed * 1000), end=max(each.end, closed * 1000))
            for length, kept in self.retention.kept.items():
                since = 0 if length == schema.DAY else moved.end - kept * 1000
                bins = split(moved, length * 1000, since=since)
                rows += [(length, at // 1000, subject, *amounts) for at, amounts in bins]
        connection.executemany(_UPSERT, rows)

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "free some space" if "full" in str(error) else ""
            raise HostError(f"the usage in {self._path}: {error}", hint=hint) from error
        except sqlite3.DatabaseError as error:
            hint = "restore the file from a backup, or move it away to begin without past usage"
            raise HostError(f"the usage in {self._path} is damaged: {error}", hint=hint) from error


def _now() -> int:
    return int(time.time())


def _is_gone(connection: sqlite3.Connection, instance: str) -> bool:
    found = connection.execute("SELECT 1 FROM subject WHERE instance = ? AND gone LIMIT 1", (instance,))
    return found.fetchone() is not None


def _position(connection: sqlite3.Connection, instance: str) -> tuple[Position | None, int]:
    row = connection.execute(
        f"SELECT subject, {', '.join(_POSITION)} FROM position WHERE instance = ?",  # noqa: S608
        (instance,),
    ).fetchone()
    if row is None:
        return None, 0
    found = dict(zip(_POSITION, row[1:], strict=True))
    sold = Sold(found.pop("sold_memory"), found.pop("sold_disk"), found.pop("sold_cpu"))
    counters = Counters(**{name: found.pop(name) for name in COUNTERS})
    return Position(sold=sold, counters=counters, **found), row[0]


def _keep(connection: sqlite3.Connection, instance: str, subject: int, after: Position) -> None:
    values = [getattr(after, name) for name in ("boot", "at", "wall", "run", "over")]
    values += [getattr(after.counters, name) for name in COUNTERS]
    values += [after.memory, after.disk, after.sold.memory, after.sold.disk, after.sold.cpu]
    marks = ", ?" * len(values)
    connection.execute(
        f"INSERT OR REPLACE INTO position (instance, subject, {', '.join(_POSITION)}) VALUES (?, ?{marks})",  # noqa: S608
        (instance, subject, *values),
    )


def _subject(connection: sqlite3.Connection, subject: Subject) -> int:
    key = (subject.instance, subject.tenant, subject.plan)
    row = connection.execute(
        "SELECT id, name FROM subject WHERE instance = ? AND tenant = ? AND plan = ?", key
    ).fetchone()
    if row and row[1] == subject.name:
        return int(row[0])
    row = connection.execute(
        "INSERT INTO subject (instance, tenant, plan, name, kind) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (instance, tenant, plan) DO UPDATE SET name = excluded.name RETURNING id",
        (*key, subject.name, subject.kind),
    ).fetchone()
    return int(row[0])


def _closed(connection: sqlite3.Connection, tenant: str) -> int:
    """Until when (s since the epoch) a tenant's use has been billed."""
    row = connection.execute("SELECT until FROM closed WHERE tenant = ?", (tenant,)).fetchone()
    return int(row[0]) if row else 0
