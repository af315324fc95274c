"""Fleets for tests: small ones written out, random ones for properties, large ones from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from bulkhead.amounts import Amounts, Capacity, Share
from bulkhead.cluster.snapshot import (
    Able,
    HostView,
    Label,
    Need,
    Placed,
    PowerCurve,
    Snapshot,
    Speed,
    Term,
    Wanted,
)
from bulkhead.model import Isolation

GIB = 1 << 30
MIB = 1 << 20
WORKS: Mapping[Isolation, Able] = {level: Able(works=True) for level in Isolation}
FAST, SLOW = Speed(cores=16, khz=3_000_000), Speed(cores=8, khz=2_000_000, factor=0.9, accelerator="tcg")
OVERHEAD = {"kvm": 96 * MIB, "tcg": 176 * MIB}


def capacity(memory: int = 64 * GIB, cpu: int = 48_000_000, disk: int = 1000 * GIB, **more: int) -> Capacity:
    return Capacity(
        {name: Share(value, 0, 1.0) for name, value in {"memory": memory, "cpu": cpu, "disk": disk, **more}.items()}
    )


def host(number: int, *placed: Placed, **fields: Any) -> HostView:
    """An ordinary one with these instances on it."""
    name = f"h{number}"
    usual: dict[str, Any] = {"version": 1, "speed": FAST, "has": capacity(), "abilities": WORKS}
    view = HostView(id=f"{number:05}", name=name, **{**usual, **fields})
    for each in placed:
        view = view.holding(each)
    return view


def wanted(
    name: str = "new", memory: int = 2 * GIB, cpu: int = 2_000_000, disk: int = 10 * GIB, **fields: Any
) -> Wanted:
    need = fields.pop("need", Need(Amounts(memory=memory, cpu=cpu, disk=disk), overhead=fields.pop("overhead", {})))
    return Wanted(id=fields.pop("id", f"id-{name}"), name=name, need=need, **fields)


_OF_PLACED = ("written", "resident", "running", "used", "moved", "live", "pinned")


def placed(name: str = "old", speed: Speed = FAST, **fields: Any) -> Placed:
    """As it is on a host of this speed."""
    own = {key: fields.pop(key) for key in _OF_PLACED if key in fields}
    it = wanted(name, **fields)
    return Placed(it, it.need.on(speed), **own)


def onto(view: HostView, it: Wanted) -> HostView:
    """As its store would record it."""
    return replace(view.holding(Placed(it, it.need.on(view.speed))), version=view.version + 1)


def fleet(*hosts: HostView, spare: bool = False) -> Snapshot:
    return Snapshot(tuple(hosts), spare)


# --- any fleet, small enough that rules meet. From seeds: a draw for each field would take a hundred times as long.

seeds = st.integers(0, 2**48)
KEYS, VALUES, NAMES = ("app", "tier"), ("a", "b"), ("web", "db", "job")
HALF: Mapping[Isolation, Able] = {
    Isolation.CONTAINER: Able(works=True),
    Isolation.VM: Able(works=False, reason="no KVM", hint="load kvm"),
}


def any_term(dice: random.Random) -> Term:
    key = dice.choice(("", *KEYS))
    value = dice.choice(VALUES if key else NAMES)
    return Term(value, key, dice.random() < 0.5, dice.random() < 0.5, dice.randint(1, 100))


def any_need(dice: random.Random) -> Need:
    return Need(
        Amounts(
            memory=dice.randint(1, 24) * GIB,
            cpu=dice.randint(0, 12_000_000),
            disk=dice.randint(1, 300) * GIB,
            iops=dice.choice((0, 0, 500)),
        ),
        cores=dice.choice((0.0, 0.0, 0.5, 2.0)),
        widest=dice.choice((0.0, 2.0, 12.0)),
        core_khz=dice.choice((0, 0, 2_500_000)),
        overhead=dice.choice(({}, OVERHEAD)),
    )


def any_wanted(dice: random.Random, identity: str = "new") -> Wanted:
    label = Label(dice.choice(("rack", "ssd")), dice.choice(((), ("1",), ("1", "2"))), dice.random() < 0.5)
    return Wanted(
        id=identity,
        name=dice.choice(NAMES),
        need=any_need(dice),
        level=dice.choice(tuple(Isolation)),
        tenant=dice.choice(("t1", "t2")),
        trusted=dice.random() < 0.5,
        dedicated=dice.random() < 0.2,
        inside=dice.choice(("", "", "vm")),
        cpu_model=dice.choice(("", "", "", "Nehalem")),
        image=dice.choice(("", "sha256:1")),
        labels={key: dice.choice(VALUES) for key in KEYS if dice.random() < 0.5},
        requires=(label,) if dice.random() < 0.3 else (),
        terms=tuple(any_term(dice) for _ in range(dice.choice((0, 0, 1, 2)))),
        host=dice.choice(("", "", "", "", "h1")),
        avoid=dice.choice((frozenset(), frozenset(), frozenset({"00001"}))),
        priority=dice.randint(0, 3),
    )


def any_host(dice: random.Random, number: int) -> HostView:
    speed = dice.choice((FAST, FAST, SLOW))
    more = dice.choice(({}, {"iops": 1000}))
    has = capacity(memory=dice.choice((64, 64, 32, 256)) * GIB, cpu=speed.cores * speed.core, **more)
    instances = []
    for index in range(dice.randint(0, 4)):
        it = any_wanted(dice, f"{number}-{index}")
        instances.append(Placed(it, it.need.on(speed)))
    return host(
        number,
        *instances,
        speed=speed,
        has=has,
        state=dice.choice(("ready", "ready", "ready", "ready", "draining", "unreachable", "fenced")),
        labels={key: dice.choice(("1", "2")) for key in ("rack", "ssd") if dice.random() < 0.5},
        abilities=dice.choice((WORKS, WORKS, HALF)),
        architecture=dice.choice(("amd64", "amd64", "amd64", "arm64")),
        images=dice.choice((frozenset(), frozenset({"sha256:1"}))),
        cpu_models=dice.choice((frozenset(), frozenset({"Nehalem"}), frozenset({"Nehalem", "Penryn"}))),
    )


def any_fleet(dice: random.Random, most: int = 7) -> Snapshot:
    numbers = range(1, dice.randint(0, most) + 1)
    return Snapshot(tuple(any_host(dice, number) for number in numbers), dice.random() < 0.5)


# --- large ones


def random_wanted(dice: random.Random, identity: str) -> Wanted:
    """As a provider sells: some few sizes, mostly small, mostly containers."""
    step = dice.choice((1, 1, 1, 2, 2, 4, 8))
    need = Need(Amounts(memory=step * GIB, cpu=step * 500_000, disk=step * 5 * GIB), overhead=OVERHEAD)
    app = f"app{dice.randrange(2000)}"
    away = (Term(app, "app", away=True, hard=dice.random() < 0.3),) if dice.random() < 0.3 else ()
    tenant = f"t{dice.randrange(500)}"
    level = dice.choice((Isolation.CONTAINER, Isolation.CONTAINER, Isolation.VM))
    return Wanted(
        id=identity,
        name=identity,
        need=need,
        level=level,
        tenant=tenant,
        trusted=level is Isolation.VM or dice.random() < 0.9,
        labels={"app": app},
        terms=away,
        image=f"sha256:{dice.randrange(50)}",
        priority=dice.randrange(3),
    )


def large_fleet(dice: random.Random, hosts: int, instances: int) -> list[HostView]:
    """Hosts of two kinds with so many instances on them, none over its capacity."""
    found = []
    for number in range(hosts):
        speed = Speed(32, 2_500_000) if number % 3 else Speed(32, 3_000_000, 1.1)
        has = capacity(memory=256 * GIB, cpu=speed.cores * speed.core, disk=4000 * GIB)
        rack = str(number // 40)
        images = frozenset(f"sha256:{dice.randrange(50)}" for _ in range(5))
        on_it = []
        for index in range(instances // hosts):
            it = random_wanted(dice, f"i{number}-{index}")
            if it.level is not Isolation.VM:
                it = replace(it, trusted=True)
            on_it.append(Placed(it, it.need.on(speed), written=GIB, resident=GIB // 2))
        found.append(
            host(
                number,
                speed=speed,
                has=has,
                labels={"rack": rack},
                images=images,
                power=PowerCurve((100.0, 180.0, 250.0)),
                instances=tuple(on_it),
                sold=sum((each.amounts for each in on_it), Amounts()),
            )
        )
    return found
