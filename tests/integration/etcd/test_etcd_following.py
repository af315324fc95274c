"""What a watch keeps of a fleet is what etcd holds, while many change it and etcd forgets and fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bulkhead.amounts import Amounts
from bulkhead.errors import BulkheadError
from bulkhead.store.etcd import EtcdStore, watches
from bulkhead.store.fleet import ALIVE, FleetState
from bulkhead.store.following import Following
from tests.harness.etcd import Etcd
from tests.integration.lives import until
from tests.unit.store.test_fleet_state import FLEET, host, place

pytestmark = pytest.mark.timeout(300)
MakeStore = Callable[..., EtcdStore]


@contextmanager
def following(store: EtcdStore) -> Iterator[FleetState]:
    """The fleet over a store, followed."""
    state = FleetState(store)
    state.following = Following(store)
    state.following.begin()
    try:
        yield state
    finally:
        state.following.close()


@pytest.fixture
def writer(make_store: MakeStore) -> FleetState:
    made = FleetState(make_store())
    made.found(FLEET, host(1))
    return made


def kept(state: FleetState) -> Any:
    """Without reading all of it, which is what the test compares with."""
    assert state.following is not None
    return until("it is followed", state.following.seen)


def test_each_answer_is_of_the_moment_of_its_question(make_store: MakeStore, writer: FleetState) -> None:
    with following(make_store()) as state:
        for number in range(1, 40):
            made = place(number, on=host(1))
            sold = writer.seen_sold(host(1).id)
            writer.reserve(made, scored=sold.version)
            assert made in kept(state).places
            if number % 3 == 0:
                writer.release(made.id)
                assert made not in kept(state).places
            if number % 5 == 0:
                writer.change_host(host(1).id, lambda one, number=number: one.model_copy(update={"factor": number}))
                assert kept(state).hosts[0].factor == number
        assert kept(state) == writer.read_all()


def test_it_is_what_etcd_holds_whatever_many_do_at_once(make_store: MakeStore, writer: FleetState) -> None:
    """Also at every moment in between: the sum of what is placed is what is sold, which is written with it."""
    stop, wrong = threading.Event(), list[str]()

    def write(number: int, state: FleetState) -> None:
        dice = random.Random(number)
        for turn in range(25):
            made = place(number * 1000 + turn, on=host(1), memory=dice.randint(1, 50))
            if state.adopt(made) and dice.random() < 0.5:
                state.release(made.id)

    def look(state: FleetState) -> None:
        while not stop.is_set():
            seen = kept(state)
            total = sum((Amounts(**each.amounts) for each in seen.places), Amounts())
            if seen.places and seen.sold[host(1).id].amounts != total:
                wrong.append(f"{seen.sold} is not the sum of {len(seen.places)}")

    with following(make_store()) as state:
        threads = [threading.Thread(target=write, args=(number, FleetState(make_store()))) for number in range(1, 5)]
        looker = threading.Thread(target=look, args=(state,))
        looker.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        looker.join()
        assert wrong == []
        assert kept(state) == writer.read_all()


def test_what_was_compacted_away_is_read_anew(
    make_store: MakeStore, writer: FleetState, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "QUIET", 1.0)
    with following(make_store()) as state:
        kept(state)
        for number in range(1, 30):
            writer.adopt(place(number, on=host(1)))
            if number % 10 == 0:
                etcd.compact(writer.store.revision())  # type: ignore[attr-defined]
        assert kept(state) == writer.read_all()


def test_a_host_whose_lease_ends_is_seen_to_end(make_store: MakeStore, writer: FleetState) -> None:
    store = make_store()
    lease = store.grant(10)
    with following(make_store()) as state:
        store.attempt(lambda change: store.put_leased(change, ALIVE, host(1).id, "0", lease=lease))
        assert kept(state).alive == {host(1).id}
        lease.revoke()
        until("it is gone", lambda: kept(state).alive == frozenset())


def test_members_that_are_lost_and_come_back(make_store: MakeStore, writer: FleetState, etcd: Etcd) -> None:
    with following(make_store()) as state:
        kept(state)
        etcd.kill(0)
        writer.adopt(place(1, on=host(1)))
        until("it is told by another", lambda: _answers(lambda: len(kept(state).places) == 1))
        etcd.restart(0)
        etcd.wait_for_leader()
        writer.adopt(place(2, on=host(1)))
        until("it goes on", lambda: _answers(lambda: kept(state) == writer.read_all()))


def _answers(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except BulkheadError:
        time.sleep(0.1)
        return False


def test_the_newest_commit_is_of_this_fleet_alone(make_store: MakeStore, writer: FleetState, etcd: Etcd) -> None:
    store = make_store()
    before = store.newest()
    assert before > 0
    other = EtcdStore(etcd.endpoints, cluster="another")
    try:
        other.attempt(lambda change: change.put("plan", "a", "1"))
        assert store.newest() == before < other.newest()
    finally:
        other.close()
    writer.adopt(place(1, on=host(1)))
    assert store.newest() > before
