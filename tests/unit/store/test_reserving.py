"""Reserved places: taken over by their host, stated anew, dropped when nothing comes of them; and versions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict
from bulkhead.fleet import HostState, Invitation, Phase
from bulkhead.store.fleet import FleetState, Stale
from bulkhead.store.reserving import claim, expire, restate
from bulkhead.store.sqlite import SQLiteStore
from tests.unit.store.test_fleet_state import FLEET, host, place


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FleetState]:
    """A fleet of two hosts."""
    store = SQLiteStore(tmp_path / "fleet.db")
    made = FleetState(store)
    made.found(FLEET, host(1))
    made.invite("hash", Invitation(until=10.0, by="root"))
    made.join("hash", host(2), now=1.0)
    yield made
    store.close()


def version(state: FleetState, number: int) -> int:
    return state.seen_sold(host(number).id).version


def test_a_host_that_changes_makes_what_was_judged_by_it_stale(state: FleetState) -> None:
    for change in ({"state": HostState.DRAINING}, {"labels": {"zone": "b"}}, {"sellable": {"memory": 1}}):
        before = version(state, 1)
        state.change_host(host(1).id, lambda each, change=change: each.model_copy(update=change))  # type: ignore[misc]
        with pytest.raises(Stale):
            state.reserve(place(7, on=host(1)), scored=before)
    before = version(state, 1)
    state.change_host(host(1).id, lambda each: each)  # nothing
    state.reserve(place(7, on=host(1)), scored=before)


def test_what_rests_on_the_whole_fleet_is_judged_by_all_of_it(state: FleetState) -> None:
    whole = {key: sold.version for key, sold in state.seen().sold.items()}
    state.reserve(place(1, on=host(2)), scored=version(state, 2))
    with pytest.raises(Stale, match="other hosts"):
        state.reserve(place(2, on=host(1)), scored=version(state, 1), whole=whole)
    state.reserve(place(2, on=host(1)), scored=version(state, 1))  # what does not rest on it is not disturbed
    whole = {key: sold.version for key, sold in state.seen().sold.items()}
    state.reserve(place(3, on=host(1)), scored=version(state, 1), whole=whole)


def test_a_place_is_taken_over_by_its_own_host_once_it_is_reserved(state: FleetState) -> None:
    made = place(1, on=host(2)).model_copy(update={"by": host(1).id})
    with pytest.raises(Stale):
        claim(state, made.id, host=host(2).id, until=5.0)
    state.reserve(made, scored=0)
    with pytest.raises(Stale):
        claim(state, made.id, host=host(1).id, until=5.0)
    claimed = claim(state, made.id, host=host(2).id, until=5.0)
    assert (claimed.by, claimed.until) == (host(2).id, 5.0)
    state.confirm(made.id)
    with pytest.raises(Stale):
        claim(state, made.id, host=host(2).id, until=5.0)


def test_what_was_reserved_gets_another_id_and_other_amounts(state: FleetState) -> None:
    made = place(1, on=host(1), name="web", memory=100)
    state.reserve(made, scored=0)
    restate(state, made, place(2, on=host(1), name="web", memory=150))
    assert state.seen_sold(host(1).id).amounts == Amounts(memory=150)
    assert state.seen_sold(host(1).id).places == 1
    found = state.find("web", tenant=None)
    assert found is not None
    assert found.id == place(2, on=host(1)).id
    with pytest.raises(Stale):  # the old one is gone
        restate(state, made, place(3, on=host(1), name="web"))
    with pytest.raises(Conflict):  # another name is another instance
        restate(state, found, place(2, on=host(1), name="other"))
    assert state.release(found.id)
    assert state.seen_sold(host(1).id).amounts == Amounts()


def test_a_reservation_is_dropped_as_it_was_seen_alone(state: FleetState) -> None:
    made = place(1, on=host(1))
    state.reserve(made, scored=0)
    claim(state, made.id, host=host(1).id, until=time.time() + 60)
    assert not expire(state, made)  # it has been taken over meanwhile
    seen = state.seen().places[0]
    state.confirm(seen.id)
    assert not expire(state, seen)
    confirmed = state.seen().places[0]
    assert confirmed.phase is Phase.PLACED
    assert not expire(state, confirmed)
    other = place(2, on=host(1))
    state.reserve(other, scored=version(state, 1))
    assert expire(state, other)
    assert not expire(state, other)
    assert state.seen_sold(host(1).id).places == 1
