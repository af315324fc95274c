"""A host is emptied: what one host refuses the next best one is asked for; what none takes stays with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bulkhead.engine.fleet.emptying import MOST_ASKED, empty
from bulkhead.engine.fleet.identity import Coordinates, Identity, Opened
from bulkhead.errors import HostRefused, NotMoved
from bulkhead.events import Progress, quiet
from bulkhead.fleet import Phase, Place
from bulkhead.model import Instance, Isolation
from bulkhead.moves import Drained, Moved
from bulkhead.store.base import Transaction
from bulkhead.store.fleet import FleetState
from bulkhead.store.seen import ALIVE
from bulkhead.store.sqlite import SQLiteStore
from tests.unit.engine.test_fleet_balancing import FLEET, GIB, host


@dataclass
class Estate:
    """The first host has two instances, the others may refuse them."""

    state: FleetState
    count: int
    closed: dict[int, Exception] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def carry(self, instance: str, target: str, progress: Progress) -> Moved:
        name = next(each.name for each in self.state.hosts() if each.id == target)
        place = next(each for each in self.state.seen().places if each.id == instance)
        self.asked.append((place.name, name))
        if error := self.closed.get(int(name.removeprefix("host"))):
            raise error
        self.state.release(instance, host=place.host)
        put(self.state, place.name, int(name.removeprefix("host")))
        return Moved(instance=Instance.model_construct(), source=Isolation.CONTAINER, downtime=0.5)

    def drain(self) -> Drained:
        store = Coordinates(endpoints=("http://127.0.0.1:1",))
        own = host(1)
        identity = Identity(fleet_id=FLEET.id, fleet="lab", id=own.id, name=own.name, address=own.address, store=store)
        opened = Opened(identity, self.state)
        return empty(opened, self.carry, {}, deadline=1e6, dry_run=False, progress=quiet)


def put(state: FleetState, name: str, number: int) -> None:
    amounts = {"memory": GIB, "cpu": 500_000, "disk": GIB}
    key = host(number).id
    made = Place(
        id=name.ljust(32, "0"), name=name, tenant="default", host=key, level=Isolation.CONTAINER, amounts=amounts
    )
    state.reserve(made.model_copy(update={"phase": Phase.RESERVED}), scored=state.seen_sold(key).version)
    state.confirm(made.id)


@pytest.fixture
def estate(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Estate]:
    """So many hosts, all of which live."""
    count = getattr(request, "param", 3)
    store = SQLiteStore(tmp_path / "fleet.db")
    state = FleetState(store)
    state.found(FLEET, host(1))

    def join(transaction: Transaction) -> None:
        for number in range(1, count + 1):
            transaction.put("host", host(number).id, host(number).model_dump_json())
            transaction.put(ALIVE, host(number).id, "0")

    store.attempt(join)
    for name in ("a", "b"):
        put(state, name, 1)
    yield Estate(state, count)
    store.close()


def test_what_one_host_refuses_goes_to_the_next_best(estate: Estate) -> None:
    estate.closed = {2: HostRefused("port 80 is taken there")}
    drained = estate.drain()
    assert {(each.name, each.host) for each in drained.went} == {("a", "host3"), ("b", "host3")}
    assert drained.stays == ()
    assert len(estate.asked) == len(set(estate.asked))
    assert ("a", "host2") in estate.asked or ("b", "host2") in estate.asked


def test_what_all_refuse_stays_with_what_each_has_said(estate: Estate) -> None:
    estate.closed = {2: HostRefused("port 80 is taken there"), 3: HostRefused("it has no such kernel")}
    drained = estate.drain()
    assert drained.went == ()
    assert {each.name for each in drained.stays} == {"a", "b"}
    for each in drained.stays:
        assert "host host2: port 80 is taken there" in each.reason
        assert "host host3: it has no such kernel" in each.reason
    assert len(estate.asked) == len(set(estate.asked)) == 4


def test_what_does_not_go_for_another_reason_is_asked_for_once(estate: Estate) -> None:
    estate.closed = {2: NotMoved("the link was cut"), 3: NotMoved("the link was cut")}
    drained = estate.drain()
    assert sorted(name for name, _ in estate.asked) == ["a", "b"]
    assert {each.reason for each in drained.stays} == {"the link was cut"}


@pytest.mark.parametrize("estate", [MOST_ASKED + 4], indirect=True)
def test_not_every_host_of_a_large_fleet_is_asked(estate: Estate) -> None:
    estate.closed = {number: HostRefused("no") for number in range(2, estate.count + 1)}
    drained = estate.drain()
    assert len(estate.asked) == 2 * MOST_ASKED
    assert len(drained.stays) == 2
