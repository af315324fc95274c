"""A plan is kept for as long as its next move would still be judged so."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings

from bulkhead.cluster.consolidating import consolidate
from bulkhead.cluster.draining import drain
from bulkhead.cluster.groups import groups
from bulkhead.cluster.rebalancing import gain, rebalance
from bulkhead.cluster.snapshot import Snapshot, Term
from bulkhead.cluster.standing import GONE, objection
from tests.unit.cluster.checking import carried_out
from tests.unit.cluster.fleets import GIB, fleet, host, large_fleet, placed, seeds
from tests.unit.cluster.test_rebalancing import loaded


def test_a_move_stands_until_something_speaks_against_it() -> None:
    snapshot = fleet(loaded(1, 14), loaded(2, 2), loaded(3, 2))
    step = rebalance(snapshot).steps[0]
    move, target = step.move, snapshot.host(step.move.target)
    assert objection(snapshot, move) == ""
    assert gain(snapshot, move) == step.gain
    assert "draining" in objection(snapshot.having(replace(target, state="draining")), move)
    full = target.holding(placed("big", memory=int(target.free.memory) - GIB))
    assert "memory" in objection(snapshot.having(full), move)
    gone = snapshot.host(move.source).without(move.instance)
    assert objection(snapshot.having(gone), move) == GONE
    lost = Snapshot(tuple(view for view in snapshot.hosts if view.id != move.target))
    assert objection(lost, move) == GONE


def test_the_reserve_speaks_against_a_move_as_well() -> None:
    snapshot = fleet(loaded(1, 6), loaded(2, 1), loaded(3, 1), spare=True)
    move = drain(snapshot, host(1).id, 1000.0).moves[0].move
    assert objection(snapshot, move) == ""
    other = next(view for view in snapshot.hosts if view.id not in (move.source, move.target))
    source = snapshot.host(move.source).holding(placed("big", memory=30 * GIB))
    tight = snapshot.having(replace(other, state="draining"), source)
    assert "the loss of one host would not be covered" in objection(tight, move)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_each_move_of_a_plan_stands_once_those_before_it_are_made(seed: int) -> None:
    dice = random.Random(seed)
    snapshot = Snapshot(tuple(large_fleet(dice, 5, 40)), spare=dice.random() < 0.5)
    plans = [
        [timed.move for timed in drain(snapshot, snapshot.hosts[0].id, 1e6).moves],
        [move for freed in consolidate(snapshot).freed for move in freed.moves],
    ]
    for moves in plans:
        now = snapshot
        for move in moves:
            source = now.host(move.source)
            assert objection(now.having(replace(source, state="draining")), move) == ""
            now = carried_out(now, [move])


def test_who_must_be_near_to_others_goes_after_them() -> None:
    follower, leader = placed("app", terms=(Term("db"),)), placed("db")
    snapshot = fleet(host(1, follower, leader), host(2))
    assert [[each.id for each in group] for group in groups(snapshot.hosts[0])] == [["id-app", "id-db"]]
    moves = [timed.move for timed in drain(snapshot, host(1).id, 1000.0).moves]
    assert [move.name for move in moves] == ["db", "app"]
    now = snapshot
    for move in moves:
        assert objection(now, move) == ""
        arrives = now.host(move.source).find(move.instance)
        now = now.having(now.host(move.source).without(move.instance), now.host(move.target).holding(arrives))


def test_what_cannot_leave_stays_and_says_why() -> None:
    pinned = placed("data", memory=20 * GIB, pinned="data has volume x, which stays on its host")
    snapshot = fleet(host(1, pinned, placed("free")), host(2))
    plan = drain(snapshot, host(1).id, 1000.0)
    assert [timed.move.name for timed in plan.moves] == ["free"]
    assert [(left.wanted.name, left.reason) for left in plan.left] == [("data", pinned.pinned)]
    assert "volume x" in consolidate(fleet(host(1, pinned), host(2, placed("b"), placed("c", memory=30 * GIB)))).reason
    hot = fleet(host(1, *(placed(f"p{n}", memory=8 * GIB, pinned="no") for n in range(6))), host(2))
    assert rebalance(hot).steps == ()
