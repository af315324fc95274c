"""The state: names, leases and lookups, one transaction each."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkhead import model
from bulkhead.config import Config
from bulkhead.errors import Conflict, HostError, NotFound, Refused
from bulkhead.model import Instance, Isolation, NamedPlan, Network, Plan, PortMapping, Spec, Volume
from bulkhead.store import State, leases, open_state
from bulkhead.store.leases import ADDRESS, PORT

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


def port(number: int, host_ip: str = "", protocol: str = "tcp") -> PortMapping:
    return PortMapping.model_validate({"host_ip": host_ip, "host_port": number, "port": 80, "protocol": protocol})


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


def test_addresses_are_leased_per_network(state: State) -> None:
    assert state.lease_address("a", "default", ["10.0.0.2", "10.0.0.3"]) == "10.0.0.2"
    assert state.lease_address("b", "default", ["10.0.0.2", "10.0.0.3"]) == "10.0.0.3"
    assert state.lease_address("b", "other", ["10.0.0.2"]) == "10.0.0.2"
    assert state.addresses_in_use("default") == {"10.0.0.2", "10.0.0.3"}
    with pytest.raises(Conflict, match=r"no address is free in network default \(2 tried\)"):
        state.lease_address("c", "default", ["10.0.0.2", "10.0.0.3"])
    state.release("a", ADDRESS)
    state.release("a", ADDRESS)
    assert state.addresses_in_use("default") == {"10.0.0.3"}
    assert state.lease_address("c", "default", ["10.0.0.2"]) == "10.0.0.2"


def test_one_address_has_one_form(state: State) -> None:
    state.lease_address("a", "default", ["fd42::0002"])
    with pytest.raises(Conflict):
        state.lease_address("b", "default", ["fd42:0::2"])


@pytest.mark.parametrize(
    ("held", "asked", "clash"),
    [
        (port(80), port(80), True),
        (port(80), port(81), False),
        (port(80), port(80, protocol="udp"), False),
        (port(80), port(80, "127.0.0.1"), True),
        (port(80, "127.0.0.1"), port(80), True),
        (port(80, "127.0.0.1"), port(80, "127.0.0.2"), False),
        (port(80, "127.0.0.1"), port(80, "::1"), False),
        (port(80, "0.0.0.0"), port(80, "127.0.0.1"), True),
        (port(80, "0.0.0.0"), port(80, "::1"), False),
        (port(80, "::1"), port(80, "0:0:0:0:0:0:0:1"), True),
        (port(80, "::"), port(80, "::1"), True),
        (port(8), port(80), False),
    ],
)
def test_ports_overlap_as_sockets_do(state: State, held: PortMapping, asked: PortMapping, clash: bool) -> None:
    state.reserve_instance(instance(1, "web"))
    state.lease_ports(instance(1).spec.id, [held])
    state.lease_ports(instance(1).spec.id, [held])
    if clash:
        with pytest.raises(Conflict, match=f"{asked.host_port}/{asked.protocol} is taken by instance web"):
            state.lease_ports("other", [asked])
    else:
        state.lease_ports("other", [asked])


def test_all_taken_ports_are_named_and_none_is_leased(state: State) -> None:
    state.reserve_instance(instance(1, "web"))
    state.lease_ports(instance(1).spec.id, [port(80), port(443)])
    with pytest.raises(Conflict, match="80/tcp is taken by instance web; port 443/tcp is taken by instance web"):
        state.lease_ports("other", [port(80), port(8080), port(443)])
    state.lease_ports("third", [port(8080)])
    state.release(instance(1).spec.id, PORT)
    state.lease_ports("other", [port(80), port(443)])


def test_the_same_port_twice_in_one_request(state: State) -> None:
    with pytest.raises(Conflict, match=r"port 127.0.0.1:80/tcp is asked for twice"):
        state.lease_ports("a", [port(80), port(80, "127.0.0.1")])


def test_a_host_address_that_is_none(state: State) -> None:
    with pytest.raises(Refused) as caught:
        state.lease_ports("a", [port(80, "localhost"), port(81, "1.2.3")])
    assert len(caught.value.problems) == 2


def test_remove_drops_every_lease(state: State) -> None:
    one = state.reserve_instance(instance(1), uid_range=True)
    state.lease_address(one.spec.id, "default", ["10.0.0.2"])
    state.lease_ports(one.spec.id, [port(80)])
    state.remove(one.spec.id)
    with state.atomic() as transaction:
        for kind in ("instance", "instance-name", "uid-range", "address", "port", "leases"):
            assert transaction.list(kind) == []


def test_a_failure_in_the_middle_leases_nothing(state: State) -> None:
    with pytest.raises(Conflict), state.atomic():
        one = state.reserve_instance(instance(1, "web"), uid_range=True)
        state.lease_address(one.spec.id, "default", ["10.0.0.2"])
        state.reserve_instance(instance(2, "web"))
    assert state.instances() == []
    assert state.addresses_in_use("default") == set()
    assert state.lease_uid_range("x") == BASE


def test_threads_never_share_a_lease(state: State) -> None:
    found: list[tuple[int, str]] = []
    addresses = [f"10.0.0.{number}" for number in range(2, 255)]

    def lease(who: int) -> None:
        for number in range(10):
            holder = f"{who}-{number}"
            found.append((state.lease_uid_range(holder), state.lease_address(holder, "default", addresses)))

    threads = [threading.Thread(target=lease, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({uid for uid, _ in found}) == len({address for _, address in found}) == 60


_ports = st.lists(
    st.builds(
        port,
        st.integers(80, 83),
        st.sampled_from(["", "0.0.0.0", "127.0.0.1", "10.0.0.1", "::", "::1"]),
        st.sampled_from(["tcp", "udp"]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(_ports, max_size=8))
def test_no_two_holders_ever_take_the_same_packets(state: State, requests: list[list[PortMapping]]) -> None:
    held: dict[str, list[PortMapping]] = {}
    for number, ports in enumerate(requests):
        try:
            state.lease_ports(f"{number}", ports)
            held[f"{number}"] = ports
        except Conflict:
            pass
    listeners = [(port_, who) for who, ports in held.items() for port_ in ports]
    for target in ("127.0.0.1", "10.0.0.1", "10.9.9.9", "::1", "fd00::1"):
        for number in range(80, 84):
            for protocol in ("tcp", "udp"):
                takers = [who for port_, who in listeners if _takes(port_, target, number, protocol)]
                assert len(takers) <= 1
    for number in range(len(requests)):
        state.release(f"{number}")


def _takes(mapping: PortMapping, target: str, number: int, protocol: str) -> bool:
    if (mapping.host_port, mapping.protocol) != (number, protocol):
        return False
    everyone = {"", "::" if ":" in target else "0.0.0.0"}
    return mapping.host_ip in everyone or mapping.host_ip == target


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
    assert state.ensure_volume(volume) == volume
    assert state.ensure_volume(Volume(name="data", size=2 << 30)) == volume
    with pytest.raises(Conflict):
        state.create_volume(volume)
    assert state.volumes() == [volume]
    assert state.volume("data") == volume
    assert state.delete_volume("data")


@pytest.mark.parametrize("lookup", [State.plan, State.network, State.volume])
def test_a_hint_where_nothing_looks_alike(state: State, lookup: Callable[[State, str], object]) -> None:
    with pytest.raises(NotFound) as caught:
        lookup(state, "zzz")
    assert caught.value.hint.startswith("see: bulkhead ")
