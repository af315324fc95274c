"""The sum of what is sold is what the records say, whatever happens to them in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.errors import Conflict
from bulkhead.model import Instance, Isolation, Plan, Snapshot, Spec, Volume
from bulkhead.store import SQLiteStore, State
from tests.unit.store.test_state import instance


def scale(spec: Spec) -> Amounts:
    """Memory as it is, a hundred more of a machine; the disk as it is."""
    return Amounts(memory=spec.plan.memory + 100 * (spec.isolation is Isolation.VM), disk=spec.plan.disk)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """An empty state."""
    opened = State(SQLiteStore(tmp_path / "state.db"), uid_base=1_000_000_000, scale=scale)
    yield opened
    opened.close()


def planned(made: Instance, memory: int, **fields: object) -> Instance:
    """The same with another plan."""
    plan = Plan(memory=memory, cpus=1, disk=made.spec.plan.disk)
    return made.model_copy(update={"spec": made.spec.model_copy(update={"plan": plan, **fields})})


def snapshot(of: Instance, name: str, size: int) -> Snapshot:
    """A record of one."""
    return Snapshot(id=f"{hash(name) & 0xFFFF:032x}", name=name, spec=of.spec, size=size, created=1.0)


def test_what_is_created_counts_until_it_is_removed(state: State) -> None:
    assert state.sold() == NOTHING
    made = state.reserve_instance(instance(1))
    assert state.sold() == scale(made.spec)
    state.save(made.model_copy(update={"pid": 7}))
    assert state.sold() == scale(made.spec), "whether it runs or not"
    state.save(planned(made, 1 << 30))
    assert state.sold().memory == 1 << 30
    state.remove(made.spec.id)
    state.remove(made.spec.id)
    assert state.sold() == NOTHING


def test_what_fails_counts_nothing(state: State) -> None:
    made = state.reserve_instance(instance(1, "web"))
    with pytest.raises(Conflict):
        state.reserve_instance(instance(2, "web"))
    with pytest.raises(ZeroDivisionError), state.atomic():
        state.reserve_instance(instance(3))
        state.create_volume(Volume(name="data", size=1 << 30))
        raise ZeroDivisionError
    assert state.sold() == scale(made.spec)


def test_a_claim_holds_the_larger_of_both_until_it_is_dropped(state: State) -> None:
    made = state.reserve_instance(planned(instance(1), 1000 << 20))
    state.claim(made, scale(planned(made, 3000 << 20).spec))
    assert state.sold().memory == 3000 << 20
    state.save(planned(made, 3000 << 20))
    assert state.sold().memory == 3000 << 20
    state.save(made)
    assert state.sold().memory == 3000 << 20, "it goes back, and may go forth again"
    assert state.counted(made).memory == 3000 << 20
    state.drop_claim(made.spec.id)
    state.drop_claim(made.spec.id)
    assert state.sold().memory == 1000 << 20
    state.claim(made, scale(planned(made, 9000 << 20).spec))
    state.remove(made.spec.id)
    assert state.sold() == NOTHING


def test_another_wall_weighs_otherwise(state: State) -> None:
    made = state.reserve_instance(instance(1))
    state.save(planned(made, made.spec.plan.memory, isolation=Isolation.VM))
    assert state.sold().memory == made.spec.plan.memory + 100


def test_snapshots_and_volumes_count_their_bytes(state: State) -> None:
    made = state.reserve_instance(instance(1))
    state.create_volume(Volume(name="data", size=5 << 30))
    with pytest.raises(Conflict):
        state.create_volume(Volume(name="data", size=5 << 30))
    taken = snapshot(made, "s", 100)
    state.create_snapshot(taken)
    state.save_snapshot(taken.model_copy(update={"size": 40, "state": "ready"}))
    assert state.sold().disk == made.spec.plan.disk + (5 << 30) + 40
    state.delete_snapshot(taken)
    state.delete_snapshot(taken)
    assert state.delete_volume("data")
    assert not state.delete_volume("data")
    assert state.sold() == scale(made.spec)


def test_counted_again_it_is_what_the_scale_of_today_says(tmp_path: Path, state: State) -> None:
    made = state.reserve_instance(instance(1))
    assert not state.count_again()
    other = State(SQLiteStore(tmp_path / "state.db"), uid_base=1_000_000_000, scale=lambda _: Amounts(memory=7))
    assert other.count_again()
    assert other.sold() == Amounts(memory=7)
    other.close()
    assert state.count_again()
    assert state.sold() == scale(made.spec)


@pytest.mark.parametrize("seed", range(8))
def test_after_any_history_the_sum_is_that_of_the_records(state: State, seed: int) -> None:
    dice = random.Random(seed)
    known: dict[int, Instance] = {}
    for _ in range(250):
        number, name = dice.randrange(6), f"s{dice.randrange(3)}"
        made = known.get(number)
        match dice.randrange(9):
            case 0 | 1 if made is None:
                known[number] = state.reserve_instance(instance(number + 1))
            case 2 if made:
                state.remove(made.spec.id)
                del known[number]
            case 3 | 4 if made:
                level = dice.choice((Isolation.VM, Isolation.CONTAINER))
                known[number] = planned(made, dice.randrange(6, 99) << 20, isolation=level)
                state.save(known[number])
            case 5 if made:
                state.claim(made, Amounts(memory=dice.randrange(99) << 20))
            case 6 if made:
                state.drop_claim(made.spec.id)
            case 7 if made:
                state.save_snapshot(snapshot(made, name, dice.randrange(99)))
            case 8:
                if not state.delete_volume("data"):
                    state.create_volume(Volume(name="data", size=dice.randrange(1, 99)))
            case _:
                state.delete_snapshot(snapshot(known[number] if made else instance(number + 1), name, 0))
        assert not state.count_again()
    state.drop_claims()
    assert not state.count_again()
    assert state.sold().memory == sum(scale(made.spec).memory for made in known.values())
