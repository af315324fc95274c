"""The state: names, leases and lookups, one transaction each."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkhead import model
from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, NotFound
from bulkhead.model import Instance, Isolation, NamedPlan, Network, Plan, Snapshot, Spec, Volume
from bulkhead.store import State, leases, open_state

BASE = 1_000_000_000
RANGE = model.UID_RANGE


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(Config(state_dir=tmp_path, uid_base=BASE))
    yield opened
    opened.close()


def instance(number: int, name: str = "", *, created: float = 0.0) -> Instance:
    spec = Spec(
        id=f"{number:032x}",
        name=name or f"i{number}",
        image="debian",
        image_digest="sha256:" + "0" * 64,
        isolation=Isolation.CONTAINER,
        plan=Plan(memory=512 << 20, cpus=2, disk=5 << 30),
        argv=("true",),
        hostname="h",
        network="default",
        created=created or float(number),
    )
    return Instance(spec=spec, state=model.State.CREATING)


# --- instances


def test_reserved_saved_found_removed(state: State) -> None:
    one = state.reserve_instance(instance(1, "web"), uid_range=True)
    assert one.uid_start == BASE
    assert state.get(one.spec.id) == one
    changed = one.model_copy(update={"state": model.State.RUNNING, "pid": 7})
    state.save(changed)
    assert state.find("web") == changed
    state.remove(one.spec.id)
    state.remove(one.spec.id)
    with pytest.raises(NotFound):
        state.get(one.spec.id)
    assert state.instances() == []


def test_a_taken_name_is_a_conflict_and_changes_nothing(state: State) -> None:
    first = state.reserve_instance(instance(1, "web"), uid_range=True)
    with pytest.raises(Conflict, match="the name web is taken") as caught:
        state.reserve_instance(instance(2, "web"), uid_range=True)
    assert "bulkhead rm web" in caught.value.hint
    assert state.instances() == [first]
    assert state.lease_uid_range("x") == BASE + RANGE


def test_a_name_is_free_again_after_the_removal(state: State) -> None:
    state.reserve_instance(instance(1, "web"))
    state.remove(instance(1).spec.id)
    assert state.reserve_instance(instance(2, "web")).spec.name == "web"


def test_what_was_removed_cannot_be_saved(state: State) -> None:
    one = state.reserve_instance(instance(1, "web"))
    state.remove(one.spec.id)
    with pytest.raises(NotFound, match=r"web .* has been removed"):
        state.save(one)


def test_find_by_id_name_and_unique_prefix(state: State) -> None:
    one = state.reserve_instance(instance(0xABCD << 112, "web"))
    two = state.reserve_instance(instance((0xABCD << 112) + (1 << 100), "abcd"))
    assert state.find(one.spec.id) == one
    assert state.find("abcd") == two, "a name goes before the beginning of an id"
    assert state.find(two.spec.id[:12]) == two
    state.remove(two.spec.id)
    assert state.find("abcd") == one


def test_an_ambiguous_prefix_names_them(state: State) -> None:
    state.reserve_instance(instance(0xABCD << 112))
    state.reserve_instance(instance((0xABCD << 112) + 1))
    with pytest.raises(Conflict, match="beginning of 2 ids: abcd00000000, abcd00000000"):
        state.find("abcd")


def test_not_found_names_what_looks_alike(state: State) -> None:
    state.reserve_instance(instance(1, "webserver"))
    with pytest.raises(NotFound, match="no such instance: websrever") as caught:
        state.find("websrever")
    assert caught.value.hint == "did you mean webserver?"
    with pytest.raises(NotFound) as caught:
        state.find("database")
    assert caught.value.hint == "see: bulkhead ps -a"


@pytest.mark.parametrize("reference", ["", "%", "a' OR 1=1 --", "../x", "\0", "é" * 1000])
def test_odd_references_are_not_found(state: State, reference: str) -> None:
    state.reserve_instance(instance(1))
    with pytest.raises(NotFound):
        state.find(reference)


def test_instances_are_listed_the_oldest_first(state: State) -> None:
    for number, created in ((1, 30.0), (2, 10.0), (3, 20.0)):
        state.reserve_instance(instance(number, created=created))
    assert [found.spec.created for found in state.instances()] == [10.0, 20.0, 30.0]


def test_an_instance_is_parsed_once(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.reserve_instance(instance(1))
    first = state.instances()[0]
    assert state.instances()[0] is first
    assert state.find("i1") is first
    changed = first.model_copy(update={"pid": 3})
    state.save(changed)
    assert state.find("i1") == changed


def test_what_another_process_wrote_is_seen(tmp_path: Path, state: State) -> None:
    one = state.reserve_instance(instance(1))
    other = open_state(Config(state_dir=tmp_path))
    other.save(one.model_copy(update={"pid": 99}))
    other.close()
    assert state.get(one.spec.id).pid == 99


def test_what_was_rolled_back_is_not_seen(state: State) -> None:
    one = state.reserve_instance(instance(1))
    with pytest.raises(KeyError), state.atomic():
        state.save(one.model_copy(update={"pid": 99}))
        assert state.get(one.spec.id).pid == 99
        raise KeyError
    assert state.get(one.spec.id) == one


def test_a_record_of_a_newer_version_is_reported(tmp_path: Path, state: State) -> None:
    one = state.reserve_instance(instance(1))
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE record SET value = json_set(value, '$.colour', 'red') WHERE kind = 'instance'")
    connection.close()
    with pytest.raises(HostError, match="colour: Extra inputs") as caught:
        state.get(one.spec.id)
    assert "newer" in caught.value.hint


# --- leases


def test_the_lowest_free_uid_range_is_leased(state: State) -> None:
    assert [state.lease_uid_range(f"i{number}") for number in range(3)] == [BASE, BASE + RANGE, BASE + 2 * RANGE]
    assert state.lease_uid_range("i1") == BASE + RANGE, "asking again gives the same"
    state.remove("i1")
    assert state.lease_uid_range("new") == BASE + RANGE
    assert state.lease_uid_range("next") == BASE + 3 * RANGE


def test_uids_run_out(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LAST_UID", BASE + 2 * RANGE - 1)
    assert [state.lease_uid_range("a"), state.lease_uid_range("b")] == [BASE, BASE + RANGE]
    with pytest.raises(Conflict, match="no 65536 uids are free"):
        state.lease_uid_range("c")


def test_remove_drops_every_lease(state: State) -> None:
    one = state.reserve_instance(instance(1), uid_range=True)
    state.remove(one.spec.id)
    with state.atomic() as transaction:
        for kind in ("instance", "instance-name", "uid-range", "address", "port", "leases"):
            assert transaction.list(kind) == []


def test_a_failure_in_the_middle_leases_nothing(state: State) -> None:
    with pytest.raises(Conflict), state.atomic():
        state.reserve_instance(instance(1, "web"), uid_range=True)
        state.reserve_instance(instance(2, "web"))
    assert state.instances() == []
    assert state.lease_uid_range("x") == BASE


def test_threads_never_share_a_lease(state: State) -> None:
    found: list[int] = []

    def lease(who: int) -> None:
        for number in range(10):
            found.append(state.lease_uid_range(f"{who}-{number}"))

    threads = [threading.Thread(target=lease, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 60


# --- plans, networks, volumes


def test_plans(state: State) -> None:
    small = NamedPlan(name="small", plan=Plan(memory=64 << 20, cpus=1, disk=1 << 30))
    state.create_plan(small)
    with pytest.raises(Conflict, match="plan small exists"):
        state.create_plan(small)
    state.save_plan(small.model_copy(update={"plan": Plan(memory=128 << 20, cpus=1, disk=1 << 30)}))
    assert state.plan("small").plan.memory == 128 << 20
    assert [plan.name for plan in state.plans()] == ["small"]
    with pytest.raises(NotFound, match="no such plan: smal") as caught:
        state.plan("smal")
    assert caught.value.hint == "did you mean small?"
    assert state.delete_plan("small")
    assert not state.delete_plan("small")


def test_networks(state: State) -> None:
    network = Network(name="blue", id="00000001", subnet4="10.144.0.0/24", subnet6="fd42::/64")
    state.create_network(network)
    assert state.network("blue") == network
    assert state.networks() == [network]
    assert state.delete_network("blue")


def test_volumes(state: State) -> None:
    volume = Volume(name="data", size=1 << 30)
    state.create_volume(volume)
    with pytest.raises(Conflict):
        state.create_volume(volume)
    assert state.volumes() == [volume]
    assert state.volume("data") == volume
    assert state.delete_volume("data")


def test_snapshots(state: State) -> None:
    one, two = (instance(number) for number in (1, 2))
    made = [
        Snapshot(id=f"{number:032x}", name=name, spec=of.spec, created=float(number))
        for number, (of, name) in enumerate([(two, "b"), (one, "b"), (one, "a")])
    ]
    for snapshot in made:
        state.create_snapshot(snapshot)
    with pytest.raises(Conflict, match="snapshot i1/a exists"):
        state.create_snapshot(made[2].model_copy(update={"id": "f" * 32}))
    assert state.snapshots() == made
    assert [snapshot.reference for snapshot in state.snapshots(one.spec.id)] == ["i1/b", "i1/a"]
    ready = made[1].model_copy(update={"state": "ready"})
    state.save_snapshot(ready)
    assert state.snapshots(one.spec.id) == [ready, made[2]]
    for _ in range(2):
        state.delete_snapshot(made[2])
    assert state.snapshots(one.spec.id) == [ready]


@pytest.mark.parametrize("lookup", [State.plan, State.network, State.volume])
def test_a_hint_where_nothing_looks_alike(state: State, lookup: Callable[[State, str], object]) -> None:
    with pytest.raises(NotFound) as caught:
        lookup(state, "zzz")
    assert caught.value.hint.startswith("see: bulkhead ")
