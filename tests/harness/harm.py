"""What is done to a fleet while it works, and made good again; and what must never be seen."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.host import cgroups
from tests.harness.fleet import Fleet
from tests.harness.histories import Recorder

Do = Callable[[], str]


@dataclass(slots=True)
class Harm:
    """Kills daemons, cuts links, kills and freezes etcd's leader: by `seed`, one after the other, until it is ended."""

    fleet: Fleet
    recorder: Recorder
    seed: int
    done: list[str] = field(default_factory=list)
    cut: list[tuple[str, float, float]] = field(default_factory=list)
    """Host, since when, until when."""
    failures: list[BaseException] = field(default_factory=list)
    longest: float = 6.0
    """Seconds for which something is away. Less than a lease lasts."""
    lost: float = 0.0
    """Seconds for which hosts are cut off, or without a daemon, now and then: for so long that they count as lost."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """In a thread of its own."""
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def end(self) -> None:
        """No more of it, and all that was done is made good. Raises what made it fail."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.failures:
            raise self.failures[0]

    def _work(self) -> None:
        dice = random.Random(self.seed)
        kinds = [self._kill_daemon, self._cut_link, self._kill_leader, self._freeze_leader]
        kinds += [self._lose] if self.lost else []
        try:
            while not self._stop.wait(dice.uniform(0.5, 4.0)):
                kind = dice.choice(kinds)
                began = self.recorder.now()
                what = kind(dice)
                self.done.append(f"{began:8.3f} to {self.recorder.now():8.3f}  {what}")
        except BaseException as error:
            self.failures.append(error)

    def _kill_daemon(self, dice: random.Random) -> str:
        host = dice.choice(self.fleet.hosts)
        host.daemon.kill9()
        self._stop.wait(dice.uniform(0.0, 2.0))
        host.daemon.start()
        return f"the daemon of {host.name} was killed and started"

    def _cut_link(self, dice: random.Random) -> str:
        host, since = dice.choice(self.fleet.hosts), self.recorder.now()
        host.cut()
        try:
            self._stop.wait(dice.uniform(0.5, self.longest))
        finally:
            host.mend()
            self.cut.append((host.name, since, self.recorder.now() + 1.0))
        return f"{host.name} was cut off"

    def _lose(self, dice: random.Random) -> str:
        host, since, cut = dice.choice(self.fleet.hosts), self.recorder.now(), dice.random() < 0.5
        if cut:
            host.cut()
        else:
            host.daemon.kill9()
        self._stop.wait(self.lost)
        if cut:
            host.mend()
            self.cut.append((host.name, since, self.recorder.now() + 1.0))
        else:
            host.daemon.start()
        return f"{host.name} was {'cut off' if cut else 'without a daemon'} until it was lost"

    def _kill_leader(self, dice: random.Random) -> str:
        leader = self.fleet.etcd.leader()
        self.fleet.etcd.kill(leader)
        self._stop.wait(dice.uniform(0.5, self.longest))
        self.fleet.etcd.restart(leader)
        return f"etcd's leader, member {leader}, was killed and started"

    def _freeze_leader(self, dice: random.Random) -> str:
        leader = self.fleet.etcd.leader()
        self.fleet.etcd.freeze(leader)
        try:
            self._stop.wait(dice.uniform(0.5, self.longest))
        finally:
            self.fleet.etcd.thaw(leader)
        return f"etcd's leader, member {leader}, stood still"


@dataclass(slots=True)
class Copies:
    """Looks at what really runs on each host, by its processes, and notes every instance that runs on two at once.

    Hosts are looked at one after the other. So two are said to run one only where the same process was there before and
    after the other's was seen.
    """

    cgroups: Mapping[str, str]
    """Of each host's daemon, by the host's name."""
    program: str
    """What instances run: its processes count."""
    twice: set[str] = field(default_factory=set)
    looked: int = 0
    seen: set[str] = field(default_factory=set)
    """Ids of all that ran at some time."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """In a thread of its own."""
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def end(self) -> None:
        """No more looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def now(self) -> dict[str, dict[str, frozenset[int]]]:
        """Of each host the instances that run there, with their processes."""
        tree = cgroups.detect().path("pids")
        return {host: self._on(tree / group) for host, group in self.cgroups.items()}

    def judge(
        self, before: Mapping[str, Mapping[str, frozenset[int]]], after: Mapping[str, Mapping[str, frozenset[int]]]
    ) -> None:
        """Two looks, one after the other, of all hosts in the same order."""
        hosts = list(before)
        for place, host in enumerate(hosts):
            for instance, processes in before[host].items():
                still = processes & after[host].get(instance, frozenset())
                # Between the two looks at this host: later ones of the first look, earlier ones of the second.
                others = [before[other] for other in hosts[place + 1 :]] + [after[other] for other in hosts[:place]]
                if still and any(instance in other for other in others):
                    self.twice.add(instance)

    def _work(self) -> None:
        before = self.now()
        while not self._stop.wait(0.05):
            after = self.now()
            self.judge(before, after)
            self.looked += 1
            self.seen |= {instance for found in after.values() for instance in found}
            before = after

    def _on(self, group: Path) -> dict[str, frozenset[int]]:
        found = {}
        for directory in group.glob("*/"):
            if processes := frozenset(pid for pid in _processes(directory) if _program(pid) == self.program):
                found[directory.name] = processes
        return found


def _processes(directory: Path) -> set[int]:
    found: set[int] = set()
    for file in [directory / "cgroup.procs", *directory.rglob("*/cgroup.procs")]:
        try:
            found |= set(map(int, file.read_text().split()))
        except OSError:  # removed meanwhile
            continue
    return found


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
