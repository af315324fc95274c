"""A fleet's records: who is in it, what is where, and that no two can be given the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict, HostError, NotFound, Unauthorized
from bulkhead.fleet import Fleet, Host, Invitation, Machine, Phase, Place
from bulkhead.model import Isolation
from bulkhead.store.base import Store
from bulkhead.store.fleet import FleetState, Stale, pick_host
from bulkhead.store.sqlite import SQLiteStore

MACHINE = Machine(cores=2, ghz=2.0, memory=1 << 33, kernel="6.1", architecture="x86_64", version="0")
FLEET = Fleet(id="f" * 32, name="lab", created=0.0, certificate="PEM", key="KEY")


def host(number: int, **fields: object) -> Host:
    made = Host(id=f"{number:032x}", name=f"host{number}", address=f"10.0.0.{number}:1", joined=0.0, machine=MACHINE)
    return made.model_copy(update=fields)


def place(number: int, *, on: Host, name: str = "", memory: int = 100, tenant: str = "default") -> Place:
    return Place(
        id=f"{number:032x}",
        name=name or f"instance{number}",
        tenant=tenant,
        host=on.id,
        level=Isolation.CONTAINER,
        amounts={"memory": memory},
        until=time.time() + 60,
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FleetState]:
    store = SQLiteStore(tmp_path / "fleet.db")
    made = FleetState(store)
    made.found(FLEET, host(1))
    yield made
    store.close()


def joined(state: FleetState, number: int) -> Host:
    state.invite(f"hash{number}", Invitation(until=10.0, by="root"))
    state.join(f"hash{number}", host(number), now=1.0)
    return host(number)


def test_there_is_one_fleet(state: FleetState) -> None:
    with pytest.raises(Conflict, match="there is a fleet already: lab"):
        state.found(FLEET.model_copy(update={"name": "other"}), host(2))
    assert state.fleet() == FLEET
    assert [each.name for each in state.hosts()] == ["host1"]


def test_an_invitation_is_good_once_and_for_a_while(state: FleetState) -> None:
    state.invite("hash", Invitation(until=10.0, by="root"))
    for wrong, now in (("other", 1.0), ("hash", 10.0)):
        with pytest.raises(Unauthorized, match="is not good"):
            state.join(wrong, host(2), now=now)
    state.join("hash", host(2), now=9.0)
    with pytest.raises(Unauthorized, match="is not good"):
        state.join("hash", host(3), now=9.0)
    assert [each.name for each in state.hosts()] == ["host1", "host2"]


@pytest.mark.parametrize(
    ("same", "words"),
    [
        ({"name": "host1"}, "a host host1 already"),
        ({"address": "10.0.0.1:1"}, "has the address"),
        ({"id": host(1).id}, "a host with id"),
    ],
)
def test_a_host_that_clashes_does_not_join_and_its_invitation_stays(
    state: FleetState, same: dict[str, object], words: str
) -> None:
    state.invite("hash", Invitation(until=10.0, by="root"))
    with pytest.raises(Conflict, match=words):
        state.join("hash", host(2, **same), now=1.0)
    state.join("hash", host(2), now=1.0)


def test_a_place_is_taken_by_the_version_that_was_scored(state: FleetState) -> None:
    first = host(1)
    state.reserve(place(1, on=first), scored=0)
    with pytest.raises(Stale):
        state.reserve(place(2, on=first), scored=0)
    version = state.seen_sold(first.id).version
    state.reserve(place(2, on=first, memory=50), scored=version)
    sold = state.seen_sold(first.id)
    assert (sold.amounts, sold.places) == (Amounts(memory=150), 2)
    state.release(place(1, on=first).id)
    assert state.seen_sold(first.id).amounts == Amounts(memory=50)
    assert not state.release(place(1, on=first).id)
    assert state.seen_sold(first.id).amounts == Amounts(memory=50)


def test_a_name_is_one_instance_s_in_the_whole_fleet(state: FleetState) -> None:
    second = joined(state, 2)
    state.reserve(place(1, on=host(1), name="web"), scored=0)
    with pytest.raises(Conflict, match="the name web is taken"):
        state.reserve(place(2, on=second, name="web"), scored=0)
    assert state.seen_sold(second.id).places == 0
    state.reserve(place(3, on=second, name="web", tenant="acme"), scored=0)
    found = state.find("web", tenant="acme")
    assert found is not None
    assert found.id == place(3, on=second).id
    assert state.find("acme@web", tenant=None) == found
    assert state.find("web", tenant="other") is None
    assert state.find(found.id, tenant="other") is None
    assert state.find(found.id, tenant="acme") == found
    with pytest.raises(Conflict, match="2 ids"):
        state.find(found.id[:31], tenant=None)


def test_nothing_is_placed_on_a_host_that_has_left_and_none_leaves_that_has_something(state: FleetState) -> None:
    second = joined(state, 2)
    state.reserve(place(1, on=second), scored=0)
    with pytest.raises(Conflict, match="1 instances are placed on this host: instance1"):
        state.leave(second.id)
    state.release(place(1, on=second).id)
    state.leave(second.id)
    state.leave(second.id)
    with pytest.raises(NotFound, match="is not in the fleet"):
        state.reserve(place(2, on=second), scored=0)
    with pytest.raises(NotFound):
        state.change_host(second.id, lambda each: each)


def test_the_last_host_takes_the_fleet_with_it(state: FleetState) -> None:
    state.leave(host(1).id)
    with pytest.raises(NotFound, match="no such fleet"):
        state.fleet()
    state.found(FLEET, host(1))


def test_a_place_that_another_host_has_is_neither_adopted_nor_given_back(state: FleetState) -> None:
    second = joined(state, 2)
    state.reserve(place(1, on=second), scored=0)
    assert not state.adopt(place(1, on=host(1)))
    assert not state.release(place(1, on=second).id, host=host(1).id)
    assert not state.adopt(place(2, on=host(1), name="instance1"))
    assert state.seen_sold(host(1).id).places == 0
    assert state.adopt(place(3, on=host(1)))
    assert state.adopt(place(3, on=host(1)))
    assert state.seen_sold(host(1).id).places == 1


def test_what_is_confirmed_and_resized_stays_so(state: FleetState) -> None:
    state.reserve(place(1, on=host(1)), scored=0)
    state.confirm(place(1, on=host(1)).id)
    state.resize(place(1, on=host(1)).id, Amounts(memory=300))
    state.resize("e" * 32, Amounts(memory=300))
    (found,) = state.seen().places
    assert (found.phase, found.until, found.amounts["memory"]) == (Phase.PLACED, 0.0, 300)
    assert state.seen_sold(host(1).id).amounts == Amounts(memory=300)
    with pytest.raises(NotFound):
        state.confirm("e" * 32)


def test_placers_that_race_never_sell_more_than_they_saw(state: FleetState) -> None:
    """Each looks, sees room for one, and reserves by the version that it saw."""
    first, room, taken, guard = host(1), 10, [], threading.Lock()

    def placer(number: int) -> None:
        for attempt in range(200):
            sold = state.seen_sold(first.id)
            if sold.places >= room:
                return
            try:
                state.reserve(place(number * 1000 + attempt, on=first), scored=sold.version)
            except Stale:
                continue
            with guard:
                taken.append(number)

    threads = [threading.Thread(target=placer, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == room
    assert state.seen_sold(first.id).places == room


def test_a_host_is_found_by_name_by_id_and_by_the_beginning_of_one() -> None:
    hosts = [host(1), host(2), host(3, id="abcd" * 8)]
    assert pick_host(hosts, "host2").id == host(2).id
    assert pick_host(hosts, "abcd").name == "host3"
    with pytest.raises(Conflict, match="2 hosts' ids"):
        pick_host(hosts, "0000")
    with pytest.raises(NotFound, match="no such host: hots1") as wrong:
        pick_host(hosts, "hots1")
    assert "host1" in wrong.value.hint


class Said:
    """A store in which there is one record, with this text."""

    def __init__(self, kind: str, text: str) -> None:
        self._kind, self._text = kind, text

    @contextmanager
    def read(self, *, stale: bool) -> Iterator[Said]:
        assert not stale
        yield self

    def get(self, kind: str, _: str) -> str | None:
        return self._text if kind == self._kind else None

    def list(self, kind: str, _: str = "") -> list[tuple[str, str]]:
        return [("a" * 32, self._text)] if kind == self._kind else []


@given(
    st.sampled_from(["sold", "place", "host", "fleet"]),
    st.one_of(
        st.sampled_from(["", "5", "[]", "{}", "nul", '{"amounts": 5}', '{"amounts": {"memory": "x"}, "places": 0}']),
        st.recursive(st.none() | st.integers() | st.text(max_size=4), st.lists, max_leaves=4).map(json.dumps),
        st.fixed_dictionaries({"amounts": st.dictionaries(st.text(max_size=3), st.integers())}).map(json.dumps),
    ),
)
def test_no_record_of_another_host_breaks_who_reads_it(kind: str, text: str) -> None:
    """It is told as what it is, so that all who look again and again go on."""
    with pytest.raises(HostError, match="cannot be read"):
        FleetState(cast(Store, Said(kind, text))).read_all()


@pytest.mark.parametrize("amounts", [{"memory": -1}, {"memory": 1 << 63}, {"sheep": 1}, {"memory": 1.5}])
def test_what_a_place_takes_is_some_of_what_hosts_have(amounts: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Place(id="a" * 32, name="x", tenant="default", host="b" * 32, level=Isolation.VM, amounts=amounts)  # type: ignore[arg-type]
