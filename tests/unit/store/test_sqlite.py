"""The SQLite store beyond the contract (tests/contract/stores): files that it cannot use, threads, numbers."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.errors import HostError
from bulkhead.events import Event
from bulkhead.store import SQLiteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "state.db")
    yield opened
    opened.close()


def test_writers_wait_for_one_another(store: SQLiteStore) -> None:
    def count() -> None:
        for _ in range(50):
            with store.transaction() as transaction:
                value = int(transaction.get("counter", "n") or 0)
                transaction.put("counter", "n", str(value + 1))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as reader:
        assert reader.get("counter", "n") == "400"


def test_the_connections_of_ended_threads_are_closed(store: SQLiteStore) -> None:
    def look() -> None:
        with store.read() as reader:
            reader.get("plan", "a")

    def threads(count: int) -> int:
        for _ in range(count):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        return len(list(Path("/proc/self/fd").iterdir()))

    # SQLite itself keeps a descriptor for the next connection, since closing it would drop the process's locks.
    before = threads(3)
    assert threads(20) == before


_WRITER = """
import os, sys
from pathlib import Path
from bulkhead.store import SQLiteStore
store = SQLiteStore(Path(sys.argv[1]))
with store.transaction() as transaction:
    transaction.put("plan", "committed", "1")
with store.transaction() as transaction:
    transaction.put("plan", "open", "1")
    os.kill(os.getpid(), 9)
"""


def test_killed_in_a_transaction(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WRITER, str(tmp_path / "state.db")], check=False)
    assert done.returncode == -signal.SIGKILL
    store = SQLiteStore(tmp_path / "state.db")
    with store.read() as reader:
        assert reader.list("plan") == [("committed", "1")]
    assert store.check() == []
    store.close()


def test_only_root_reads_the_file(tmp_path: Path, store: SQLiteStore) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "a", "1")
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "state.db").close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(HostError, match="has schema 7, this Bulkhead knows schemas up to 1") as caught:
        SQLiteStore(tmp_path / "state.db")
    assert "newer" in caught.value.hint


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("CREATE TABLE cookies (a)")
    connection.close()
    before = (tmp_path / "state.db").read_bytes()
    with pytest.raises(HostError, match="of another program"):
        SQLiteStore(tmp_path / "state.db")
    assert (tmp_path / "state.db").read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(HostError, match="is damaged") as caught:
        SQLiteStore(tmp_path / "state.db")
    assert "backup" in caught.value.hint


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(HostError, match="Is a directory"):
        SQLiteStore(tmp_path / "state.db")


def test_damage_is_found_by_check(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    with store.transaction() as transaction:
        for number in range(2000):
            transaction.put("plan", f"{number}", "x" * 50)
    assert store.check() == []
    store.close()
    data = bytearray((tmp_path / "state.db").read_bytes())
    data[4096 * 5 : 4096 * 5 + 64] = b"\xff" * 64
    (tmp_path / "state.db").write_bytes(data)
    store = SQLiteStore(tmp_path / "state.db")
    try:
        assert store.check()
    except HostError as error:
        assert "damaged" in error.what
    store.close()


def test_events_are_numbered_from_one(store: SQLiteStore) -> None:
    events = [
        Event(when=float(number), kind="instance", id=f"{number}", action="start", name="wéb", attributes={"code": "1"})
        for number in range(1200)
    ]
    for event in events:
        store.append_event(event)
    numbered = [replace(event, number=number) for number, event in enumerate(events, 1)]
    assert list(store.events()) == numbered
    assert list(store.events(since=1198.0)) == numbered[1198:]
    assert list(store.events(since=10.0, until=12.0)) == numbered[10:12]
    assert list(store.events(after=700)) == numbered[700:]
