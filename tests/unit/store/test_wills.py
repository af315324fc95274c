"""The fleet's records for the loss of a host: who may take what, and when it may not be taken any more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict
from bulkhead.fleet import Phase, Place
from bulkhead.model import Isolation, Plan, Spec
from bulkhead.moves import Leaving
from bulkhead.store import handing, wills
from bulkhead.store.base import Transaction
from bulkhead.store.fleet import FleetState, Stale
from bulkhead.store.seen import ALIVE
from bulkhead.store.sqlite import SQLiteStore
from bulkhead.store.wills import Absent, Passing, Taking
from bulkhead.where import Where
from tests.unit.store.test_fleet_state import FLEET, host, joined

ID = "a" * 32


def spec(name: str = "web") -> Spec:
    return Spec(
        id=ID,
        name=name,
        image="box",
        image_digest="sha256:0",
        isolation=Isolation.CONTAINER,
        plan=Plan(memory=64 << 20, cpus=1, disk=64 << 20),
        argv=("true",),
        hostname="web",
        network="default",
        where=Where(on_host_loss="recreate"),
        created=0.0,
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FleetState]:
    """Hosts 1, 2 and 3, of which the first has an instance and is not heard of."""
    store = SQLiteStore(tmp_path / "fleet.db")
    made = FleetState(store)
    made.found(FLEET, host(1))
    joined(made, 2)
    joined(made, 3)
    amounts = {"memory": 100}
    place = Place(id=ID, name="web", tenant="default", host=host(1).id, level=Isolation.CONTAINER, amounts=amounts)
    made.reserve(place, scored=0)
    made.confirm(ID)
    for number in (1, 2, 3):
        live(made, number)
    yield made
    store.close()


def live(state: FleetState, number: int, life: str = "first") -> None:
    def body(transaction: Transaction) -> None:
        transaction.put(ALIVE, host(number).id, "0")
        transaction.put(wills.LIFE, host(number).id, json.dumps(life))

    state.store.attempt(body)


def die(state: FleetState, number: int) -> None:
    state.store.attempt(lambda transaction: transaction.delete(ALIVE, host(number).id))


def taking(state: FleetState, target: int = 2) -> Taking:
    (gone,) = wills.absent(state, but=host(3).id)
    return Taking(gone, host(target).id, state.seen_sold(host(target).id).version, Amounts(memory=120), 12.0)


def test_what_ran_on_a_lost_host_is_another_s(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    die(state, 1)
    taken = wills.take(state, ID, taking(state))
    assert (taken.host, taken.generation, taken.phase) == (host(2).id, 2, Phase.RECOVERING)
    assert state.seen_sold(host(1).id).places == 0
    assert state.seen_sold(host(2).id).amounts == Amounts(memory=120)
    assert wills.remains(state, host(1).id) == {ID: host(2).id}
    will = wills.of(state, ID)
    assert will is not None
    assert (will.lost, will.unheard, will.spec) == ("host1", 12.0, spec())


def test_it_may_run_only_where_its_place_is(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    die(state, 1)
    wills.take(state, ID, taking(state))
    with pytest.raises(Conflict, match="not this host's any more: the fleet has it on host host2"):
        wills.begin_run(state, spec(), host=host(1).id)
    wills.begin_run(state, spec(), host=host(2).id)
    assert not wills.note(state, spec(), host=host(1).id, runs=False)
    assert not wills.note(state, spec(), host=host(2).id, runs=False)  # it is recovering: nothing is noted yet
    state.confirm(ID)
    assert wills.note(state, spec(), host=host(2).id, runs=False)


def test_nothing_is_taken_from_a_host_that_lives(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    die(state, 1)
    decided = taking(state)
    live(state, 1, life="second")
    with pytest.raises(Stale, match="host1 lives"):
        wills.take(state, ID, decided)
    die(state, 1)  # and was heard of in between: its time begins anew
    with pytest.raises(Stale, match="host1 lives"):
        wills.take(state, ID, decided)
    wills.take(state, ID, taking(state))


def test_nothing_goes_to_a_host_that_is_lost_or_has_sold_meanwhile(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    die(state, 1)
    decided = taking(state)
    state.change_host(host(2).id, lambda each: each.model_copy(update={"labels": {"zone": "b"}}))
    with pytest.raises(Stale, match="has sold something else"):
        wills.take(state, ID, decided)
    decided = taking(state)
    die(state, 2)
    with pytest.raises(Stale, match="does not live"):
        wills.take(state, ID, decided)


def recovering(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    die(state, 1)
    wills.take(state, ID, taking(state))


def passing(state: FleetState, target: int = 3) -> Passing:
    return Passing(host(target).id, state.seen_sold(host(target).id).version, Amounts(memory=130))


def test_what_cannot_be_started_there_goes_on_to_another_host(state: FleetState) -> None:
    recovering(state)
    assert wills.pass_on(state, ID, passing(state), by=host(2).id, refused={"host2": "no room"})
    place, will = handing.place_of(state, ID), wills.of(state, ID)
    assert place is not None and will is not None
    assert (place.host, place.phase, place.generation) == (host(3).id, Phase.RECOVERING, 3)
    assert (will.refused, will.problem) == ({"host2": "no room"}, "host host2: no room")
    assert (state.seen_sold(host(2).id).places, state.seen_sold(host(3).id).amounts) == (0, Amounts(memory=130))
    # What may have come of it on host 2 goes, and nothing of it runs there any more.
    assert wills.all_remains(state) == {(host(1).id, ID): host(2).id, (host(2).id, ID): host(3).id}
    with pytest.raises(Conflict, match="on host host3"):
        wills.begin_run(state, spec(), host=host(2).id)
    wills.begin_run(state, spec(), host=host(3).id)
    assert not wills.pass_on(state, ID, passing(state, 2), by=host(2).id, refused={})  # it is not its any more


def test_where_no_other_host_will_do_it_stays_with_the_reasons(state: FleetState) -> None:
    recovering(state)
    assert wills.pass_on(state, ID, None, by=host(2).id, refused={"host3": "full", "host2": "no image"})
    place, will = handing.place_of(state, ID), wills.of(state, ID)
    assert place is not None and will is not None
    assert (place.host, place.phase) == (host(2).id, Phase.RECOVERING)
    assert (will.refused, will.problem) == ({}, "host host3: full; host host2: no image")  # all are asked again


def test_nothing_goes_on_to_a_host_that_does_not_live_or_has_changed(state: FleetState) -> None:
    recovering(state)
    old = passing(state)
    state.change_host(host(3).id, lambda each: each.model_copy(update={"labels": {"zone": "b"}}))
    with pytest.raises(Stale, match="has sold something else"):
        wills.pass_on(state, ID, old, by=host(2).id, refused={"host2": "no"})
    old = passing(state)
    die(state, 3)
    with pytest.raises(Stale, match="does not live"):
        wills.pass_on(state, ID, old, by=host(2).id, refused={"host2": "no"})
    will = wills.of(state, ID)
    assert will is not None and will.refused == {}


def test_what_does_not_run_or_has_no_will_stays(state: FleetState) -> None:
    die(state, 1)
    with pytest.raises(Conflict, match="not to be taken"):
        wills.take(state, ID, taking(state))
    wills.begin_run(state, spec(), host=host(1).id)
    assert wills.note(state, spec(), host=host(1).id, runs=False)
    with pytest.raises(Conflict, match="not to be taken"):
        wills.take(state, ID, taking(state))


def test_a_move_is_over_once_its_source_was_lost(state: FleetState) -> None:
    leaving = Leaving(move="b" * 32, target=host(3).id, ran=True)
    wills.begin_run(state, spec(), host=host(1).id)
    handing.begin(state, ID, leaving, host=host(1).id)
    die(state, 1)
    wills.take(state, ID, taking(state))
    with pytest.raises(Conflict, match="has been taken back"):
        handing.hand_over(state, ID, leaving, Amounts())
    assert not handing.take_back(state, ID, leaving, host=host(1).id)


def test_a_problem_is_told_once(state: FleetState) -> None:
    assert not wills.tell(state, ID, "no room")
    wills.begin_run(state, spec(), host=host(1).id)
    assert wills.tell(state, ID, "no room")
    assert not wills.tell(state, ID, "no room")
    wills.begin_run(state, spec(), host=host(1).id)
    assert wills.of(state, ID) is not None
    assert wills.all_of(state)[ID].problem == ""


def test_what_is_removed_leaves_no_will(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    state.release(ID)
    assert wills.all_of(state) == {}


def test_remains_go_one_by_one_and_with_their_host(state: FleetState) -> None:
    wills.begin_run(state, spec(), host=host(1).id)
    die(state, 1)
    wills.take(state, ID, taking(state))
    wills.forget_remains(state, host(2).id, ID)
    assert wills.remains(state, host(1).id) == {ID: host(2).id}
    state.leave(host(1).id)
    assert wills.remains(state, host(1).id) == {}


def test_who_has_never_lived_is_not_lost(state: FleetState) -> None:
    joined(state, 4)
    assert wills.absent(state, but=host(2).id) == []
    die(state, 1)
    assert wills.absent(state, but=host(2).id) == [Absent(host(1), json.dumps("first"))]
