"""Eight placers, each on another host with a store of its own, over a real etcd: never oversold, and all rules kept."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import cast

import pytest

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.cluster import rules
from bulkhead.cluster.snapshot import Need, Snapshot, Wanted
from bulkhead.engine.context import Context
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.identity import Coordinates, Identity, Opened
from bulkhead.engine.fleet.placing import Order, Placer
from bulkhead.errors import NoRoom
from bulkhead.fleet import Fleet, Host, Invitation, Level, Machine
from bulkhead.model import CreateRequest, Isolation
from bulkhead.store.etcd import EtcdStore
from bulkhead.store.fleet import ALIVE, FleetState
from bulkhead.store.following import Following
from bulkhead.where import Where

pytestmark = pytest.mark.timeout(600)
PLACERS, EACH, HOSTS, ROOM = 8, 12, 5, 16
MACHINE = Machine(cores=4, ghz=2.0, memory=1 << 34, kernel="6.1", architecture="x86_64", version="0")
FLEET = Fleet(id="f" * 32, name="lab", created=0.0, certificate="PEM", key="KEY", policy="pack")
KINDS: dict[str, dict[str, object]] = {
    "own": {},
    "acme": {"tenant": "acme", "trusted": False},
    "other": {"tenant": "other", "trusted": False},
    "guest": {"tenant": "other", "trusted": False, "level": Isolation.VM},
    "apart": {"labels": {"app": "apart"}, "where": Where(anti_affinity=("app=apart",))},
    "together": {"labels": {"app": "together"}, "where": Where(affinity=("app=together",))},
}


def host(number: int) -> Host:
    works = Level(works=True)
    return Host(
        id=f"{number:032x}",
        name=f"host{number}",
        address=f"10.0.0.{number}:1",
        joined=0.0,
        machine=MACHINE,
        levels={Isolation.CONTAINER: works, Isolation.VM: works},
        sellable={"memory": ROOM, "cpu": 1 << 40, "disk": 1 << 40},
    )


def made(make_store: Callable[..., EtcdStore], *, spare: bool) -> FleetState:
    state = FleetState(make_store())
    state.found(FLEET.model_copy(update={"spare": spare}), host(1))
    for number in range(2, HOSTS + 1):
        state.invite(f"hash{number}", Invitation(until=10.0, by="root"))
        state.join(f"hash{number}", host(number), now=1.0)

    def live(transaction: object) -> None:
        for number in range(1, HOSTS + 1):
            transaction.put(ALIVE, host(number).id, "0")  # type: ignore[attr-defined]

    state.store.attempt(live)
    return state


class NoNetworks:
    """What the placer asks a context for: this host is on no network of the fleet."""

    @property
    def fleet_networks(self) -> NoNetworks:
        return self

    def claims(self, key: str, ports: object) -> dict[str, object]:
        return {}


def placer(number: int, store: EtcdStore, follows: Following | None) -> Placer:
    own = host(number % HOSTS + 1)
    identity = Identity(
        fleet_id=FLEET.id,
        fleet="lab",
        id=own.id,
        name=own.name,
        address=own.address,
        store=Coordinates(endpoints=("x",)),
    )
    opened = Opened(identity, FleetState(store))
    opened.state.following = follows
    return Placer(cast(Context, NoNetworks()), member=lambda: opened)


def carry_out(number: int, store: EtcdStore, kinds: list[str]) -> Counter[str]:
    """Place what one placer is asked for; how it went."""
    # Half of them go by what a watch keeps, half read all records for each decision.
    follows = Following(store) if number % 2 else None
    with ExitStack() as stack:
        if follows:
            follows.begin()
            stack.callback(follows.close)
        return _placed(number, placer(number, store, follows), kinds)


def _placed(number: int, chooser: Placer, kinds: list[str]) -> Counter[str]:
    told = Counter[str]()
    for turn, kind in enumerate(kinds):
        fields = dict(KINDS[kind])
        where = cast(Where, fields.pop("where", Where()))
        wanted = Wanted(
            id=f"{(number + 1) * 1000 + turn:032x}",
            name=f"i{number}-{turn}",
            need=Need(Amounts(memory=1 + turn % 3)),
            requires=views.labels_of(where),
            terms=views.terms_of(where),
            **fields,  # type: ignore[arg-type]
        )
        try:
            place, _ = chooser.reserve(Order(wanted, named=True), CreateRequest(image="box", where=where))
        except NoRoom:
            told["refused"] += 1
            continue
        told["placed"] += 1
        if turn % 5 == 4:
            chooser.release(place)
            told["released"] += 1
    return told


@pytest.mark.parametrize("spare", [False, True], ids=["room", "reserve"])
def test_eight_placers_keep_every_rule(make_store: Callable[..., EtcdStore], *, spare: bool) -> None:
    state = made(make_store, spare=spare)
    chance = random.Random(spare)
    asked = [[chance.choice(list(KINDS)) for _ in range(EACH)] for _ in range(PLACERS)]
    stores = [make_store() for _ in range(PLACERS)]
    with ThreadPoolExecutor(PLACERS) as pool:
        told = sum(pool.map(carry_out, range(PLACERS), stores, asked), Counter[str]())
    assert told["placed"] + told["refused"] == PLACERS * EACH
    assert told["placed"] > PLACERS
    assert told["refused"] > 0, "the fleet was never full: nothing was raced for"
    seen = state.seen()
    assert len(seen.places) == told["placed"] - told["released"]
    sums: dict[str, Amounts] = defaultdict(lambda: NOTHING)
    for place in seen.places:
        sums[place.host] += Amounts(**place.amounts)
    for each in seen.hosts:
        assert seen.sold[each.id].amounts == sums[each.id]
        assert sums[each.id].memory <= ROOM
    _check(views.snapshot(seen))


def _check(snapshot: Snapshot) -> None:
    """Each instance could be placed where it is, were it not there yet."""
    near = {
        view.id for view in snapshot.hosts for each in view.instances if each.wanted.labels.get("app") == "together"
    }
    assert len(near) <= 1
    for view in snapshot.hosts:
        for each in view.instances:
            lone = rules.lone_terms(snapshot, each.wanted)
            assert rules.check(view.without(each.id), each.wanted, lone) == ()
