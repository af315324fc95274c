"""The fleet's records as placement looks at them, and refusals as operators and tenants are told them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from bulkhead.amounts import Amounts
from bulkhead.cluster.placing import place as judge
from bulkhead.cluster.snapshot import Need, Wanted
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.placing import Order, no_room
from bulkhead.fleet import Fleet, Host, HostState, Level, Machine, Phase, Place
from bulkhead.model import Isolation, Plan
from bulkhead.store.fleet import Seen, Sold
from bulkhead.where import Where

FLEET = Fleet(id="f" * 32, name="lab", created=0.0, certificate="PEM", key="KEY")
GHZ = 1_000_000


def host(number: int, *, ghz: float = 2.0, **fields: object) -> Host:
    machine = Machine(cores=4, ghz=ghz, memory=1 << 34, kernel="6.1", architecture="x86_64", version="0")
    made = Host(
        id=f"{number:032x}",
        name=f"host{number}",
        address=f"10.0.0.{number}:1",
        joined=0.0,
        machine=machine,
        levels={Isolation.CONTAINER: Level(works=True), Isolation.VM: Level(works=False, reason="no QEMU")},
        sellable={"memory": 1000, "cpu": 8 * GHZ, "disk": 1000},
    )
    return made.model_copy(update=fields)


def placed(number: int, on: Host, **fields: object) -> Place:
    made = Place(
        id=f"{number:032x}",
        name=f"i{number}",
        tenant="default",
        host=on.id,
        level=Isolation.CONTAINER,
        amounts={"memory": 100, "cpu": GHZ},
        phase=Phase.PLACED,
    )
    return made.model_copy(update=fields)


def seen(*hosts: Host, places: tuple[Place, ...] = (), alive: bool = True) -> Seen:
    sold: dict[str, Sold] = {}
    for each in hosts:
        there = [Amounts(**place.amounts) for place in places if place.host == each.id]
        sold[each.id] = Sold(sum(there, Amounts()), len(there), 7)
    living = frozenset(each.id for each in hosts) if alive else frozenset[str]()
    return Seen(tuple(hosts), living, sold, places, FLEET)


def wanted(**fields: object) -> Wanted:
    made = Wanted(id="e" * 32, name="new", need=Need(Amounts(memory=100)))
    return replace(made, **fields)  # type: ignore[arg-type]


def test_a_host_is_seen_as_its_records_are() -> None:
    first, second = host(2, labels={"zone": "b"}), host(1, state=HostState.DRAINING)
    found = views.snapshot(seen(first, second, places=(placed(5, first),)))
    assert [each.name for each in found.hosts] == ["host1", "host2"]  # by id
    draining, ready = found.hosts
    assert (draining.state, ready.state, ready.version) == ("draining", "ready", 7)
    assert (ready.free.memory, ready.architecture, dict(ready.labels)) == (900, "amd64", {"zone": "b"})
    assert ready.abilities[Isolation.VM].reason == "no QEMU"
    assert [each.id for each in ready.instances] == [f"{5:032x}"]
    gone = views.snapshot(seen(first, second, alive=False), heard={first.id})
    assert [each.state for each in gone.hosts] == ["unreachable", "ready"]


def test_what_moves_takes_its_room_on_both_hosts() -> None:
    first, second = host(1), host(2)
    moving = placed(5, first, phase=Phase.MOVING, target=second.id)
    both = views.snapshot(seen(first, second, places=(moving,))).hosts
    assert [each.free.memory for each in both] == [900, 900]
    assert [len(each.instances) for each in both] == [1, 1]


def test_cores_of_another_speed_are_counted_by_what_they_do() -> None:
    """A host counts by the reference core itself: its factor is in its GHz, and in what it sells."""
    slower = {"memory": 1000, "cpu": 4 * GHZ, "disk": 1000}
    fast, slow = host(1), host(2, ghz=1.0, factor=0.5, sellable=slower)
    need = views.need_of(Plan(memory=100 << 20, cpus=2.0, disk=1 << 30, pids=10), Isolation.CONTAINER)
    assert [need.on(views.speed_of(each)).cpu for each in (fast, slow)] == [4 * GHZ, 2 * GHZ]
    assert [each.free.cpu for each in views.snapshot(seen(fast, slow)).hosts] == [8 * GHZ, 4 * GHZ]
    assert views.sold_there(need, slow).cpu == 2 * GHZ
    asked = views.need_of(Plan(memory=100 << 20, cpus=1.0, ghz=1.5, disk=1 << 30, pids=10), Isolation.CONTAINER)
    found = judge(views.snapshot(seen(slow)), wanted(need=asked), "balance")
    assert "ghz 1.5 is faster than the cores of host2" in str(found.refusals[slow.id].reasons)


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("zone=b", {"zone": "b"}, {"zone": "c"}),
        ("zone==b", {"zone": "b"}, {}),
        ("zone=b|c", {"zone": "c"}, {"zone": "d"}),
        ("zone!=b", {"zone": "c"}, {"zone": "b"}),
        ("zone!=b", {}, {"zone": "b"}),
        ("ssd", {"ssd": ""}, {"zone": "b"}),
        ("!ssd", {}, {"ssd": "x"}),
        ("ssd=", {"ssd": ""}, {"ssd": "x"}),
    ],
)
def test_constraints(text: str, good: dict[str, str], bad: dict[str, str]) -> None:
    (label,) = views.labels_of(Where(constraints=(text,)))
    assert label.holds(good)
    assert not label.holds(bad)


@pytest.mark.parametrize("text", ["", "=b", "a=b=c", "a b", "!a=b", "a!", "-x", "a=" + "b" * 200, "a\n"])
def test_constraints_that_are_none(text: str) -> None:
    with pytest.raises(ValidationError):
        Where(constraints=(text,))


def test_terms() -> None:
    near, soft, away = views.terms_of(Where(affinity=("db", "~app=web"), anti_affinity=("app=db",)))
    assert (near.value, near.key, near.hard, near.away) == ("db", "", True, False)
    assert (soft.value, soft.key, soft.hard) == ("web", "app", False)
    assert (away.value, away.key, away.hard, away.away) == ("db", "app", True, True)


def test_whose_program_it_is_where_nobody_says() -> None:
    assert views.trusted("default", None, hostile_input=False)
    assert not views.trusted("acme", None, hostile_input=False)
    assert not views.trusted("default", "public", hostile_input=False)
    assert not views.trusted("default", "partner", hostile_input=True)


def test_a_tenant_is_told_how_many_hosts_and_of_none_its_name() -> None:
    hosts = [host(1), host(2), host(3, state=HostState.DRAINING)]
    order = Order(wanted(need=Need(Amounts(memory=5000)), tenant="acme"), named=True)
    order.refuse(hosts[1], "no network x")
    told = no_room(judge(views.snapshot(seen(*hosts)), order.wanted, "pack"), order)
    said = [problem.what for problem in told.problems]
    assert said == [
        "1 of 3 hosts: the host takes nothing new, such as host3: host3 is draining",
        "1 of 3 hosts: not enough memory left, such as host1: memory: 4.9k asked for, 1000 left: 0 of 1000 are sold",
        "1 of 3 hosts: the host refused to make it, such as host2: no network x",
    ]
    order.tenant = True
    told = no_room(judge(views.snapshot(seen(*hosts)), order.wanted, "pack"), order)
    words = " ".join(problem.what + problem.hint for problem in told.problems)
    assert not any(each.name in words for each in hosts)
    assert len(told.problems) == 3
