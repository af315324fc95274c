"""What a host says of its fleet while the fleet's store is silent."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from bulkhead.engine.fleet.identity import Coordinates, Identity, Opened
from bulkhead.engine.fleet.member import Member, View
from bulkhead.errors import Unavailable
from bulkhead.fleet import Fleet
from bulkhead.store.fleet import FleetState
from bulkhead.store.seen import Seen
from tests.unit.api.fakes import in_no_fleet

FLEET = Fleet(id="f" * 32, name="lab", created=0.0, certificate="PEM", key="KEY")
SEEN = Seen(fleet=FLEET, hosts=(), alive=frozenset(), places=(), sold={})
IDENTITY = Identity(
    fleet_id=FLEET.id,
    fleet="lab",
    id="1" * 32,
    name="alpha",
    address="10.0.0.1:1",
    store=Coordinates(endpoints=("x",)),
)


class Records:
    """Those of a fleet, whose store may be silent."""

    def __init__(self) -> None:
        self.silent, self.asked = False, 0

    def seen(self) -> Seen:
        self.asked += 1
        if self.silent:
            raise Unavailable("etcd does not answer")
        return SEEN


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def member(tmp_path: Path, records: Records) -> Member:
    made = in_no_fleet(tmp_path)
    made._opened = Opened(IDENTITY, cast(FleetState, records))
    return made


def test_the_fleet_is_told_as_it_was_seen_last_and_why(member: Member, records: Records) -> None:
    fresh = member.view()
    records.silent = True
    assert member.view() == View(SEEN, fresh.when, "etcd does not answer")


def test_a_store_that_is_known_to_be_silent_is_not_waited_for(member: Member, records: Records) -> None:
    fresh = member.view()
    member._silent = "etcd has not answered"
    assert member.view() == View(SEEN, fresh.when, "etcd has not answered")
    assert records.asked == 1


def test_what_was_never_seen_is_not_made_up(member: Member, records: Records) -> None:
    records.silent, member._silent = True, "etcd has not answered"
    with pytest.raises(Unavailable):
        member.view()
