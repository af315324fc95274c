"""Rebalances over a fleet in memory, whose instances use now more and now less: what is moved, and what stays."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from bulkhead.amounts import Amounts
from bulkhead.engine.fleet.balancing import CHANGED, Aim, Fleetwide, balance
from bulkhead.errors import HostRefused, NotMoved, Refused
from bulkhead.events import Step, quiet
from bulkhead.fleet import Fleet, Host, HostState, Level, Load, Machine, Phase, Place
from bulkhead.model import Instance, Isolation
from bulkhead.moves import Moved, Rebalanced
from bulkhead.store.fleet import Seen, Sold

GIB = 1 << 30
FLEET = Fleet(id="f" * 32, name="lab", created=0.0, certificate="PEM", key="KEY")
SELLS = {"memory": 64 * GIB, "cpu": 32_000_000, "disk": 1000 * GIB}
WATTS = {"power.idle": "100", "power.peak": "300"}


def host(number: int, **fields: object) -> Host:
    machine = Machine(cores=16, ghz=2.0, memory=64 * GIB, kernel="6.1", architecture="x86_64", version="0")
    made = Host(
        id=f"{number:032x}",
        name=f"host{number}",
        address=f"10.0.0.{number}:1",
        joined=0.0,
        machine=machine,
        levels={Isolation.CONTAINER: Level(works=True)},
        sellable=SELLS,
    )
    return made.model_copy(update=fields)


@dataclass
class Hosts:
    """A fleet whose moves succeed, unless somebody says otherwise."""

    hosts: list[Host]
    places: dict[str, Place] = field(default_factory=dict)
    uses: dict[str, Amounts] = field(default_factory=dict)
    noise: random.Random | None = None
    refuses: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    """By id the hosts that take nothing of what they are asked to, and why."""
    pinned: dict[str, str] = field(default_factory=dict)
    unheard: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """What closed hosts were asked to take."""
    carried: list[tuple[str, str, str]] = field(default_factory=list)
    clock: float = 0.0
    spare: bool = False

    def put(self, number: int, count: int, *, memory: int = 4 * GIB, uses: int = 4 * GIB) -> None:
        """So many instances on the host of this number."""
        for _ in range(count):
            key = f"{len(self.places) + 1:032x}"
            amounts = {"memory": memory, "cpu": 500_000, "disk": GIB}
            self.places[key] = Place(
                id=key,
                name=f"i{len(self.places) + 1}",
                tenant="default",
                host=f"{number:032x}",
                level=Isolation.CONTAINER,
                amounts=amounts,
                phase=Phase.PLACED,
            )
            self.uses[key] = Amounts(memory=uses, cpu=200_000, disk=GIB // 4)

    def look(self) -> Seen:
        sold = {}
        for each in self.hosts:
            there = [Amounts(**place.amounts) for place in self.places.values() if place.host == each.id]
            sold[each.id] = Sold(sum(there, Amounts()), len(there), len(self.carried))
        alive = frozenset(each.id for each in self.hosts)
        fleet = FLEET.model_copy(update={"spare": self.spare})
        return Seen(tuple(self.hosts), alive, sold, tuple(self.places.values()), fleet)

    def measure(self, _: Seen) -> tuple[dict[str, Load], list[str]]:
        loads = {}
        for key, usual in self.uses.items():
            factor = self.noise.uniform(0.75, 1.25) if self.noise else 1.0
            used = replace(usual, memory=int(usual.memory * factor))
            loads[key] = Load(
                id=key,
                running=True,
                written=GIB // 4,
                resident=used.memory,
                used=used.as_dict(),
                pinned=self.pinned.get(key, ""),
            )
        return loads, self.unheard

    def carry(self, instance: str, source: Host, target: str, progress: object) -> Moved:
        if instance in self.refuses:
            raise NotMoved(self.refuses[instance], hint="see there")
        if target in self.closed:
            self.asked.append((instance, target))
            raise HostRefused(self.closed[target])
        place = self.places[instance]
        assert place.host == source.id
        self.places[instance] = place.model_copy(update={"host": target, "moved": self.clock})
        self.carried.append((instance, source.id, target))
        return Moved(instance=Instance.model_construct(), source=Isolation.CONTAINER, downtime=0.5)

    def mark(self, host_id: str, state: HostState) -> None:
        self.hosts = [each.model_copy(update={"state": state}) if each.id == host_id else each for each in self.hosts]

    def balance(self, **aim: object) -> Rebalanced:
        fleet = Fleetwide(self.look, self.measure, self.carry, self.mark)
        return balance(fleet, Aim(**aim), quiet)  # type: ignore[arg-type]

    def counts(self) -> list[int]:
        return [sum(place.host == each.id for place in self.places.values()) for each in self.hosts]


@pytest.fixture
def hot(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """One host much fuller than the two others, at a time of its own."""
    made = Hosts([host(1), host(2), host(3)])
    made.put(1, 14)
    made.put(2, 2)
    made.put(3, 2)
    made.clock = 1_000_000.0
    monkeypatch.setattr("bulkhead.engine.fleet.balancing.time.time", lambda: made.clock)
    return made


def test_a_hot_host_is_relieved_and_told_with_gain_and_cost(hot: Hosts) -> None:
    plan = hot.balance(dry_run=True)
    assert (plan.done, hot.carried) == (False, [])
    assert len(plan.moves) >= 4
    assert all(each.gain and each.gain >= 0.03 and not each.done for each in plan.moves)
    assert all((each.source, each.how, each.size) == ("host1", "copied", GIB // 4) for each in plan.moves)
    assert plan.before > 0.4 and plan.after < 0.1
    done = hot.balance()
    assert done.done and [each.id for each in done.moves] == [each.id for each in plan.moves]
    assert all(each.done and each.downtime == 0.5 for each in done.moves)
    assert len(hot.carried) == len(plan.moves)
    again = hot.balance()
    assert again.moves == ()
    assert again.reason.startswith("nothing worth moving")


@pytest.mark.parametrize("seed", range(5))
def test_run_a_hundred_times_under_noise_moves_stop_after_the_first(hot: Hosts, seed: int) -> None:
    """Every half an hour for two days, longer than what was moved rests; each use is up to a quarter more or less."""
    hot.noise = random.Random(seed)
    first = hot.balance()
    assert first.moves
    moved = len(hot.carried)
    for _ in range(99):
        hot.clock += 1800
        found = hot.balance()
        assert found.moves == (), found
    assert len(hot.carried) == moved


def test_what_cannot_leave_is_not_asked_for_and_what_fails_is_not_asked_for_again(hot: Hosts) -> None:
    pinned = list(hot.places)[:10]
    hot.pinned = dict.fromkeys(pinned, "it has volume data, which stays on its host")
    hot.refuses = {list(hot.places)[10]: "the link was cut"}
    found = hot.balance()
    assert not set(pinned) & {each.id for each in found.moves}
    failed = [each for each in found.moves if not each.done]
    assert [(each.problem, each.hint) for each in failed] in ([], [("the link was cut", "see there")])
    assert all(each.done for each in found.moves if each.id not in hot.refuses)


def test_the_plan_is_kept_while_what_changes_does_not_matter(hot: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    from bulkhead.cluster import rebalancing

    plans = []
    planned = rebalancing.rebalance

    def counted(*arguments: object, **more: object) -> object:
        plans.append(planned(*arguments, **more))  # type: ignore[arg-type]
        return plans[-1]

    monkeypatch.setattr(rebalancing, "rebalance", counted)
    carry = hot.carry

    def busy(instance: str, source: Host, target: str, progress: object) -> Moved:
        if len(hot.carried) == 1:
            hot.put(3, 1, memory=GIB, uses=GIB // 10)  # somebody makes something small
        return carry(instance, source, target, progress)

    monkeypatch.setattr(hot, "carry", busy)
    assert len(hot.balance().moves) == len(plans[0].steps)
    assert len(plans) == 1


def test_the_plan_is_made_anew_where_its_next_move_is_not_allowed_any_more(hot: Hosts) -> None:
    carry = hot.carry

    def drained(instance: str, source: Host, target: str, progress: object) -> Moved:
        moved = carry(instance, source, target, progress)
        hot.mark(host(3).id, HostState.DRAINING)
        return moved

    hot.carry = drained  # type: ignore[method-assign]
    found = hot.balance()
    later = found.moves[1:]
    assert later and {each.target for each in later} == {"host2"}


def test_what_one_host_refuses_the_next_best_is_asked_for(hot: Hosts) -> None:
    hot.closed = {host(3).id: "port 80 is taken there"}
    found = hot.balance()
    made, refused = [each for each in found.moves if each.done], [each for each in found.moves if not each.done]
    assert made and {each.target for each in made} == {"host2"}
    assert refused and {(each.target, each.problem) for each in refused} == {("host3", "port 80 is taken there")}
    assert len(hot.asked) == len(set(hot.asked)), "asked for the same twice"
    assert {each.id for each in refused} & {each.id for each in made}, "nothing of what was refused has gone elsewhere"


def test_where_all_hosts_refuse_it_ends(hot: Hosts) -> None:
    hot.closed = {host(2).id: "no", host(3).id: "no"}
    found = hot.balance()
    assert not [each for each in found.moves if each.done]
    assert len(hot.asked) == len(set(hot.asked)) >= 2


def test_sold_counts_where_that_is_asked_for() -> None:
    hosts = Hosts([host(1), host(2)])
    hosts.put(1, 12, uses=GIB // 100)
    assert hosts.balance(dry_run=True).moves == ()
    assert hosts.balance(dry_run=True, by="sold").moves


def test_a_host_that_does_not_say_what_it_has_takes_no_part(hot: Hosts) -> None:
    hot.unheard = [host(3).id]
    found = hot.balance()
    assert found.unheard == ("host3",)
    assert {each.target for each in found.moves} == {"host2"}


def test_whole_hosts_are_freed_and_the_power_is_told() -> None:
    hosts = Hosts([host(number, labels=WATTS) for number in (1, 2, 3)])
    hosts.put(1, 6)
    hosts.put(2, 2)
    hosts.put(3, 3)
    plan = hosts.balance(consolidate=True, dry_run=True)
    assert hosts.carried == []
    found = hosts.balance(consolidate=True)
    assert [each.host for each in found.freed] == [each.host for each in plan.freed]
    assert found.freed and all(each.done for each in found.freed)
    assert found.watts is not None and found.watts > 50 * len(found.freed)
    by_name = {each.name: each for each in hosts.hosts}
    for freed in found.freed:
        assert by_name[freed.host].state is HostState.DRAINING  # nothing new until somebody says so
        assert not [place for place in hosts.places.values() if place.host == by_name[freed.host].id]
    assert sum(hosts.counts()) == 11
    assert hosts.balance(consolidate=True).moves == ()


def test_power_is_unknown_where_nobody_said_what_hosts_draw() -> None:
    hosts = Hosts([host(1), host(2, labels=WATTS)])
    hosts.put(1, 2)
    hosts.put(2, 4)
    found = hosts.balance(consolidate=True, dry_run=True)
    assert found.freed and found.freed[0].watts is None
    assert found.watts is None


def test_a_host_that_is_not_freed_takes_instances_again() -> None:
    hosts = Hosts([host(1), host(2)])
    hosts.put(1, 2)
    hosts.put(2, 5)
    hosts.refuses = {next(iter(hosts.places)): "no"}
    found = hosts.balance(consolidate=True)
    assert [(each.done, each.problem) for each in found.freed] == [(False, "i1 stays: no")]
    assert {each.state for each in hosts.hosts} == {HostState.READY}
    # Also where nobody wants it any more.
    carry = hosts.carry

    def cancelled(step: Step) -> None:
        raise BrokenPipeError

    hosts.refuses = {}
    fleet = Fleetwide(hosts.look, hosts.measure, carry, hosts.mark)
    with pytest.raises(BrokenPipeError):
        balance(fleet, Aim(consolidate=True), cancelled)
    assert {each.state for each in hosts.hosts} == {HostState.READY}


def test_what_changes_while_a_host_is_freed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts([host(1), host(2)])
    hosts.put(1, 2)
    hosts.put(2, 5)
    carry = hosts.carry

    def filled(instance: str, source: Host, target: str, progress: object) -> Moved:
        moved = carry(instance, source, target, progress)
        hosts.put(2, 1, memory=38 * GIB)
        return moved

    monkeypatch.setattr(hosts, "carry", filled)
    found = hosts.balance(consolidate=True)
    assert not found.freed[0].done
    assert CHANGED in found.freed[0].problem
    assert {each.state for each in hosts.hosts} == {HostState.READY}


def test_only_as_many_hosts_are_freed_as_the_moves_are_enough_for() -> None:
    hosts = Hosts([host(number) for number in range(1, 5)])
    for number, count in ((1, 2), (2, 3), (3, 4), (4, 4)):
        hosts.put(number, count)
    found = hosts.balance(consolidate=True, most_moves=2, dry_run=True)
    assert len(found.moves) <= 2


@pytest.mark.parametrize(
    ("labels", "watts"),
    [
        ({}, None),
        ({"power.idle": "90"}, None),
        ({"power.idle": "90", "power.peak": "210.5"}, (90.0, 210.5)),
    ],
)
def test_what_a_host_draws_is_told_by_its_labels(labels: dict[str, str], watts: tuple[float, float] | None) -> None:
    assert host(1, labels=labels).watts == watts


@pytest.mark.parametrize(
    "labels",
    [{"power.idle": "much"}, {"power.peak": "-3"}, {"power.idle": "9e9"}, {"power.idle": "200", "power.peak": "90"}],
)
def test_nonsense_about_power_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"power|draw"):
        _ = host(1, labels=labels).watts


def test_labels_go_before_the_configuration() -> None:
    machine = host(1).machine.model_copy(update={"idle_watts": 50.0, "peak_watts": 100.0})
    assert host(1, machine=machine).watts == (50.0, 100.0)
    assert host(1, machine=machine, labels={"power.peak": "180"}).watts == (50.0, 180.0)
