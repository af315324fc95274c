"""A fleet of hosts: what its store costs, how long decisions by its records take, and what moves and losses come to.

No peer does the same on one machine, so there are figures and goals, and no comparison but that with bare QEMU.
"""

from __future__ import annotations

import gc
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.contest import Cast, Sizes, say
from bench.figures import Figure
from bench.measures import fleet_moves
from bulkhead.amounts import Amounts
from bulkhead.cluster.index import Index
from bulkhead.cluster.placing import Decision, place
from bulkhead.cluster.snapshot import Need, Wanted
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.indexing import MOST_PLAIN, Indexed
from bulkhead.fleet import Fleet, Host, Level, Machine, Phase, Place
from bulkhead.model import Isolation
from bulkhead.store.base import Store, Transaction
from bulkhead.store.etcd import EtcdStore
from bulkhead.store.fleet import ALIVE, SOLD, FleetState
from bulkhead.store.following import Following
from bulkhead.store.sqlite import SQLiteStore
from tests.harness import etcd as etcds
from tests.harness import naming

FLEETS = (100, 1_000, 10_000)
ON_EACH = 10
"""Instances of each host."""
AT_ONCE = 1_000
"""Records of one transaction while the fleet is written."""
GIB = 1 << 30
FLEET = Fleet(id="f" * 32, name="bench", created=0.0, certificate="PEM", key="KEY")


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Each part in turn, with an etcd of three members whose files are on the disk."""
    figure = Figure(
        "fleet",
        "A fleet of hosts",
        "Hosts are namespaces of this machine, with a daemon each and an etcd of three members on this machine's disk. "
        "`create`: a record is written; `change`: three are read and written if none has changed. `all records read`: "
        "a decision that begins with reading the fleet; `followed`: one by records that a watch keeps, each time after "
        "another instance was placed. A client asks every millisecond over the hosts' network: `away` is from its last "
        "answer before a move to the first after it.",
    )
    quick = sizes.runs <= 5
    with own_names(cast):
        _stores(figure, cast.scene.directory("fleet"), 20 if quick else 300)
        for hosts in FLEETS[:1] if quick else FLEETS:
            say(f"a fleet of {hosts} hosts")
            _decisions(figure, hosts, 10 if quick else 100)
        fleet_moves.measure(figure, cast, sizes)
    return figure


@contextmanager
def own_names(cast: Cast) -> Iterator[None]:
    """What the tests' harness makes is named and kept as all that the bench makes, so that it is cleared up as that."""
    kept = naming.PREFIX, naming.LINK_PREFIX, tempfile.tempdir, etcds._MEMORY
    naming.PREFIX, naming.LINK_PREFIX = cast.scene.name, cast.scene.name[:4]
    tempfile.tempdir = str(cast.scene.directory("fleet"))
    etcds._MEMORY = Path("/nonexistent")
    try:
        yield
    finally:
        naming.PREFIX, naming.LINK_PREFIX, tempfile.tempdir, etcds._MEMORY = kept


# --- the store


def _stores(figure: Figure, directory: Path, times: int) -> None:
    with ExitStack() as stack:
        etcd = stack.enter_context(etcds.Etcd())
        stores: dict[str, Store] = {
            "sqlite": SQLiteStore(directory / "bench.db"),
            "etcd": EtcdStore(etcd.endpoints, cluster="bench"),
        }
        for name, store in stores.items():
            stack.callback(store.close)
            _touch(store, "warm")
            figure.add("bulkhead", f"{name}: create", [_timed(partial(_touch, store)) for _ in range(times)])
            figure.add("bulkhead", f"{name}: change", [_timed(partial(_change, store)) for _ in range(times)])


def _touch(store: Store, key: str = "") -> None:
    named = key or secrets.token_hex(16)
    store.attempt(lambda transaction: transaction.put("bench", named, '{"name": "a record of some size"}'))


def _change(store: Store) -> None:
    def body(transaction: Transaction) -> None:
        for key in ("one", "two", "three"):
            count = int(transaction.get("count", key) or "0")
            transaction.put("count", key, str(count + 1))

    store.attempt(body)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


# --- decisions


