"""A fleet's networks in its store: no two instances have the same address or port, and what is given stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict, NotFound
from bulkhead.fleet import Fleet, Host, Invitation, Machine, Phase, Place, Presence, Present
from bulkhead.model import Isolation, Network, PortMapping
from bulkhead.moves import Leaving
from bulkhead.overlay import Endpoint, Overlay
from bulkhead.store import handing, overlays, reserving
from bulkhead.store.fleet import FleetState
from bulkhead.store.overlays import Occupied
from bulkhead.store.sqlite import SQLiteStore

MACHINE = Machine(cores=2, ghz=2.0, memory=1 << 33, kernel="6.1", architecture="x86_64", version="0")
FLEET = Fleet(id="f" * 32, name="lab", created=0.0, certificate="PEM", key="KEY")
OVERLAY = Overlay(vni=5000, mtu=1450, encrypted=False)
MESH = Network(name="mesh", id="00001388", subnet4="10.9.0.0/29", subnet6="fd09::/64", overlay=OVERLAY)
WEB = PortMapping(host_port=8080, port=80)


def host(number: int) -> Host:
    return Host(id=f"{number:032x}", name=f"host{number}", address=f"10.0.0.{number}:1", joined=0.0, machine=MACHINE)


def place(number: int, *, on: int = 1, **fields: object) -> Place:
    made = Place(
        id=f"{number:032x}",
        name=f"instance{number}",
        tenant="default",
        host=host(on).id,
        level=Isolation.CONTAINER,
        amounts={"memory": 1},
        until=time.time() + 60,
        network=MESH.key,
    )
    return made.model_copy(update=fields)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FleetState]:
    made = FleetState(SQLiteStore(tmp_path / "fleet.db"))
    made.found(FLEET, host(1))
    made.invite("hash", Invitation(until=10.0, by="root"))
    made.join("hash", host(2), now=1.0)
    overlays.create(made.store, MESH)
    yield made
    made.store.close()


def reserve(state: FleetState, wanted: Place) -> Place:
    return state.reserve(wanted, scored=state.seen_sold(wanted.host).version)


def endpoint(which: int, **fields: object) -> Endpoint:
    made = Endpoint(host=host(which).id, number=which, address=f"10.0.0.{which}", mtu=1500)
    return made.model_copy(update=fields)


def test_every_instance_gets_another_address_until_there_is_none(state: FleetState) -> None:
    given = [reserve(state, place(number)).ipv4 for number in range(5)]
    assert sorted(given) == [f"10.9.0.{number}" for number in range(2, 7)]
    with pytest.raises(Occupied, match=r"all 5 of 10\.9\.0\.0/29 are in use"):
        reserve(state, place(5))
    assert state.find("instance5", tenant=None) is None
    state.release(place(3).id)
    assert reserve(state, place(5)).ipv4 == given[3]


def test_those_who_ask_at_the_same_time_get_different_ones(state: FleetState) -> None:
    wide = MESH.model_copy(update={"name": "wide", "id": "00001389", "subnet4": "10.10.0.0/24", "subnet6": "fd10::/64"})
    overlays.create(state.store, wide.model_copy(update={"overlay": OVERLAY.model_copy(update={"vni": 5001})}))
    given: list[str] = []

    def ask(start: int) -> None:
        for number in range(start, start + 20):
            place_ = place(number, network="wide")
            while True:
                try:
                    given.append(reserve(state, place_).ipv4)
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=ask, args=(start,)) for start in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == len(given) == 80


def test_whose_port_it_is_is_told_to_that_tenant_alone(state: FleetState) -> None:
    reserve(state, place(1, ports=(WEB,)))
    with pytest.raises(Occupied, match="published by instance1, on every host"):
        reserve(state, place(2, ports=(WEB,)))
    with pytest.raises(Occupied, match="published by another instance, on every host"):
        reserve(state, place(3, ports=(WEB,), tenant="acme"))


def test_it_stays_with_what_moves(state: FleetState) -> None:
    given = reserve(state, place(1, ports=(WEB,)))
    state.confirm(given.id)
    leaving = Leaving(move="a" * 32, target=host(2).id, ran=True)
    handing.begin(state, given.id, leaving, host=host(1).id)
    after = handing.hand_over(state, given.id, leaving, Amounts())
    assert (after.host, after.ipv4, after.ports) == (host(2).id, given.ipv4, (WEB,))
    with pytest.raises(Occupied, match="port 8080/tcp is published by instance1, on every host"):
        reserve(state, place(2, ports=(WEB,)))
    state.release(given.id)
    assert reserve(state, place(2, ports=(WEB,))).ports == (WEB,)


def test_what_is_stated_anew_keeps_what_it_has(state: FleetState) -> None:
    given = reserve(state, place(1, ports=(WEB,)))
    stated = reserving.restate(state, given, place(9, name="instance1", ports=(WEB,)))
    assert (stated.id, stated.ipv4) == (place(9).id, given.ipv4)
    with pytest.raises(Occupied, match="published by instance1"):
        reserve(state, place(2, ports=(WEB,)))
    assert reserving.expire(state, stated)
    assert reserve(state, place(2, ports=(WEB,))).ports == (WEB,)
    assert state.store.attempt(lambda each: each.list(overlays.ADDRESS))[0][1] == f'"{place(2).id}"'


def test_what_a_host_has_without_the_fleet_s_record_keeps_its_address(state: FleetState) -> None:
    adopted = place(1, ipv4="10.9.0.4", phase=Phase.PLACED, until=0.0)
    assert state.adopt(adopted)
    with pytest.raises(Occupied, match=r"10\.9\.0\.4"):
        state.adopt(place(2, ipv4="10.9.0.4", phase=Phase.PLACED, until=0.0))
    assert state.find("instance2", tenant=None) is None


def test_a_network_is_one_of_its_name_number_and_subnets(state: FleetState) -> None:
    assert overlays.find(state.store, "mesh") == MESH
    with pytest.raises(Conflict, match=r"has a network mesh already.*overlaps 10\.9\.0\.0/29"):
        overlays.create(state.store, MESH)
    numbered = {"name": "more", "subnet4": "10.21.0.0/24", "subnet6": "fd21::/64"}
    with pytest.raises(Conflict, match="has the same number"):
        overlays.create(state.store, MESH.model_copy(update={**numbered, "id": "00001400"}))
    sealed = Overlay(vni=5002, mtu=1450, encrypted=True)
    other = Network(
        name="own",
        id="0000138a",
        subnet4="10.20.0.0/24",
        subnet6="fd20::/64",
        overlay=sealed,
    )
    known = endpoint(2, networks=("own",), taken={"10.20.0.0/16": "network lan"})
    overlays.publish(state.store, known.host, lambda _: known)
    with pytest.raises(Conflict, match=r"has a network own.*overlaps 10\.20\.0\.0/16 \(network lan, on host"):
        overlays.create(state.store, other)
    overlays.publish(state.store, known.host, lambda _: endpoint(2))
    overlays.create(state.store, other)


def test_a_network_that_is_in_use_stays(state: FleetState) -> None:
    reserve(state, place(1))
    with pytest.raises(Conflict, match="1 instances are on network mesh: instance1"):
        overlays.remove(state.store, "mesh")
    state.release(place(1).id)
    overlays.remove(state.store, "mesh")
    with pytest.raises(NotFound):
        overlays.remove(state.store, "mesh")
    with pytest.raises(Occupied, match="the fleet has no network mesh"):
        reserve(state, place(1))


def test_every_host_has_a_number_for_as_long_as_it_is_in_the_fleet(state: FleetState) -> None:
    one = overlays.publish(state.store, host(1).id, lambda number: endpoint(1, number=number))
    two = overlays.publish(state.store, host(2).id, lambda number: endpoint(2, number=number))
    assert (one.number, two.number) == (1, 2)
    assert overlays.publish(state.store, host(2).id, lambda number: endpoint(2, number=number, mtu=9000)).number == 2
    running = Present(id="1" * 32, network="mesh", ipv4="10.9.0.2", names=("one",))
    for number in (1, 2):
        overlays.tell(state.store, Presence(host=host(number).id, instances=(running,)))
    state.store.attempt(lambda each: each.put("alive", host(2).id, "0"))
    assert [each.host for each in overlays.seen(state.store).presences] == [host(2).id]
    state.leave(host(2).id)
    assert overlays.seen(state.store).endpoints == (one,)
    with pytest.raises(NotFound, match="is not in the fleet any more"):
        overlays.publish(state.store, host(2).id, lambda number: endpoint(2, number=number))
    overlays.tell(state.store, Presence(host=host(2).id))
    assert overlays.seen(state.store).presences == ()
