"""A fleet in virtual time: many placers with stale snapshots, one versioned store, deletions, drains, lost hosts.

The store is what etcd is to be: it changes a host's record only where its version is still the one that was scored. It
judges nothing, so whatever it lets through was decided by the placers.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bulkhead.cluster import spare
from bulkhead.cluster.draining import lost
from bulkhead.cluster.index import Index
from bulkhead.cluster.placing import Decision
from bulkhead.cluster.policies import Policy
from bulkhead.cluster.rules import Rule, check
from bulkhead.cluster.snapshot import HostView, Placed, Snapshot, Wanted
from tests.unit.cluster.checking import broken


class Store:
    """Records with versions; nothing else."""

    def __init__(self, hosts: list[HostView]) -> None:
        self.hosts = {host.id: host for host in hosts}
        self.changes: list[str] = []
        """Ids of hosts, in the order in which they have changed; how many there are is the fleet's version."""

    def put(self, host: HostView) -> None:
        self.hosts[host.id] = replace(host, version=host.version + 1)
        self.changes.append(host.id)

    def reserve(self, decision: Decision, seen: int) -> bool:
        """One transaction. `seen`: the fleet's version that was decided by."""
        chosen = decision.require()
        host = self.hosts[chosen.id]
        if host.version != chosen.version or (decision.whole and seen != len(self.changes)):
            return False
        self.put(host.holding(Placed(decision.wanted, decision.wanted.need.on(host.speed))))
        return True


@dataclass
class Placer:
    """Decides by what it has seen, which is of a while ago."""

    index: Index
    seen: int = 0

    def look(self, store: Store) -> None:
        """Everything that has changed since."""
        for host_id in dict.fromkeys(store.changes[self.seen :]):
            self.index.put(store.hosts[host_id])
        self.seen = len(store.changes)


@dataclass
class Simulation:
    """Runs until nothing is left to do; what must hold is looked at after each reservation, and in the end."""

    store: Store
    dice: random.Random
    policy: Policy
    spare: bool
    placers: list[Placer] = field(default_factory=list)
    waiting: deque[Wanted] = field(default_factory=deque)
    told: Counter[str] = field(default_factory=Counter)
    ended: dict[str, str] = field(default_factory=dict)
    """Of each request how it ended: placed or refused."""
    clock: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _idle: int = 0

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.clock + seconds, self._count, act))

    def run(self, placers: int) -> None:
        for _ in range(placers):
            placer = Placer(Index(self.store.hosts.values(), spare=self.spare), len(self.store.changes))
            self.placers.append(placer)
            self.after(self.dice.random(), lambda placer=placer: self.next_request(placer))  # type: ignore[misc]
        while self._events:
            self.clock, _, act = heapq.heappop(self._events)
            act()
        for host in self.store.hosts.values():
            # What others were near to may have been removed since: that is nobody's decision here.
            assert {rule for _, rule in broken(host)} <= {Rule.NEAR}

    # --- what a placer does: look now and then, decide, reserve a moment later

    def next_request(self, placer: Placer) -> None:
        if not self.waiting:
            # The others that wait make nothing happen.
            if len(self._events) > self._idle:
                self._idle += 1
                self.after(0.1, lambda: self.wake(placer))
            return
        wanted = self.waiting.popleft()
        if self.dice.random() < 0.3:
            placer.look(self.store)
        self.decide(placer, wanted)

    def wake(self, placer: Placer) -> None:
        self._idle -= 1
        self.next_request(placer)

    def decide(self, placer: Placer, wanted: Wanted) -> None:
        decision, seen = placer.index.place(wanted, self.policy), placer.seen
        self.told["decisions"] += 1
        self.after(self.dice.uniform(0.001, 0.05), lambda: self.reserve(placer, decision, seen))

    def reserve(self, placer: Placer, decision: Decision, seen: int) -> None:
        if decision.chosen is None:
            if seen == len(self.store.changes):
                self.end(placer, decision, "refused")
                return
            # What refused it may be gone: a refusal counts only by what is so now.
            self.told["looked again"] += 1
        elif self.store.reserve(decision, seen):
            self.check(decision)
            self.end(placer, decision, "placed")
            return
        else:
            self.told["conflicts"] += 1
            assert seen < len(self.store.changes), "a conflict with nobody"
        placer.look(self.store)
        self.decide(placer, decision.wanted)

    def end(self, placer: Placer, decision: Decision, how: str) -> None:
        self.ended[decision.wanted.id] = how
        self.told[how] += 1
        self.after(self.dice.uniform(0.0, 0.02), lambda: self.next_request(placer))

    # --- what must hold

    def check(self, decision: Decision) -> None:
        """No rule is broken on the host that has changed; the loss of any one host is covered where it should be."""
        chosen = decision.require()
        host = self.store.hosts[chosen.id]
        assert host.state == "ready"
        new = check(host.without(decision.wanted.id), decision.wanted)
        assert {reason.rule for reason in new} <= {Rule.REFUSED} | ({Rule.NEAR} if decision.whole else set()), new
        assert min(host.free.as_dict().values()) >= 0
        if self.spare:
            snapshot = Snapshot(tuple(self.store.hosts[each] for each in sorted(self.store.hosts)), spare=True)
            fleet = spare.rows(snapshot, spare.measure(snapshot.hosts))
            assert spare.covered(fleet, max(row.largest for row in fleet))

    # --- what the world does

    def delete_some(self, most: int) -> None:
        full = [host for host in self.store.hosts.values() if host.instances and host.state != "fenced"]
        for host in self.dice.sample(full, min(most, len(full))):
            self.store.put(host.without(self.dice.choice(host.instances).id))
            self.told["deleted"] += 1

    def drain_one(self) -> None:
        self._change("ready", "draining")

    def undrain_one(self) -> None:
        self._change("draining", "ready")

    def lose_one(self) -> None:
        """It is fenced, and what it ran asks for another place."""
        host = self._change("ready", "fenced")
        if host is None:
            return
        snapshot = Snapshot((host,))
        again = lost(snapshot, host.id)
        self.store.put(replace(self.store.hosts[host.id], instances=(), sold=type(host.sold)()))
        self.waiting.extendleft(reversed(again))
        self.told["lost"] += 1
        self.told["again"] += len(again)

    def _change(self, old: str, new: str) -> HostView | None:
        able = sorted(host.id for host in self.store.hosts.values() if host.state == old)
        if not able:
            return None
        host = self.store.hosts[self.dice.choice(able)]
        self.store.put(replace(host, state=new))  # type: ignore[arg-type]
        return host
