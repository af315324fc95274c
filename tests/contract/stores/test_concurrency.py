"""Many writers at once: every history is one that could have been one after the other."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from bulkhead.store import Store, Transaction
from tests.contract.stores.processes import Place, add_one

Open = Callable[..., Store]


def together(number: int, work: Callable[[int], None]) -> None:
    """Do it in so many threads at once. Raises what the first that failed raised."""
    failures: list[BaseException] = []
    gate = threading.Barrier(number)

    def run(which: int) -> None:
        try:
            gate.wait(60)
            work(which)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_count_without_losing_one(open_store: Open) -> None:
    stores = [open_store() for _ in range(2)]

    def count(which: int) -> None:
        for _ in range(15):
            stores[which % 2].attempt(add_one)

    together(8, count)
    with stores[0].read() as reader:
        assert reader.get("counter", "n") == "120"


def test_processes_count_without_losing_one(place: Place, store: Store) -> None:
    processes = [place.process("count", 15) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    with store.read() as reader:
        assert reader.get("counter", "n") == "60"


def test_killed_within_a_transaction(place: Place, store: Store) -> None:
    with store.transaction() as transaction:
        transaction.put("plan", "committed", "1")
    assert place.process("die", 1).wait(60) == -signal.SIGKILL
    with store.read() as reader:
        assert reader.list("plan") == [("committed", "1")]


def test_two_who_look_at_one_another_do_not_both_go(store: Store) -> None:
    """Write skew: each writes what the other has read."""
    for number in range(8):
        key = f"{number}"

        def leave(which: int, key: str = key) -> None:
            def body(transaction: Transaction) -> None:
                if transaction.get("duty", f"{key}/{1 - which}") != "gone":
                    transaction.put("duty", f"{key}/{which}", "gone")

            store.attempt(body)

        together(2, leave)
        with store.read() as reader:
            assert len(reader.list("duty", f"{key}/")) == 1


@pytest.mark.parametrize("places", [1, 3])
def test_a_place_is_sold_once_though_nobody_writes_to_it(store: Store, places: int) -> None:
    """Phantoms: each counts what is there, and adds one where there is room."""

    def buy(which: int) -> None:
        def body(transaction: Transaction) -> None:
            if len(transaction.list("seat", "row/")) < places:
                transaction.put("seat", f"row/{which}", "taken")

        store.attempt(body)

    together(6, buy)
    with store.read() as reader:
        assert len(reader.list("seat")) == places


def test_one_alone_takes_the_last_of_them(store: Store) -> None:
    """What is removed counts as well: one of those who take it gets it."""
    for number in range(8):
        with store.transaction() as transaction:
            transaction.put("token", f"{number}", "1")
        taken: list[int] = []

        def take(which: int, taken: list[int] = taken) -> None:
            def body(transaction: Transaction) -> bool:
                return bool(transaction.list("token")) and transaction.delete("token", transaction.list("token")[0][0])

            if store.attempt(body):
                taken.append(which)

        together(3, take)
        assert len(taken) == 1


def test_a_sum_that_all_add_to_is_that_of_the_records(open_store: Open) -> None:
    stores = [open_store() for _ in range(2)]

    def work(which: int) -> None:
        for number in range(6):

            def add(transaction: Transaction, number: int = number) -> None:
                transaction.insert("thing", f"{which}/{number}", "7")
                transaction.put("sum", "", str(sum(int(value) for _, value in transaction.list("thing"))))

            def drop(transaction: Transaction, number: int = number) -> None:
                transaction.delete("thing", f"{which}/{number}")
                transaction.put("sum", "", str(sum(int(value) for _, value in transaction.list("thing"))))

            stores[which % 2].attempt(add)
            if number % 2:
                stores[which % 2].attempt(drop)

    together(4, work)
    with stores[1].read() as reader:
        assert reader.get("sum", "") == str(4 * 3 * 7)
        assert len(reader.list("thing")) == 12


def test_readers_never_see_a_half(store: Store) -> None:
    stop = threading.Event()
    seen: list[tuple[str | None, str | None]] = []

    def move(which: int) -> None:
        if which:
            while not stop.is_set():
                with store.read() as reader:
                    seen.append((reader.get("half", "a"), reader.get("half", "b")))
            return
        try:
            for number in range(40):

                def body(transaction: Transaction, number: int = number) -> None:
                    transaction.put("half", "a", str(number))
                    transaction.put("half", "b", str(number))

                store.attempt(body)
        finally:
            stop.set()

    together(3, move)
    assert seen
    assert all(one == other for one, other in seen)
