"""A move in the fleet's record: handed over once, or taken back for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict, NotFound
from bulkhead.fleet import Phase
from bulkhead.moves import Leaving
from bulkhead.store import handing
from bulkhead.store.fleet import FleetState
from bulkhead.store.sqlite import SQLiteStore
from tests.unit.store.test_fleet_state import FLEET, host, place

SOURCE, TARGET = host(1), host(2)
PLACE = place(7, on=SOURCE)
FIRST = Leaving(move="a" * 32, target=TARGET.id, ran=True)
SECOND = Leaving(move="b" * 32, target=TARGET.id, ran=True)
THERE = Amounts(memory=150)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetState]:
    """Two hosts, and an instance on the first."""
    store = SQLiteStore(tmp_path / "fleet.db")
    made = FleetState(store)
    made.found(FLEET, SOURCE)
    made.change_host(SOURCE.id, lambda one: one)
    with store.transaction() as transaction:
        transaction.put("host", TARGET.id, TARGET.model_dump_json())
    made.reserve(PLACE, scored=0)
    made.confirm(PLACE.id)
    yield made
    store.close()


def sums(fleet: FleetState) -> list[tuple[int, int]]:
    """Memory and number of what each host has sold."""
    return [(found.amounts.memory, found.places) for found in map(fleet.seen_sold, (SOURCE.id, TARGET.id))]


def test_what_is_handed_over_is_the_target_s_in_every_record(fleet: FleetState) -> None:
    begun = handing.begin(fleet, PLACE.id, FIRST, host=SOURCE.id)
    assert (begun.host, begun.generation, begun.phase, begun.target) == (SOURCE.id, 1, Phase.MOVING, TARGET.id)
    assert sums(fleet) == [(100, 1), (0, 0)]
    after = handing.hand_over(fleet, PLACE.id, FIRST, THERE)
    assert (after.host, after.generation, after.phase) == (TARGET.id, 2, Phase.PLACED)
    assert (after.target, after.move) == (None, None)
    assert handing.place_of(fleet, PLACE.id) == after
    assert sums(fleet) == [(0, 0), (150, 1)]
    assert not handing.take_back(fleet, PLACE.id, FIRST, host=SOURCE.id)
    assert sums(fleet) == [(0, 0), (150, 1)]
    assert fleet.find(PLACE.name, tenant=None) == after


def test_what_was_taken_back_can_never_be_handed_over(fleet: FleetState) -> None:
    handing.begin(fleet, PLACE.id, FIRST, host=SOURCE.id)
    assert handing.take_back(fleet, PLACE.id, FIRST, host=SOURCE.id)
    with pytest.raises(Conflict, match="taken back"):
        handing.hand_over(fleet, PLACE.id, FIRST, THERE)
    # Nor by a late hand-over of the first move, while another is under way.
    handing.begin(fleet, PLACE.id, SECOND, host=SOURCE.id)
    with pytest.raises(Conflict, match="taken back"):
        handing.hand_over(fleet, PLACE.id, FIRST, THERE)
    assert handing.take_back(fleet, PLACE.id, FIRST, host=SOURCE.id)
    assert handing.hand_over(fleet, PLACE.id, SECOND, THERE).host == TARGET.id
    assert sums(fleet) == [(0, 0), (150, 1)]


def test_one_move_at_a_time_and_of_the_host_that_has_it(fleet: FleetState) -> None:
    with pytest.raises(Conflict, match="cannot be moved now"):
        handing.begin(fleet, PLACE.id, FIRST, host=TARGET.id)
    handing.begin(fleet, PLACE.id, FIRST, host=SOURCE.id)
    with pytest.raises(Conflict, match="moving"):
        handing.begin(fleet, PLACE.id, SECOND, host=SOURCE.id)


def test_nobody_moves_to_a_host_that_has_left(fleet: FleetState) -> None:
    handing.begin(fleet, PLACE.id, FIRST, host=SOURCE.id)
    fleet.leave(TARGET.id)
    with pytest.raises(NotFound, match="not in the fleet any more"):
        handing.hand_over(fleet, PLACE.id, FIRST, THERE)
    assert handing.take_back(fleet, PLACE.id, FIRST, host=SOURCE.id)
    with pytest.raises(NotFound, match="not in the fleet any more"):
        handing.begin(fleet, PLACE.id, SECOND, host=SOURCE.id)
    assert not handing.take_back(fleet, "0" * 32, FIRST, host=SOURCE.id)


def test_handing_over_and_taking_back_at_once_come_to_one_answer(fleet: FleetState) -> None:
    for number in range(20):
        leaving = Leaving(move=f"{number:032x}", target=TARGET.id, ran=True)
        handing.begin(fleet, PLACE.id, leaving, host=SOURCE.id)
        handed: list[bool] = []

        def hand(leaving: Leaving = leaving, handed: list[bool] = handed) -> None:
            try:
                handing.hand_over(fleet, PLACE.id, leaving, THERE)
                handed.append(True)
            except Conflict:
                handed.append(False)

        thread = threading.Thread(target=hand)
        thread.start()
        stays = handing.take_back(fleet, PLACE.id, leaving, host=SOURCE.id)
        thread.join()
        assert handed == [not stays]
        if not stays:
            back = Leaving(move="c" * 32, target=SOURCE.id, ran=True)
            handing.begin(fleet, PLACE.id, back, host=TARGET.id)
            handing.hand_over(fleet, PLACE.id, back, Amounts(memory=100))
    assert sums(fleet) == [(100, 1), (0, 0)]
