"""Days of a fleet in virtual time, of the real code: everything holds at each step. And the referee can tell when not.

python -m tests.simulation 10000 --days 7 does the same for longer and with more hosts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bulkhead.amounts import Amounts
from bulkhead.cluster import broken, draining, index
from bulkhead.cluster.placing import place
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.rules import Rule
from bulkhead.cluster.snapshot import Snapshot, Term
from bulkhead.model import Isolation
from tests.simulation import referee
from tests.simulation.referee import Foul, Reserve
from tests.simulation.world import Rates, World
from tests.unit.cluster.fleets import GIB, host, placed, wanted

BUSY = Rates(
    arrivals_per_host=25.0, losses_per_host=0.3, drains=6.0, rebalances=8.0, consolidations=2.0, return_hours=6.0
)


@pytest.mark.parametrize("spare", [False, True], ids=["room", "reserve"])
@pytest.mark.parametrize("policy", ["pack", "spread", "balance"])
def test_everything_holds_for_days(policy: Policy, *, spare: bool) -> None:
    world = World(7, 16, policy=policy, spare=spare, rates=BUSY).run(2.0)
    told = world.told
    assert told["placed"] > 300
    assert told["refused"] > 5, "the fleet was never full"
    assert told["hosts lost"] > 0
    assert told["restarted"] > 0
    assert told["moves, drained"] + told["moves, rebalanced"] + told["moves, consolidated"] > 0
    if spare:
        assert told["losses that were covered"] > 0
    assert "ms of CPU" in world.summary()


def test_the_same_seed_has_the_same_days() -> None:
    one, other = (World(3, 12, rates=BUSY).run(1.0) for _ in range(2))
    assert one.told == other.told
    assert one.hosts == other.hosts
    assert World(4, 12, rates=BUSY).run(1.0).told != one.told


# --- it can fail


def nothing(*_: Any, **__: Any) -> None:
    """A rule that is forgotten."""


@pytest.mark.parametrize(
    ("what", "spare"), [("tenants", False), ("affinity", False), ("host", False), ("room", False), ("reserve", True)]
)
def test_a_rule_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch, what: str, *, spare: bool) -> None:
    real: Callable[..., Any] = getattr(broken, what)

    def forgetful(found: Any, *arguments: Any) -> Any:
        kept = broken.Broken(found.columns)
        result = real(kept, *arguments)  # and nothing of it is marked
        for rule in kept._marked:
            found.mark(rule, found.rows(()))
        return result

    monkeypatch.setattr(index.broken, what, forgetful)
    with pytest.raises(Foul):
        World(7, 16, policy="pack", spare=spare, rates=BUSY).run(3.0)


def test_a_drain_that_forgets_the_rules_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(snapshot: Snapshot, host_id: str, *_: Any, **__: Any) -> draining.Drain:
        target = next(each for each in snapshot.hosts if each.id != host_id)
        moves = [
            draining.Timed(_move(each.id, host_id, target.id), 0.0, 1.0) for each in snapshot.host(host_id).instances
        ]
        return draining.Drain(host_id, tuple(moves), ())

    monkeypatch.setattr(draining, "drain", careless)
    with pytest.raises(Foul):
        World(7, 16, policy="pack", rates=BUSY).run(3.0)


def _move(instance: str, source: str, target: str) -> Any:
    from bulkhead.cluster.costs import Cost
    from bulkhead.cluster.groups import Proposed

    return Proposed(instance, instance, "t", source, target, Cost("carried", 0, 0.0, 0.0))


# --- the referee by itself


def test_what_is_wrong_on_a_host_is_seen() -> None:
    assert referee.faults(host(1, placed("a"), placed("b"))) == []
    assert "memory" in referee.faults(host(1, placed("a", memory=65 * GIB)))[0]
    away = placed("a", terms=(Term("b", away=True),))
    assert "apart" in referee.faults(host(1, away, placed("b")))[0]
    assert referee.faults(host(1, away, placed("b", tenant="other"))) == []
    foreign = placed("a", tenant="t1", trusted=False)
    assert "untrusted" in referee.faults(host(1, foreign, placed("b", tenant="t2")))[0]
    assert referee.faults(host(1, foreign, placed("b", tenant="t2", level=Isolation.VM))) == []
    assert "alone" in referee.faults(host(1, placed("a", tenant="t1", dedicated=True), placed("b", tenant="t2")))[0]
    assert "add up" in referee.faults(replace(host(1, placed("a")), sold=Amounts()))[0]
    assert "twice" in referee.faults(host(1, placed("a"), placed("a")))[0]


def test_a_refusal_for_what_is_not_so_is_seen() -> None:
    full, other = host(1, placed(memory=63 * GIB)), host(2, state="draining")
    hosts = [full, other]
    decision = place(Snapshot((full, other)), wanted(memory=4 * GIB), "pack")
    assert decision.chosen is None
    referee.judge_refusal(decision, dict(decision.refusals), hosts, None)
    swapped = {full.id: decision.refusals[other.id], other.id: decision.refusals[full.id]}
    with pytest.raises(Foul, match="what is broken is"):
        referee.judge_refusal(decision, swapped, hosts, None)
    with pytest.raises(Foul, match="add up"):
        referee.judge_refusal(decision, {}, [*hosts, host(3)], None)


def test_the_reserve_is_counted_as_it_is_described() -> None:
    half, empty = host(1, placed(memory=30 * GIB, cpu=0, disk=0)), host(2)
    assert Reserve([half, empty]).holds([half, empty])
    assert not Reserve([half]).holds([half])
    two = host(1, placed(memory=30 * GIB, cpu=0, disk=0), placed("b", memory=30 * GIB, cpu=0, disk=0))
    assert Reserve([two, empty]).holds([two, empty])
    full = host(2, placed("c", memory=10 * GIB, cpu=0, disk=0))
    assert not Reserve([two, full]).holds([two, full])
    assert [each.id for each in referee.homeless(two, [two, full], two.instances)] == ["id-b"]


def test_where_it_must_be_near_to_the_first_may_go_anywhere() -> None:
    term = Term("db", "app", hard=True)
    it = wanted("a", labels={"app": "db"}, terms=(term,))
    near, far = host(1, placed("b", labels={"app": "db"})), host(2)
    assert referee.broken(far, it, [host(1), far]) == set()
    assert referee.broken(far, it, [near, far]) == {Rule.NEAR}
    assert referee.broken(near, it, [near, far]) == set()