def _decisions(figure: Figure, hosts: int, decisions: int) -> None:
    dice = random.Random(hosts)
    with ExitStack() as stack:
        etcd = stack.enter_context(etcds.Etcd())
        store = EtcdStore(etcd.endpoints, cluster="bench", timeout=60.0)
        stack.callback(store.close)
        state = FleetState(store)
        _write(state, dice, hosts)
        read = [_timed(lambda: _by_all(state, _wanted(dice))) for _ in range(max(3, min(decisions, 2000 // hosts)))]
        figure.add("bulkhead", f"{hosts} hosts: all records read", read)
        follows = Following(store)
        began = time.perf_counter()
        follows.begin()
        stack.callback(follows.close)
        while follows.revision == 0:
            time.sleep(0.001)
        figure.add("bulkhead", f"{hosts} hosts: read once to follow", [(time.perf_counter() - began) * 1e3])
        indexed = Indexed()
        _by_kept(follows, indexed, _wanted(dice))
        gc.collect()
        decided, reserved = [], []
        for _ in range(decisions):
            wanted = _wanted(dice)
            began = time.perf_counter()
            decision = _by_kept(follows, indexed, wanted)
            decided.append((time.perf_counter() - began) * 1e3)
            if decision.chosen:
                made = _place(wanted, decision.chosen.id)
                reserved.append(_timed(partial(state.reserve, made, scored=decision.chosen.version)))
        figure.add("bulkhead", f"{hosts} hosts: followed", decided)
        figure.add("bulkhead", f"{hosts} hosts: reservation", reserved)


def _by_all(state: FleetState, wanted: Wanted) -> Decision:
    snapshot = views.snapshot(state.read_all())
    if len(snapshot.hosts) <= MOST_PLAIN:
        return place(snapshot, wanted, "balance")
    return Index(snapshot.hosts).place(wanted, "balance")


def _by_kept(follows: Following, indexed: Indexed, wanted: Wanted) -> Decision:
    with follows.latest() as kept:
        assert kept is not None
        return indexed.decide(kept, wanted, "balance", heard=())


def _write(state: FleetState, dice: random.Random, hosts: int) -> None:
    records = [("fleet", "self", FLEET.model_dump_json())]
    for number in range(hosts):
        host, total = _host(number), Amounts()
        records += [("host", host.id, host.model_dump_json()), (ALIVE, host.id, "0")]
        for index in range(ON_EACH):
            wanted = _wanted(dice)
            made = _place(wanted, host.id).model_copy(update={"phase": Phase.PLACED, "name": f"i{number}-{index}"})
            total += Amounts(**made.amounts)
            records.append(("place", made.id, made.model_dump_json()))
        sold = f'{{"amounts": {_json(total)}, "places": {ON_EACH}, "version": 1}}'
        records.append((SOLD, host.id, sold))
    for begin in range(0, len(records), AT_ONCE):
        state.store.attempt(partial(_put, records[begin : begin + AT_ONCE]))


def _put(records: list[tuple[str, str, str]], transaction: Transaction) -> None:
    for record in records:
        transaction.put(*record)


def _json(amounts: Amounts) -> str:
    return str(amounts.as_dict()).replace("'", '"')


def _host(number: int) -> Host:
    machine = Machine(cores=32, ghz=2.5, memory=256 * GIB, kernel="6.1", architecture="x86_64", version="0")
    works = Level(works=True)
    return Host(
        id=f"{number:032x}",
        name=f"host{number}",
        address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8444",
        joined=0.0,
        machine=machine,
        levels={Isolation.CONTAINER: works, Isolation.CHROOT: works, Isolation.VM: works},
        labels={"rack": str(number // 40)},
        sellable={"memory": 250 * GIB, "cpu": 320_000_000, "disk": 4000 * GIB},
    )


def _wanted(dice: random.Random) -> Wanted:
    step = dice.choice((1, 1, 1, 2, 2, 4, 8))
    need = Need(Amounts(memory=step * GIB, cpu=step * 500_000, disk=step * 5 * GIB))
    identity = f"{dice.getrandbits(128):032x}"
    return Wanted(id=identity, name=identity, need=need, labels={"app": f"app{dice.randrange(2000)}"})


def _place(wanted: Wanted, host: str) -> Place:
    return Place(
        id=wanted.id,
        name=wanted.name,
        tenant=wanted.tenant,
        host=host,
        level=wanted.level,
        amounts=wanted.need.amounts.as_dict(),
        labels=dict(wanted.labels),
    )
