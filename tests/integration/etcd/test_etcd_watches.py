"""Watches: every change once and in order, whatever happens to the members."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from bulkhead.store import Behind, Change, Watch
from bulkhead.store.etcd import EtcdStore, watches
from tests.harness.etcd import Etcd
from tests.harness.http_proxy import Fate, HttpProxy

MakeStore = Callable[..., EtcdStore]
PATIENCE = 120.0


def put(store: EtcdStore, key: str, value: str) -> None:
    """Change a record."""
    store.attempt(lambda transaction: transaction.put("plan", key, value))


def take(watch: Watch, number: int) -> list[Change]:
    """The next so many changes."""
    found = []
    for _ in range(number):
        change = watch.next(PATIENCE)
        assert isinstance(change, Change), change
        found.append(change)
    return found


def test_changes_come_in_order_with_their_revisions(store: EtcdStore) -> None:
    put(store, "before", "1")
    listed, revision = store.listing("plan")
    assert listed == [("before", "1")] and revision <= store.revision()
    with store.watch("plan", after=revision) as watch:
        assert watch.next(0.01) is None
        for key in ("a", "a/b", "\0", "é"):
            put(store, key, key)
        store.attempt(lambda transaction: transaction.put("plan-a", "other", "kind"))
        with store.transaction() as transaction:
            transaction.delete("plan", "a")
            transaction.put("plan", "z", "1")
        found = take(watch, 6)
    assert [(one.key, one.value) for one in found[:4]] == [(key, key) for key in ("a", "a/b", "\0", "é")]
    assert {(one.key, one.value) for one in found[4:]} == {("a", None), ("z", "1")}
    assert found[4].revision == found[5].revision
    assert [one.revision for one in found] == sorted(one.revision for one in found)
    assert found[0].revision > revision
    with store.watch("plan", "a", after=revision) as watch:
        assert take(watch, 3) == [one for one in found if one.key.startswith("a")]
        assert watch.next(0.3) is None
    with store.watch("plan", after=found[3].revision) as watch:
        assert take(watch, 2) == found[4:]


def test_closing_ends_whoever_waits(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    watched, closed = one.watch("plan", after=0), other.watch("plan", after=0)
    seen: list[list[object]] = []
    threads = [threading.Thread(target=lambda watch=watch: seen.append(list(watch))) for watch in (watched, closed)]
    for thread in threads:
        thread.start()
    watched.close()
    watched.close()
    other.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert seen == [[], []]
    assert watched.next(1.0) is None


@pytest.mark.parametrize("harm", ["killed", "frozen"])
def test_nothing_is_left_out_or_told_twice_across_a_change_of_leaders(
    make_store: MakeStore, etcd: Etcd, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "QUIET", 1.0)
    leader = etcd.leader()
    ends = etcd.endpoints
    watcher, writer = make_store(endpoints=ends[leader:] + ends[:leader]), make_store()
    with ExitStack() as stack, watcher.watch("plan", after=watcher.revision()) as watch:
        for number in range(5):
            put(writer, f"{number}", "1")
        found = take(watch, 5)
        if harm == "killed":
            etcd.kill(leader)
        else:
            stack.callback(etcd.thaw, leader)
            etcd.freeze(leader)
        for number in range(5, 15):
            put(writer, f"{number}", "1")
        found += take(watch, 10)
        assert watch.next(0.5) is None
    assert [one.key for one in found] == [f"{number}" for number in range(15)]


def test_what_was_compacted_away_is_told(store: EtcdStore, etcd: Etcd) -> None:
    begun = store.revision()
    for number in range(5):
        put(store, f"{number}", "1")
    etcd.compact(store.revision())
    with store.watch("plan", after=begun) as watch:
        behind = watch.next(PATIENCE)
        assert isinstance(behind, Behind) and behind.revision >= begun + 5
        listed, revision = store.listing("plan")
        assert len(listed) == 5 and revision >= behind.revision
        put(store, "later", "1")
        assert [one.key for one in take(watch, 1)] == ["later"]


def test_a_connection_that_breaks_is_made_again(make_store: MakeStore, etcd: Etcd) -> None:
    writer = make_store()
    with HttpProxy(etcd.addresses[0], 2379) as proxy:
        watcher = make_store(endpoints=[proxy.url])
        fates = [Fate.CUT_BEFORE, Fate.CUT_AFTER, Fate.CUT_BEFORE]
        proxy.rule = lambda path: fates.pop() if fates and path == "/v3/watch" else Fate.PASS
        with watcher.watch("plan", after=writer.revision()) as watch:
            put(writer, "a", "1")
            assert [one.key for one in take(watch, 1)] == ["a"]
        assert not fates


def test_the_end_of_a_lease_is_a_change(store: EtcdStore) -> None:
    lease = store.grant(5)
    with store.watch("plan", after=store.revision()) as watch:
        with store.transaction() as transaction:
            store.put_leased(transaction, "plan", "a", "1", lease=lease)
        lease.revoke()
        assert [(one.key, one.value) for one in take(watch, 2)] == [("a", "1"), ("a", None)]


def test_who_does_not_read_holds_up_nobody(store: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_AHEAD", 3)
    with store.watch("plan", after=store.revision()) as watch:
        for number in range(10):
            put(store, f"{number}", "1")
        time.sleep(0.2)
        assert [one.key for one in take(watch, 10)] == [f"{number}" for number in range(10)]
