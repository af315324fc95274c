"""The SQLite store: atomic, isolated, safe from threads, and clear about files that it cannot use."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead.errors import HostError
from bulkhead.events import Event
from bulkhead.store import SQLiteStore, Transaction


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "state.db")
    yield opened
    opened.close()


def test_records_live_over_a_new_store(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path / "state.db")
    with first.transaction() as transaction:
        transaction.put("plan", "small", "{}")
    first.close()
    second = SQLiteStore(tmp_path / "state.db")
    with second.read() as reader:
        assert reader.get("plan", "small") == "{}"
        assert reader.get("plan", "large") is None
        assert reader.get("network", "small") is None
    second.close()


def test_insert_put_delete_say_what_was_there(store: SQLiteStore) -> None:
    with store.transaction() as transaction:
        assert transaction.insert("plan", "a", "1")
        assert not transaction.insert("plan", "a", "2")
        assert transaction.get("plan", "a") == "1"
        transaction.put("plan", "a", "3")
        assert transaction.get("plan", "a") == "3"
        assert transaction.delete("plan", "a")
        assert not transaction.delete("plan", "a")


def test_an_attempt_is_one_transaction(store: SQLiteStore) -> None:
    def body(transaction: Transaction) -> str:
        transaction.put("plan", "a", "1")
        return transaction.get("plan", "a") or ""

    def fails(transaction: Transaction) -> None:
        transaction.put("plan", "b", "1")
        raise KeyError

    assert store.attempt(body) == "1"
    with pytest.raises(KeyError):
        store.attempt(fails)
    with store.read(stale=True) as reader:
        assert reader.list("plan") == [("a", "1")]


def test_list_is_by_prefix_and_in_order(store: SQLiteStore) -> None:
    with store.transaction() as transaction:
        for key in ("tcp/80/*", "tcp/8/*", "tcp/80/::1", "udp/80/*", "tcp/800/*", "é", "tcp/80/\U0010fffe"):
            transaction.put("port", key, key)
        transaction.put("plan", "tcp/80/*", "another kind")
        keys = [key for key, _ in transaction.list("port", "tcp/80/")]
        assert keys == ["tcp/80/*", "tcp/80/::1", "tcp/80/\U0010fffe"]
        assert len(transaction.list("port")) == 7
        assert transaction.list("port", "%") == []


def test_an_exception_rolls_everything_back(store: SQLiteStore) -> None:
    with pytest.raises(KeyError), store.transaction() as transaction:
        transaction.put("plan", "a", "1")
        store.append_event(Event(when=1.0, kind="plan", id="a", action="create"))
        raise KeyError
    with store.read() as reader:
        assert reader.list("plan") == []
    assert list(store.events()) == []


def test_a_transaction_within_a_transaction_is_a_mistake(store: SQLiteStore) -> None:
    with store.transaction(), pytest.raises(RuntimeError, match="already open"), store.transaction():
        pass


def test_a_reader_sees_one_moment(store: SQLiteStore) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "a", "old")

    def change() -> None:
        with store.transaction() as transaction:
            transaction.put("plan", "a", "new")

    with store.read() as reader:
        assert reader.get("plan", "a") == "old"
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
        assert reader.get("plan", "a") == "old"
    with store.read() as reader:
        assert reader.get("plan", "a") == "new"


def test_a_reader_cannot_write(store: SQLiteStore) -> None:
    with store.read() as reader:
        assert not hasattr(reader, "put")


def test_threads_count_without_losing_one(store: SQLiteStore) -> None:
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


def test_two_processes_share_the_file(tmp_path: Path, store: SQLiteStore) -> None:
    other = SQLiteStore(tmp_path / "state.db")
    with store.transaction() as transaction:
        transaction.put("plan", "a", "1")
    with other.read() as reader:
        assert reader.get("plan", "a") == "1"
    other.close()


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


def test_closed_means_closed(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    store.close()
    store.close()

    def look() -> None:
        with pytest.raises(RuntimeError, match="closed"), store.read():
            pass

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()


def test_events_come_back_as_they_were(store: SQLiteStore) -> None:
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


def test_old_events_are_dropped(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db", max_events=10)
    for number in range(100):
        store.append_event(Event(when=float(number), kind="instance", id="", action="start"))
    assert [event.when for event in store.events()] == [float(number) for number in range(90, 100)]
    store.close()


_steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "insert", "delete", "fail"]), st.sampled_from(["a", "b", "ab", ""]), st.text(max_size=4)
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_it_behaves_like_a_dictionary(store: SQLiteStore, steps: list[tuple[str, str, str]]) -> None:
    with store.transaction() as transaction:
        for key, _ in transaction.list("kind"):
            transaction.delete("kind", key)
    expected: dict[str, str] = {}
    for action, key, value in steps:
        try:
            with store.transaction() as transaction:
                if action == "put":
                    transaction.put("kind", key, value)
                    expected[key] = value
                elif action == "insert":
                    assert transaction.insert("kind", key, value) == (key not in expected)
                    expected.setdefault(key, value)
                elif action == "delete":
                    assert transaction.delete("kind", key) == (expected.pop(key, None) is not None)
                else:
                    transaction.put("kind", key, value)
                    raise InterruptedError
        except InterruptedError:
            pass
        with store.read() as reader:
            assert dict(reader.list("kind")) == expected
            assert [key for key, _ in reader.list("kind", "a")] == sorted(k for k in expected if k.startswith("a"))
