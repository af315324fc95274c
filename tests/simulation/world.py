"""The world in virtual time: instances come and go, hosts are lost, return and are drained, and load is moved.

Seeded: the same seed has the same days. Every change is looked at by the referee before the next one.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from bulkhead.amounts import NOTHING
from bulkhead.cluster import draining
from bulkhead.cluster.consolidating import consolidate
from bulkhead.cluster.groups import Proposed
from bulkhead.cluster.index import Index
from bulkhead.cluster.placing import Decision, Refusal
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.rebalancing import Limits, rebalance
from bulkhead.cluster.snapshot import HostView, Placed, Snapshot, Wanted
from tests.simulation import referee
from tests.simulation.people import any_wanted, lifetime, make_hosts, used_now
from tests.simulation.referee import Foul, Reserve

HOUR, DAY = 3600.0, 86_400.0
LOOKED_AT, SMALL = 12, 300
"""Hosts of which the words of a refusal are checked, in fleets of up to so many."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How often something happens, per day."""

    arrivals_per_host: float = 4.0
    losses_per_host: float = 0.004
    drains: float = 3.0
    rebalances: float = 4.0
    consolidations: float = 1.0
    return_hours: float = 8.0


@dataclass(slots=True)
class World:
    """Its hosts are in the index, and nowhere else."""

    seed: int
    count: int
    policy: Policy = "balance"
    spare: bool = False
    rates: Rates = Rates()
    clock: float = 0.0
    told: Counter[str] = field(default_factory=Counter)
    refused_for: Counter[str] = field(default_factory=Counter)
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time of each decision."""
    index: Index = field(init=False)
    dice: random.Random = field(init=False)
    _ids: dict[str, str] = field(default_factory=dict)
    _where: dict[str, str] = field(default_factory=dict)
    _moved: dict[str, float] = field(default_factory=dict)
    """When rebalancing has moved what."""
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _reserve: Reserve | None = None

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        hosts = make_hosts(self.dice, self.count)
        self.index = Index(hosts, spare=self.spare)
        self._reserve = Reserve(hosts) if self.spare else None
        self._ids = {host.name: host.id for host in hosts}

    def run(self, days: float) -> World:
        """Live so long. Raises Foul."""
        end, rates = days * DAY, self.rates
        self._again(rates.arrivals_per_host * self.count, self.arrive)
        self._again(rates.losses_per_host * self.count, self.lose)
        self._again(rates.drains, self.drain)
        self._again(rates.rebalances, self.balance)
        self._again(rates.consolidations, self.thin_out)
        self._again(24.0, self.use_otherwise)
        while self._events and self._events[0][0] <= end:
            self.clock, _, act = heapq.heappop(self._events)
            act()
        return self

    @property
    def hosts(self) -> list[HostView]:
        """As they are now."""
        return sorted(self.index.views(), key=lambda host: host.id)

    @property
    def instances(self) -> int:
        """How many there are."""
        return len(self._where)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.clock + seconds, self._number, act))

    def _again(self, per_day: float, act: Callable[[], None]) -> None:
        """At random times, so many a day."""
        if per_day <= 0:
            return

        def once() -> None:
            act()
            self._after(self.dice.expovariate(per_day / DAY), once)

        self._after(self.dice.expovariate(per_day / DAY), once)

    # --- instances

    def arrive(self) -> None:
        """Somebody wants one more."""
        self.told["arrived"] += 1
        wanted = any_wanted(self.dice, f"i{self.told['arrived']:07}", self.clock)
        if self.decide(wanted):
            self._after(lifetime(self.dice), lambda: self.end(wanted.id))

    def decide(self, wanted: Wanted) -> bool:
        """Ask for a place, and take it; False where there is none."""
        began = time.thread_time()
        decision = self.index.place(wanted, self.policy)
        self.cpu.append(time.thread_time() - began)
        self.told["decisions"] += 1
        hosts = list(self.index.views())
        # The reserve is counted over the whole fleet: of large ones now and then.
        counted = self._reserve if self.count <= SMALL or self.dice.random() < 0.01 else None
        if decision.chosen is None:
            self.told["refused"] += 1
            self.refused_for.update(decision.counts.keys())
            referee.judge_refusal(decision, self._some(decision), hosts, counted)
            return False
        host = self.index.host(decision.chosen.id)
        referee.judge_choice(host, wanted, hosts, counted)
        self._put(host.holding(Placed(wanted, wanted.need.on(host.speed), used=None)))
        self._where[wanted.id] = host.id
        self.told["placed"] += 1
        return True

    def _some(self, decision: Decision) -> dict[str, Refusal]:
        """What was said of some hosts; of many hosts those that the decision itself tells as examples."""
        if self.count > SMALL:
            return {self._ids[refusal.host]: refusal for refusal in decision.examples.values()}
        chosen = self.dice.sample(sorted(decision.refusals), min(LOOKED_AT, len(decision.refusals)))
        return {host_id: decision.refusals[host_id] for host_id in chosen}

    def end(self, instance: str) -> None:
        """It is removed by whoever made it, if it is there still."""
        home = self._where.pop(instance, None)
        if home is not None:
            self._put(self.index.host(home).without(instance))
            self.told["ended"] += 1

    # --- hosts

    def lose(self) -> None:
        """One is gone, with all that it carried; what is to run again does, elsewhere."""
        ready = [host for host in self.hosts if host.state == "ready"]
        if len(ready) < 3:
            return
        host = self.dice.choice(ready)
        self._promised(host)
        again = draining.lost(Snapshot((host,)), host.id)
        for placed in host.instances:
            self._where.pop(placed.id)
            self._moved.pop(placed.id, None)  # what runs again elsewhere is not what was moved
        self._put(replace(host, state="fenced", instances=(), sold=NOTHING))
        self.told["hosts lost"] += 1
        self.told["lost with them"] += len(host.instances)
        for wanted in again:
            self.told["restarted" if self.decide(wanted) else "found no place again"] += 1
            if wanted.id in self._where:
                self._after(lifetime(self.dice), lambda one=wanted.id: self.end(one))  # type: ignore[misc]
        hours = self.dice.expovariate(1 / self.rates.return_hours)
        self._after(hours * HOUR, lambda: self._put(replace(self.index.host(host.id), state="ready")))

    def _promised(self, host: HostView) -> None:
        """Where the reserve is whole, everything on the host that is about to be lost has room elsewhere."""
        if self._reserve is None or not self._reserve.holds(self.hosts):
            return
        order = list(host.instances)
        self.dice.shuffle(order)
        others = self.hosts
        self.dice.shuffle(others)
        if left := referee.homeless(host, others, order):
            raise Foul(f"{host.name} is lost: {len(left)} of {len(order)} instances find no room, which was promised")
        self.told["losses that were covered"] += 1

    def drain(self) -> None:
        """Everything off one for a while."""
        ready = [host for host in self.hosts if host.state == "ready" and host.instances]
        if len(ready) < 3:
            return
        host = self.dice.choice(ready)
        found = draining.drain(self.index.snapshot(), host.id, deadline=4 * HOUR, policy=self.policy, now=self.clock)
        self._put(replace(host, state="draining"))
        self._carry_out("drained", (timed.move for timed in found.moves))
        self.told["drains"] += 1
        self.told["stayed on a drained host"] += len(found.left)
        if any(not each.reason for each in found.left):
            raise Foul(f"something stays on {host.name}, and nobody says why")
        self._after(2 * HOUR, lambda: self._ready(host.id))

    def _ready(self, host_id: str) -> None:
        host = self.index.host(host_id)
        if host.state == "draining":
            self._put(replace(host, state="ready"))

    # --- moves that make the fleet better

    def use_otherwise(self) -> None:
        """Some hosts' instances use more or less than they did: the day, and noise."""
        full = [host for host in self.hosts if host.instances]
        for host in self.dice.sample(full, min(len(full), 20 + len(full) // 20)):
            changed = tuple(replace(placed, used=used_now(self.dice, placed, self.clock)) for placed in host.instances)
            self._put(replace(host, instances=changed))

    def balance(self) -> None:
        """Take load off those that have much more; a second look right after it finds hardly anything left to do."""
        found = rebalance(self.index.snapshot(), now=self.clock)
        self._carry_out("rebalanced", (step.move for step in found.steps))
        self.told["rebalances"] += 1
        if not found.steps and not found.reason:
            raise Foul("nothing is moved, and nobody says why")
        if len(found.steps) < Limits().most_moves:
            again = rebalance(self.index.snapshot(), now=self.clock)
            moved = {step.move.instance for step in found.steps}
            if any(step.move.instance in moved for step in again.steps):
                raise Foul("what was moved a moment ago is to be moved again")

    def thin_out(self) -> None:
        """Free whole hosts."""
        found = consolidate(self.index.snapshot(), now=self.clock)
        for freed in found.freed:
            self._carry_out("consolidated", freed.moves)
            if self.index.host(freed.host).instances:
                raise Foul(f"{freed.host} was to be freed, and is not empty")
        self.told["hosts freed"] += len(found.freed)
        if not found.freed and not found.reason:
            raise Foul("no host is freed, and nobody says why")

    def _carry_out(self, why: str, moves: Iterable[Proposed]) -> None:
        """One after the other; while each goes on both hosts hold it."""
        moves = list(moves)
        for move in moves:
            source, target = self.index.host(move.source), self.index.host(move.target)
            placed = source.find(move.instance)
            arrives = replace(placed, amounts=placed.wanted.need.on(target.speed), moved=self.clock)
            wrong = referee.broken(target, placed.wanted, list(self.index.views()))
            # A group goes one after the other: what it must be near to may be on its way.
            if wrong - {"near"}:
                raise Foul(f"{why}: {move.instance} goes to {target.name}, where it breaks {sorted(wrong)}")
            self._put(target.holding(arrives))
            self._put(source.without(move.instance))
            self._where[move.instance] = target.id
            self._note(why, move)
        self.told[f"moves, {why}"] += len(moves)

    def _note(self, why: str, move: Proposed) -> None:
        """No thrash: what rebalancing has moved rests for a day, whatever the noise."""
        if why != "rebalanced":
            return
        last = self._moved.get(move.instance)
        if last is not None and self.clock - last < Limits().rest:
            raise Foul(f"{move.instance} was moved {(self.clock - last) / HOUR:.1f} hours ago")
        self._moved[move.instance] = self.clock

    # --- what is changed is looked at

    def _put(self, host: HostView) -> None:
        changed = replace(host, version=host.version + 1)
        if wrong := referee.faults(changed):
            raise Foul(f"after {self.clock / DAY:.2f} days: {'; '.join(wrong)}")
        self.index.put(changed)

    # --- what it comes to

    def summary(self) -> str:
        """Figures, one a line."""
        times = sorted(self.cpu) or [math.nan]
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        lines = {
            "hosts": self.count,
            "days": round(self.clock / DAY, 2),
            "policy": self.policy + (", room for the loss of one host" if self.spare else ""),
            "instances in the end": self.instances,
            "hosts awake in the end": sum(bool(host.instances) for host in self.hosts),
            **dict(sorted(self.told.items())),
            "decision, median": f"{times[len(times) // 2] * 1000:.2f} ms of CPU",
            "decision, p99": f"{p99 * 1000:.2f} ms of CPU",
            "refusals named": ", ".join(f"{rule} {count}" for rule, count in self.refused_for.most_common()) or "none",
        }
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())
