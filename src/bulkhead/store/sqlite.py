"""The state in one SQLite file: WAL, one connection per thread, one writer at a time.

synchronous=NORMAL: a crash of the daemon loses nothing; a power cut may lose the last transactions, never the
file's integrity, and the instances that they were about are gone with the power as well.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bulkhead.errors import HostError
from bulkhead.events import Event
from bulkhead.store.base import T, Transaction

APPLICATION_ID = 0x62756C6B
"""Marks the file as Bulkhead's ("bulk"), so that no other program's database is ever written to."""
SCHEMA_VERSION = 1
MAX_EVENTS = 100_000
TRIM_EVERY = 1_000
_PAGE = 500
_BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process (`doctor`, a second daemon by mistake) that writes."""
_CACHE_KIB = 1024
"""Page cache of a connection: a server's thread pool has dozens, and the whole state is a few hundred KiB."""
_AFTER_ALL = "\U0010ffff"

_SCHEMA = (
    "CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key))"
    " WITHOUT ROWID",
    "CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, value TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class SQLiteStore:
    """A Store in the file `path`, which is made (mode 600) when it is not there.

    Raises HostError where the file is not ours, is damaged or was written by a newer Bulkhead.
    """

    def __init__(self, path: Path, *, max_events: int = MAX_EVENTS) -> None:
        self._path = path
        self._max_events = max_events
        self._local = threading.local()
        self._connections: set[sqlite3.Connection] = set()
        self._guard = threading.RLock()
        # SQLite's own busy handler sleeps for milliseconds between its tries; threads of one daemon wait here.
        self._writing = threading.Lock()
        self._closed = False
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise HostError(f"cannot open the state in {path}: {error.strerror}") from error
        try:
            with self._words():
                self._prepare(self._connection())
        except BaseException:
            self.close()
            raise

    # --- the protocol

    @contextmanager
    def transaction(self) -> Iterator[_Records]:
        """See Store.transaction."""
        connection = self._connection()
        if connection.in_transaction:
            raise RuntimeError("a transaction is already open in this thread")
        with self._writing, self._words():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _Records(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def attempt(self, body: Callable[[Transaction], T]) -> T:
        """See Store.attempt. Writers wait for one another here: the first try is the last."""
        with self.transaction() as transaction:
            return body(transaction)

    @contextmanager
    def read(self, *, stale: bool = False) -> Iterator[_View]:  # noqa: ARG002 - nothing here is ever stale
        """See Store.read. Inside of this thread's own transaction it is a view of that."""
        connection = self._connection()
        with self._words():
            if connection.in_transaction:
                yield _View(connection)
                return
            connection.execute("BEGIN")
            try:
                yield _View(connection)
            finally:
                connection.execute("ROLLBACK")

    def append_event(self, event: Event) -> None:
        """See Store.append_event. Part of this thread's transaction where one is open."""
        connection = self._connection()
        if connection.in_transaction:
            self._append(connection, event)
            return
        with self._writing, self._words():
            self._append(connection, event)

    def events(self, *, since: float = 0.0, until: float | None = None, after: int = 0) -> Iterator[Event]:
        """See Store.events. Reads a page at a time, so that a long history takes no memory."""
        last = after
        end = until if until is not None else float("inf")
        while True:
            with self._words():
                page = (
                    self._connection()
                    .execute(
                        "SELECT id, value FROM event WHERE id > ? AND at >= ? AND at < ? ORDER BY id LIMIT ?",
                        (last, since, end, _PAGE),
                    )
                    .fetchall()
                )
            for number, value in page:
                last = number
                yield Event(**{**json.loads(value), "number": number})
            if len(page) < _PAGE:
                return

    def check(self) -> list[str]:
        """See Store.check."""
        with self._words():
            lines = [row[0] for row in self._connection().execute("PRAGMA quick_check(20)")]
        return [] if lines == ["ok"] else [f"{self._path}: {line}" for line in lines]

    def close(self) -> None:
        """See Store.close."""
        with self._guard:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    # --- inside

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection."""
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = self._local.slot = _Slot(self._connect(), self)
        return slot.connection

    def _connect(self) -> sqlite3.Connection:
        with self._guard:
            if self._closed:
                raise RuntimeError("the store is closed")
            # Another thread closes it (close, or the end of its own thread), so no check of the thread.
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._connections.add(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection

    def forget(self, connection: sqlite3.Connection) -> None:
        """Close the connection of a thread that has ended."""
        with self._guard:
            self._connections.discard(connection)
            connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check whose file this is, and make the tables in a new one."""
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if not empty and owner != APPLICATION_ID:
            raise HostError(f"{self._path} is a database of another program", hint="choose another state_dir")
        if version > SCHEMA_VERSION:
            raise HostError(
                f"{self._path} has schema {version}, this Bulkhead knows schemas up to {SCHEMA_VERSION}",
                hint="install the Bulkhead that wrote it, or a newer one",
            )
        connection.execute("PRAGMA journal_mode = WAL")
        if not empty:
            return
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have made the tables between the look above and the lock.
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")

    def _append(self, connection: sqlite3.Connection, event: Event) -> None:
        value = json.dumps(
            {field: getattr(event, field) for field in Event.__dataclass_fields__ if field != "number"},
            separators=(",", ":"),
        )
        cursor = connection.execute("INSERT INTO event (at, value) VALUES (?, ?)", (event.when, value))
        number = cursor.lastrowid or 0
        if number % min(TRIM_EVERY, self._max_events) == 0:
            connection.execute("DELETE FROM event WHERE id <= ?", (number - self._max_events,))

    @contextmanager
    def _words(self) -> Iterator[None]:
        """SQLite's errors as Bulkhead's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "free some space" if "full" in str(error) else ""
            raise HostError(f"the state in {self._path}: {error}", hint=hint) from error
        except sqlite3.DatabaseError as error:
            hint = "restore the file from a backup, or move it away to begin with an empty state"
            raise HostError(f"the state in {self._path} is damaged: {error}", hint=hint) from error


class _Slot:
    """Holds a thread's connection, and closes it when the thread's locals are dropped."""

    def __init__(self, connection: sqlite3.Connection, store: SQLiteStore) -> None:
        self.connection = connection
        self._store = store

    def __del__(self) -> None:
        self._store.forget(self.connection)


class _View:
    """A Reader: the statements are prepared once per connection by the sqlite3 module's cache."""

    __slots__ = ("_execute",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def get(self, kind: str, key: str) -> str | None:
        row = self._execute("SELECT value FROM record WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else str(row[0])

    def list(self, kind: str, prefix: str = "") -> list[tuple[str, str]]:
        return self._execute(
            "SELECT key, value FROM record WHERE kind = ? AND key >= ? AND key < ? ORDER BY key",
            (kind, prefix, prefix + _AFTER_ALL),
        ).fetchall()


class _Records(_View):
    """A Transaction."""

    __slots__ = ()

    def put(self, kind: str, key: str, value: str) -> None:
        self._execute(
            "INSERT INTO record (kind, key, value) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            (kind, key, value),
        )

    def insert(self, kind: str, key: str, value: str) -> bool:
        cursor = self._execute(
            "INSERT INTO record (kind, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (kind, key, value)
        )
        return cursor.rowcount == 1

    def delete(self, kind: str, key: str) -> bool:
        return self._execute("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key)).rowcount == 1
