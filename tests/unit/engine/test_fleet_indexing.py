"""What is kept beside the records decides as all of the records do, whatever has changed in which order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.amounts import Amounts
from bulkhead.cluster.placing import Decision, place
from bulkhead.cluster.policies import POLICIES
from bulkhead.cluster.snapshot import Need, Wanted
from bulkhead.engine.fleet import indexing, views
from bulkhead.engine.fleet.indexing import Indexed
from bulkhead.fleet import HostState, Place
from bulkhead.model import Isolation
from bulkhead.store.following import Kept
from bulkhead.store.seen import Seen, Sold
from bulkhead.where import Where
from tests.unit.engine.test_fleet_views import FLEET, host, placed

HOSTS = 6


def told(decision: Decision) -> tuple[object, ...]:
    return (decision.chosen, decision.ranking, decision.whole, decision.feasible, list(decision.refusals.items()))


def seen_of(kept: Kept) -> Seen:
    return Seen(
        hosts=tuple(sorted(kept.hosts.values(), key=lambda each: each.name)),
        alive=frozenset(kept.alive),
        sold=dict(kept.sold),
        places=tuple(kept.places[key] for key in sorted(kept.places)),
        fleet=kept.fleet,
    )


def any_place(dice: random.Random, number: int) -> Place:
    on, target = host(dice.randint(1, HOSTS)), host(dice.randint(1, HOSTS))
    return placed(
        number,
        on,
        tenant=dice.choice(("default", "acme")),
        labels={"app": dice.choice(("a", "b"))},
        target=target.id if dice.random() < 0.2 and target.id != on.id else None,
        trusted=dice.random() < 0.7,
        where=Where(anti_affinity=(f"app={dice.choice('ab')}",)) if dice.random() < 0.3 else Where(),
    )


def change(dice: random.Random, kept: Kept) -> None:
    """Something that happens in a fleet."""
    number = dice.randint(1, HOSTS)
    key = host(number).id
    match dice.randrange(7):
        case 0 | 1 | 2:
            kept.put_place(any_place(dice, dice.randint(100, 120)))
        case 3:
            kept.drop_place(f"{dice.randint(100, 120):032x}")
        case 4:
            changes = {"factor": dice.choice((0.8, 1.0, 1.3)), "state": dice.choice(list(HostState))}
            kept.hosts[key] = host(number).model_copy(update=changes)
        case 5:
            (kept.alive.add if dice.random() < 0.8 else kept.alive.discard)(key)
        case 6:
            kept.hosts.pop(key, None)
    kept.changed.add(key)
    there = [each for each in kept.places.values() if each.host == key]
    kept.sold[key] = Sold(sum((Amounts(**each.amounts) for each in there), Amounts()), len(there), dice.randrange(99))


@pytest.mark.parametrize("plain", [0, 100], ids=["index", "plain"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**48))
def test_it_decides_as_all_of_the_records_do(plain: int, seed: int) -> None:
    dice = random.Random(seed)
    kept, indexed = Kept(fleet=FLEET), Indexed()
    for number in range(1, HOSTS + 1):
        kept.hosts[host(number).id] = host(number)
        kept.alive.add(host(number).id)
    usual = indexing.MOST_PLAIN
    indexing.MOST_PLAIN = plain
    try:
        for turn in range(30):
            for _ in range(dice.randrange(4)):
                change(dice, kept)
            if dice.random() < 0.1:
                kept.fleet = FLEET.model_copy(update={"spare": dice.random() < 0.5})
            it = Wanted(
                id=f"{turn:032x}",
                name="new",
                need=Need(Amounts(memory=100)),
                tenant=dice.choice(("default", "acme")),
                trusted=dice.random() < 0.5,
                labels={"app": dice.choice(("a", "b"))},
                level=Isolation.CONTAINER,
            )
            policy = dice.choice(POLICIES)
            heard = {host(dice.randint(1, HOSTS)).id} & kept.hosts.keys()
            expected = place(views.snapshot(seen_of(kept), heard=heard), it, policy)
            assert told(indexed.decide(kept, it, policy, heard=heard)) == told(expected)
            assert kept.changed == set()
    finally:
        indexing.MOST_PLAIN = usual


def test_records_that_were_read_anew_replace_all() -> None:
    first, second = host(1), host(2)
    indexed = Indexed()
    one = Kept(hosts={first.id: first}, alive={first.id}, fleet=FLEET)
    it = Wanted(id="e" * 32, name="new", need=Need(Amounts(memory=100)))
    assert indexed.decide(one, it, "pack", heard=()).feasible == 1
    other = Kept(hosts={second.id: second}, alive={second.id}, fleet=FLEET)
    found = indexed.decide(other, replace(it, host=""), "pack", heard=())
    assert found.chosen is not None and found.chosen.id == second.id
