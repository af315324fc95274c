"""Members that die or stand still under writers: each change is made once or not at all, and told rightly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bulkhead.errors import Contended, Unavailable, Undecided
from bulkhead.store import Transaction
from bulkhead.store.etcd import EtcdStore
from tests.harness.etcd import Etcd

MakeStore = Callable[..., EtcdStore]
PATIENCE = 120.0


class Writers:
    """Threads that count up and keep a record per success, and what each of them was told."""

    def __init__(self, stores: list[EtcdStore]) -> None:
        self.made: set[str] = set()
        self.refused: set[str] = set()
        self.undecided: set[str] = set()
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(store, number)) for number, store in enumerate(stores)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, more: int) -> None:
        """Until so many more are made."""
        wanted, deadline = len(self.made) + more, time.monotonic() + PATIENCE
        while len(self.made) < wanted:
            assert time.monotonic() < deadline and not self.failures, (len(self.made), wanted, self.failures)
            time.sleep(0.01)

    def end(self) -> None:
        """Stop them. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, store: EtcdStore, which: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            name = f"{which}/{number}"

            def body(transaction: Transaction, name: str = name) -> None:
                transaction.put("counter", "n", str(int(transaction.get("counter", "n") or 0) + 1))
                assert transaction.insert("journal", name, "1")

            try:
                store.attempt(body)
            except Undecided:
                self.undecided.add(name)
            except (Unavailable, Contended):
                self.refused.add(name)
            except BaseException as error:
                self.failures.append(error)
                return
            else:
                self.made.add(name)


@pytest.fixture
def writers(make_store: MakeStore, etcd: Etcd) -> Iterator[Writers]:
    """Three, each of which asks another member first."""
    with ExitStack() as stack:
        ends = etcd.endpoints
        stores = [make_store(endpoints=ends[turn:] + ends[:turn]) for turn in range(3)]
        made = Writers(stores)
        stack.callback(made.end)
        yield made


@pytest.mark.parametrize("harm", ["killed", "frozen"])
def test_a_leader_is_lost_in_the_midst_of_transactions(
    etcd: Etcd, writers: Writers, make_store: MakeStore, harm: str
) -> None:
    writers.wait(10)
    leader = etcd.leader()
    with ExitStack() as stack:
        if harm == "killed":
            etcd.kill(leader)
        else:
            stack.callback(etcd.thaw, leader)
            etcd.freeze(leader)
        writers.wait(10)
    if harm == "killed":
        etcd.restart(leader)
    writers.wait(10)
    writers.end()
    assert not writers.failures
    with make_store().read() as reader:
        journal = {key for key, _ in reader.list("journal")}
        counter = int(reader.get("counter", "n") or 0)
    assert writers.made <= journal
    assert not writers.refused & journal
    assert journal <= writers.made | writers.undecided
    assert counter == len(journal), "each took effect whole, and once"


def test_without_a_majority_writes_are_refused_and_old_answers_given(make_store: MakeStore, etcd: Etcd) -> None:
    store = make_store(timeout=2.0, endpoints=etcd.endpoints)
    make_store().attempt(lambda transaction: transaction.put("plan", "a", "1"))
    make_store().listing("plan", stale=True)
    etcd.wait_for_revision(make_store().revision())
    for number in (1, 2):
        etcd.kill(number)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        store.attempt(lambda transaction: transaction.put("plan", "b", transaction.get("plan", "a") or ""))
    assert caught.value.hint
    with pytest.raises(Unavailable):
        store.attempt(lambda transaction: transaction.put("plan", "b", "blind"))
    with pytest.raises(Unavailable), store.read() as reader:
        reader.get("plan", "a")
    with store.read(stale=True) as reader:
        assert reader.get("plan", "a") == "1"
        assert reader.list("plan") == [("a", "1")]
    assert store.listing("plan", stale=True)[0] == [("a", "1")]
    assert len(store.check()) >= 3
    for number in (1, 2):
        etcd.restart(number, wait=False)
    etcd.wait_for_leader()
    healed = make_store()
    healed.attempt(lambda transaction: transaction.put("plan", "c", "1"))
    with healed.read() as reader:
        assert reader.get("plan", "c") == "1"
    assert healed.check() == []


def test_nobody_at_all(make_store: MakeStore) -> None:
    store = make_store(endpoints=["http://127.0.0.1:1", "http://127.0.0.1:2"], timeout=0.5)
    for stale in (False, True):
        with pytest.raises(Unavailable, match=r"127.0.0.1:1, .*does not answer"), store.read(stale=stale) as reader:
            reader.get("plan", "a")
    with pytest.raises(Unavailable):
        store.grant(5)
    assert len(store.check()) == 3
