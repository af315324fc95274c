"""The whole analysis: an estate and prices in, an advice out. Pure: nothing here asks a host or changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bulkhead.advise import checking, holding, ordering, power, recommending, simulating, sizing, weighing
from bulkhead.advise.arranging import Arrangement, Wish, arrange, room
from bulkhead.advise.estate import Estate, Load
from bulkhead.advise.holding import Held
from bulkhead.advise.ordering import Ordered, Step
from bulkhead.advise.prices import Prices
from bulkhead.advise.recommending import Recommended
from bulkhead.advise.simulating import Played
from bulkhead.advise.sizing import Sized, Slots, with_wall
from bulkhead.advise.weighing import Once, Side, Verdict
from bulkhead.errors import BulkheadError, Refused
from bulkhead.model import Isolation

MOST_PAIRS = 200_000


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to arrange the estate, for the front of cost against risk."""

    name: str
    what: str
    hosts: int
    cost: float
    """Of a year, without losses."""
    loss: float
    """All of it that is expected."""
    shared: float
    """The part of it that the arrangement makes: the data of neighbours, through walls."""
    best: bool = False
    """No other one costs no more and risks no more."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is recommended, and all that it rests on."""

    estate: Estate
    prices: Prices
    folded: Slots
    sizes: Mapping[str, Sized]
    walls: Mapping[str, Recommended]
    arrangement: Arrangement
    before: Side
    after: Side
    steps: tuple[Step, ...]
    once: Once
    verdict: Verdict
    played: Played
    held_out: Held | None
    variants: tuple[Variant, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long packing may take, and what chance begins with."""

    seconds: float = 10.0
    seed: int = 0


NO_WISH, USUAL = Wish(), Effort()


def advise(estate: Estate, prices: Prices, wish: Wish = NO_WISH, effort: Effort = USUAL) -> Advice:
    """Look at everything. Raises Refused where there is no answer."""
    unknown = sorted(wish.without - {server.name for server in estate.servers})
    if unknown:
        raise Refused(f"--without {', '.join(unknown)}: there is no such server")
    folded = sizing.slots(estate)
    sizes = sizing.sizes(estate, folded, prices)
    walls = _walls(estate, sizes, prices)
    levels = {name: wall.level for name, wall in walls.items()}
    # Half of the time is for the answer itself; the front of other ways and what is held out share the rest.
    half = Effort(effort.seconds / 2, effort.seed)
    made, ordered = _arranged(estate, levels, sizes, prices=prices, wish=wish, effort=half)
    old = weighing.before(estate, sizes, prices)
    new = weighing.after(estate, made, sizes, prices)
    change = weighing.once(estate, made, ordered.steps, prices)
    plans = {name: sized.plan for name, sized in sizes.items()}
    played = simulating.play(estate, made.places, made.bare, levels=levels, plans=plans, prices=prices)
    verdict = weighing.judge(old, new, change, ordered.steps, prices)
    held = holding.held_out(estate, levels, prices, wish, seconds=effort.seconds / 8, seed=effort.seed)
    variants = _variants(estate, levels, sizes, prices=prices, wish=wish, effort=effort, old=old, new=new)
    return Advice(
        estate,
        prices,
        folded,
        sizes,
        walls,
        made,
        old,
        new,
        ordered.steps,
        change,
        verdict,
        played,
        held,
        variants,
        estate.notes,
    )


def _walls(estate: Estate, sizes: Mapping[str, Sized], prices: Prices) -> dict[str, Recommended]:
    usual = sorted(power.fixed_year(server, prices) for server in estate.servers)[len(estate.servers) // 2]
    around = recommending.beside(
        estate.loads, [sizes[load.name] for load in estate.loads], estate.servers, usual, prices
    )
    return {load.name: recommending.recommend(load, sizes[load.name], around, prices) for load in estate.loads}


def _arranged(
    estate: Estate,
    levels: Mapping[str, Isolation],
    sizes: Mapping[str, Sized],
    *,
    prices: Prices,
    wish: Wish,
    effort: Effort,
) -> tuple[Arrangement, Ordered]:
    """An arrangement with an order that leads there. What no order leads to stays where it is, and the rest is looked
    at again."""
    wants = {name: with_wall(sized, levels[name], prices) for name, sized in sizes.items()}
    made = arrange(estate, levels, wants, prices, wish, seconds=effort.seconds, seed=effort.seed)
    ordered = order_of(estate, made, wants, prices)
    if ordered.stuck:
        # Each of them allowed no time away stays for certain.
        held = {
            name: replace(load, downtime=0.0)
            for load in estate.loads
            if (name := load.name) in ordered.stuck and load.server
        }
        again = replace(estate, loads=tuple(held.get(load.name, load) for load in estate.loads))
        made = arrange(again, levels, wants, prices, wish, seconds=effort.seconds, seed=effort.seed)
        ordered = order_of(estate, made, wants, prices)
        if ordered.stuck:
            raise Refused(
                f"no order of moves was found for {', '.join(ordered.stuck[:5])}",
                hint="another --seed, or a server that is free for the time of the change, may find one",
            )
    return made, ordered


def order_of(estate: Estate, made: Arrangement, wants: Mapping[str, sizing.Floats], prices: Prices) -> Ordered:
    """The order of an arrangement's steps, looked at by the checker. Raises BulkheadError where that finds anything."""
    moving = {load.name: load.server for load in estate.loads if load.name not in made.bare}
    then = {name: made.places[name] for name in moving}
    there = {server.name: room(server, prices) for server in estate.servers}
    # What stays as it is on a server that is none of the hosts is in nobody's way.
    walled = frozenset(load.name for load in estate.loads if load.wall is made.levels[load.name])
    ordered = ordering.order(moving, then, wants, there, hosts_already=estate.hosts, walled=walled)
    needed = set(made.places.values())
    now = estate.by_server()
    empty = [name for name, there in now.items() if not there and name not in needed]
    steps = tuple(step for step in ordered.steps if step.what != "retire" or step.host not in needed)
    steps = (*steps, *(Step("retire", name) for name in empty))
    if ordered.stuck:
        return ordered
    wrong = checking.check(steps, moving, then, wants, there, hosts_already=estate.hosts, walled=walled)
    if wrong:
        raise BulkheadError(
            f"the order of moves does not hold: {'; '.join(wrong[:3])}", hint="this is a bug: please report it"
        )
    return replace(ordered, steps=steps)


def _variants(
    estate: Estate,
    levels: Mapping[str, Isolation],
    sizes: Mapping[str, Sized],
    *,
    prices: Prices,
    wish: Wish,
    effort: Effort,
    old: Side,
    new: Side,
) -> tuple[Variant, ...]:
    """Other ways: stronger walls, risky ones apart from what is worth most, both; and leaving it as it is."""
    machines = dict.fromkeys(levels, Isolation.VM)
    apart = _risky_pairs(estate)
    tried: list[tuple[str, str, Mapping[str, Isolation], Wish]] = []
    tried.append(("machines", "every workload in a virtual machine", machines, wish))
    if apart is not None:
        what = "workloads that hear strangers never beside personal or secret data"
        tried.append(("apart", what, levels, replace(wish, apart=apart)))
        tried.append(("both", "both of these", machines, replace(wish, apart=apart)))
    found = [
        _variant("as it is", "nothing is done", old),
        _variant("recommended", "the walls that the rules choose, on the cheapest hosts", new),
    ]
    for name, what, walls, asked in tried:
        wants = {load: with_wall(sized, walls[load], prices) for load, sized in sizes.items()}
        try:
            made = arrange(estate, walls, wants, prices, asked, seconds=effort.seconds / 8, seed=effort.seed)
        except Refused:
            continue
        found.append(_variant(name, what, weighing.after(estate, made, sizes, prices)))
    return tuple(replace(each, best=not any(_beats(other, each) for other in found)) for each in found)


def _variant(name: str, what: str, side: Side) -> Variant:
    return Variant(name, what, len(side.hosts), side.costs.total, side.loss.total, side.loss.neighbour)


def _beats(one: Variant, other: Variant) -> bool:
    # By what an arrangement itself makes of the risk: the rest comes with the workloads, of which there may be more.
    no_worse = one.cost <= other.cost and one.shared <= other.shared
    return no_worse and (one.cost < other.cost or one.shared < other.shared)


def _risky_pairs(estate: Estate) -> tuple[frozenset[str], ...] | None:
    """Workloads that strangers may come in by, and those with data that is worth it; None: too many pairs to weigh."""
    risky = [load for load in estate.loads if load.workload.hostile_input or load.workload.trust == "public"]
    worth = [load for load in estate.loads if load.data in ("personal", "secret")]
    if len(risky) * len(worth) > MOST_PAIRS:
        return None
    kept = {frozenset((one.name, near)) for one in estate.loads for near in one.near}
    pairs = {frozenset((one.name, other.name)) for one in risky for other in worth if one is not other} - kept
    return tuple(sorted(pairs, key=sorted))


def fit(advice: Advice, wanted: tuple[float, float, float, float]) -> dict[str, int]:
    """How many more workloads that want the same at all times, in the order of RESOURCES, fit on each host
    afterwards."""
    import numpy as np

    found = {}
    servers = {server.name: server for server in advice.estate.servers}
    levels = advice.arrangement.levels
    for host in advice.after.hosts:
        if not host.host:
            continue
        used = sum(
            (with_wall(advice.sizes[name], levels[name], advice.prices) for name in host.workloads), np.zeros((4, 1))
        )
        left = np.array(room(servers[host.server], advice.prices))[:, None] - used
        times = [left[row].min() / wanted[row] for row in range(4) if wanted[row] > 0]
        found[host.server] = max(0, int(min(times) + 1e-9)) if times else 0
    return found


def more(estate: Estate, added: Sequence[Load]) -> Estate:
    """The estate with workloads that are still to come. Raises Refused where a name is taken."""
    names = {load.name for load in estate.loads}
    taken = [load.name for load in added if load.name in names]
    if taken:
        raise Refused(f"there is a workload {taken[0]} already")
    return replace(estate, loads=(*estate.loads, *added))
