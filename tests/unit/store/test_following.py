"""A fleet's records that a watch keeps: as of the end of a commit, never older than the question, or not at all."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bulkhead.errors import Unavailable
from bulkhead.fleet import Place
from bulkhead.store import following
from bulkhead.store.abilities import COMMITTED, EVERY, Behind, Change
from bulkhead.store.following import Following
from tests.unit.store.test_fleet_state import FLEET, host, place

PATIENCE = 30.0


class FakeWatch:
    def __init__(self) -> None:
        self.changes: queue.Queue[Change | Behind | None] = queue.Queue()
        self.closed = threading.Event()

    def next(self, timeout: float) -> Change | Behind | None:
        try:
            return None if self.closed.is_set() else self.changes.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        self.closed.set()
        self.changes.put(None)

    def __enter__(self) -> FakeWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FakeStore:
    """Records as they are, and one watch, which is told by hand."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], str] = {("fleet", "self"): FLEET.model_dump_json()}
        self.revision = self.commit = 1
        self.watches: list[FakeWatch] = []
        self.began = threading.Semaphore(0)
        self.answers = True
        self.readable = threading.Event()
        self.readable.set()

    def put(self, kind: str, key: str, value: str | None) -> Change:
        self.revision += 1
        if value is None:
            self.records.pop((kind, key))
        else:
            self.records[kind, key] = value
        return Change(kind, key, value, self.revision)

    def committed(self) -> Change:
        self.commit = self.revision
        return Change(COMMITTED, "", "", self.revision)

    def newest(self) -> int:
        if not self.answers:
            raise Unavailable("nobody answers")
        return self.commit

    def dated(self) -> Any:
        if not self.answers:
            raise Unavailable("nobody answers")
        assert self.readable.wait(PATIENCE)
        records, at = dict(self.records), self.revision

        class Dated:
            revision = at

            def get(self, kind: str, key: str) -> str | None:
                return records.get((kind, key))

            def list(self, kind: str, prefix: str = "") -> list[tuple[str, str]]:
                return sorted((key, value) for (of, key), value in records.items() if of == kind)

        return Dated()

    def watch(self, kind: str, prefix: str = "", *, after: int) -> Any:
        assert (kind, prefix) == (EVERY, "")
        self.watches.append(FakeWatch())
        self.began.release()
        return self.watches[-1]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def follows(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Following]:
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0.01)
    made = Following(store)
    made.begin()
    assert store.began.acquire(timeout=PATIENCE)
    yield made
    made.close()


def tell(store: FakeStore, *changes: Change) -> None:
    for change in changes:
        store.watches[-1].changes.put(change)


def places(follows: Following) -> tuple[Place, ...]:
    found = follows.seen()
    assert found is not None
    return found.places


def alive(follows: Following) -> frozenset[str]:
    found = follows.seen()
    assert found is not None
    return found.alive


def test_a_commit_is_there_whole_or_not_at_all(store: FakeStore, follows: Following) -> None:
    assert places(follows) == ()
    one, two = place(1, on=host(1)), place(2, on=host(1))
    first = store.put("place", one.id, one.model_dump_json())
    store.revision -= 1  # of one commit
    second = store.put("place", two.id, two.model_dump_json())
    tell(store, first)
    assert places(follows) == ()  # nobody has been told yet that it is committed
    tell(store, second, store.committed())
    assert places(follows) == (one, two)
    assert follows.revision == store.revision
    with follows.latest() as kept:
        assert kept is not None
        assert set(kept.there[host(1).id]) == {one.id, two.id}
        assert kept.names["default"] == {"instance1", "instance2"}


def test_what_ends_with_a_lease_is_no_commit_and_is_seen(store: FakeStore, follows: Following) -> None:
    tell(store, store.put("alive", host(1).id, "0"), store.committed())
    assert alive(follows) == {host(1).id}
    gone = store.put("alive", host(1).id, None)
    tell(store, gone)
    for _ in range(int(PATIENCE / 0.01)):
        if follows.revision == gone.revision:
            break
        threading.Event().wait(0.01)
    assert alive(follows) == set()


def test_where_the_watch_has_lost_its_place_everything_is_read_anew(store: FakeStore, follows: Following) -> None:
    one = place(1, on=host(1))
    store.put("place", one.id, one.model_dump_json())
    store.committed()
    tell(store, Behind(store.revision))  # type: ignore[arg-type]
    assert store.began.acquire(timeout=PATIENCE)
    assert places(follows) == (one,)
    tell(store, store.put("place", one.id, None), store.committed())
    assert places(follows) == ()


def test_what_is_not_told_in_time_is_to_be_read(
    store: FakeStore, follows: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.05)
    one = place(1, on=host(1))
    change = store.put("place", one.id, one.model_dump_json())
    end = store.committed()
    assert follows.seen() is None
    tell(store, change, end)
    monkeypatch.setattr(following, "PATIENCE", PATIENCE)
    assert places(follows) == (one,)


def test_what_is_being_read_is_waited_for(
    store: FakeStore, follows: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.01)
    store.readable.clear()
    one = place(1, on=host(1))
    store.put("place", one.id, one.model_dump_json())
    store.committed()
    tell(store, Behind(store.revision))  # type: ignore[arg-type]
    threading.Timer(0.3, store.readable.set).start()
    for _ in range(int(PATIENCE / 0.01)):
        if follows._reading:
            break
        threading.Event().wait(0.01)
    assert places(follows) == (one,)


def test_where_nobody_answers_nothing_is_claimed(store: FakeStore, follows: Following) -> None:
    store.answers = False
    with pytest.raises(Unavailable):
        follows.seen()


def test_a_move_is_on_both_hosts_until_it_is_through(store: FakeStore, follows: Following) -> None:
    one = place(1, on=host(1)).model_copy(update={"target": host(2).id})
    tell(store, store.put("place", one.id, one.model_dump_json()), store.committed())
    with follows.latest() as kept:
        assert kept is not None
        assert [set(kept.there[host(number).id]) for number in (1, 2)] == [{one.id}, {one.id}]
        kept.changed = set()
    arrived = one.model_copy(update={"host": host(2).id, "target": None})
    tell(store, store.put("place", one.id, arrived.model_dump_json()), store.committed())
    with follows.latest() as kept:
        assert kept is not None
        assert [set(kept.there[host(number).id]) for number in (1, 2)] == [set(), {one.id}]
        assert kept.changed == {host(1).id, host(2).id}


def test_a_record_that_cannot_be_read_is_not_passed_over(
    store: FakeStore, follows: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.05)
    tell(store, store.put("place", "x", '{"of": "tomorrow"}'), store.committed())
    assert follows.seen() is None  # whoever reads it all is told which it is
    monkeypatch.setattr(following, "PATIENCE", PATIENCE)
    store.records.pop(("place", "x"))
    assert places(follows) == ()
