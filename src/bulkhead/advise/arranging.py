"""Which workload on which host: the estate as a problem of packing, and the answer as names of servers.

Servers that are alike are one type of host. A server can be a host if what runs on it now, behind walls, would leave
room for the host's own system. One that cannot may stay as it is: then it is a place for its own workloads alone. So
there is always an answer: everything stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkhead.advise import power
from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.prices import Prices
from bulkhead.errors import Problem, Refused
from bulkhead.model import Isolation

if TYPE_CHECKING:
    from bulkhead.advise.packing import Answer, HostType, Item, Place
    from bulkhead.advise.sizing import Floats

SWITCH_SECONDS = {Isolation.CHROOT: 5.0, Isolation.CONTAINER: 5.0, Isolation.VM: 30.0, Isolation.UNIKERNEL: 10.0}
"""Without the workload when it is put behind its wall where it is: a stop, a look at what has changed, a start."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What an arrangement is to keep besides room."""

    without: frozenset[str] = frozenset()
    """Servers that are not to be used any more."""
    apart: tuple[frozenset[str], ...] = ()
    """Workloads that must not share a host, beyond what the estate says itself."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Where everything goes."""

    places: Mapping[str, str]
    """Workload -> server."""
    bare: frozenset[str]
    """Workloads that stay as they are, without a wall, on a server that is no host."""
    levels: Mapping[str, Isolation]
    gap: float
    """By how much a better arrangement could be cheaper at most, as a part of its cost."""
    seconds: float

    @property
    def hosts(self) -> tuple[str, ...]:
        """Servers that are still needed."""
        return tuple(sorted(set(self.places.values())))


def room(server: Server, prices: Prices) -> tuple[float, float, float, float]:
    """What a host has for workloads: all but what its own system takes."""
    cpu, memory, disk, network = server.capacity
    return (cpu, max(0.0, memory - prices.of("host_memory") * MIB), disk, network)


def downtime(load: Load, level: Isolation, prices: Prices) -> float:
    """Seconds that a move takes it away: what has changed while it was copied is copied again while it is stopped."""
    disk = float(load.use[2].max())
    return disk * prices.of("changed") / (prices.of("copy_rate") * 1e6) + SWITCH_SECONDS[level]


def arrange(
    estate: Estate,
    levels: Mapping[str, Isolation],
    wants: Mapping[str, Floats],
    prices: Prices,
    wish: Wish,
    *,
    seconds: float,
    seed: int,
) -> Arrangement:
    """The cheapest arrangement that is found in about `seconds`. Raises Refused where a workload fits nowhere."""
    from bulkhead.advise.packing import HostType, pack
    from bulkhead.advise.packing import Problem as Packing

    servers = [server for server in estate.servers if server.name not in wish.without]
    hosts, kept = _roles(estate, servers, levels, wants, prices)
    groups = _groups(hosts, {load.hosts for load in estate.loads if load.hosts is not None})
    number = {server.name: (kind, at) for kind, members in groups.items() for at, server in enumerate(members)}
    now = estate.by_server()
    types = [_type(kind, members, prices) for kind, members in groups.items()]
    types += [
        HostType(f"={server.name}", _enough(now[server.name], wants), power.fixed_year(server, prices), 1)
        for server in kept
    ]
    items = [
        _item(load, levels[load.name], wants[load.name], kept=kept, groups=groups, number=number, prices=prices)
        for load in estate.loads
    ]
    stuck = [item.name for item in items if item.hosts is not None and not item.hosts]
    if stuck:
        raise Refused(
            [Problem(f"{name} may not be away for as long as a move takes, and its server is to go") for name in stuck]
        )
    packing = Packing(
        ("cpu", "memory", "disk", "network"),
        tuple(types),
        tuple(items),
        tuple(_apart(estate, wish)),
        tuple(frozenset((load.name, *load.near)) for load in estate.loads if load.near),
        _fixed(estate, levels, number, kept, prices),
        _start(estate, number, kept),
    )
    answer = pack(packing, seconds=seconds, seed=seed)
    if answer.unplaced:
        what = [
            Problem(f"there is no room for {name}", "leave it where it is, or add a host") for name in answer.unplaced
        ]
        raise Refused(what)
    places = _names(estate, answer, groups, packing.fixed)
    bare = frozenset(name for name, place in answer.places.items() if place.type.startswith("="))
    return Arrangement(places, bare, levels, answer.gap, answer.seconds)


def _roles(
    estate: Estate,
    servers: Sequence[Server],
    levels: Mapping[str, Isolation],
    wants: Mapping[str, Floats],
    prices: Prices,
) -> tuple[list[Server], list[Server]]:
    """Servers that can be hosts, and those that can only stay as they are."""
    import numpy as np

    now = estate.by_server()
    hosts: list[Server] = []
    kept: list[Server] = []
    for server in servers:
        there = now[server.name]
        most = np.array(room(server, prices))
        total = sum((wants[load.name] for load in there), np.zeros((4, 1)))
        waits = all(load.downtime is None or SWITCH_SECONDS[levels[load.name]] <= load.downtime for load in there)
        (hosts if waits and (total <= most[:, None]).all() else kept).append(server)
    return hosts, [server for server in kept if now[server.name]]


def _groups(hosts: Sequence[Server], asked: Collection[frozenset[str]]) -> dict[str, list[Server]]:
    """Servers that are alike, also in who may go there, under the name of the first."""
    sets = sorted(asked, key=sorted)
    groups: dict[tuple[object, ...], list[Server]] = defaultdict(list)
    for server in hosts:
        open_to = tuple(server.name in each for each in sets)
        key = (server.capacity, server.ghz, server.idle_watts, server.peak_watts, server.purchase, open_to)
        groups[key].append(server)
    return {members[0].name: members for members in groups.values()}


def _type(kind: str, members: Sequence[Server], prices: Prices) -> HostType:
    from bulkhead.advise.packing import HostType

    once = prices.of("prepare_host") * prices.of("staff") / prices.of("years")
    return HostType(kind, room(members[0], prices), power.fixed_year(members[0], prices) + once, len(members))


def _enough(there: Sequence[Load], wants: Mapping[str, Floats]) -> tuple[float, ...]:
    """What a server's own workloads want, all at their peaks: they run there, so there is room for them."""
    return tuple(sum(float(wants[load.name][row].max()) for load in there) * 1.001 + 1 for row in range(4))


def _item(
    load: Load,
    level: Isolation,
    want: Floats,
    *,
    kept: Sequence[Server],
    groups: Mapping[str, Sequence[Server]],
    number: Mapping[str, tuple[str, int]],
    prices: Prices,
) -> Item:
    from bulkhead.advise.packing import Item

    stays = {f"={server.name}" for server in kept if server.name == load.server}
    if load.downtime is not None and load.server and downtime(load, level, prices) > load.downtime:
        allowed = stays or ({number[load.server][0]} if load.server in number else set())
    else:
        allowed = {*_open(load, groups, number), *stays}
    mean = load.cpu_mean * (1 + (prices.of("vm_cpu") if level is Isolation.VM else 0))
    extra = {kind: power.ghz_year(members[0], prices) * mean for kind, members in groups.items() if kind in allowed}
    extra |= {
        f"={server.name}": power.ghz_year(server, prices) * load.cpu_mean
        for server in kept
        if server.name == load.server
    }
    return Item(load.name, want, frozenset(allowed), extra)


def _open(load: Load, groups: Mapping[str, Sequence[Server]], number: Mapping[str, tuple[str, int]]) -> set[str]:
    """Types of hosts that it may go to; where there is none, or no other server like its own, that one as well."""
    if load.hosts is None:
        return set(groups)
    found = {kind for kind, members in groups.items() if members[0].name in load.hosts}
    own = number[load.server][0] if load.server in number else None
    if own is not None and (not found or len(groups[own]) == 1):
        found.add(own)
    return found


def _apart(estate: Estate, wish: Wish) -> list[frozenset[str]]:
    pairs = {frozenset((load.name, other)) for load in estate.loads for other in load.apart}
    return [*sorted(pairs, key=sorted), *wish.apart]


def _fixed(
    estate: Estate,
    levels: Mapping[str, Isolation],
    number: Mapping[str, tuple[str, int]],
    kept: Sequence[Server],
    prices: Prices,
) -> dict[str, Place]:
    """Workloads that may not be away for as long as a move takes."""
    from bulkhead.advise.packing import Place

    bare = {server.name for server in kept}
    fixed = {}
    for load in estate.loads:
        if load.downtime is not None and load.server and downtime(load, levels[load.name], prices) > load.downtime:
            if load.server in bare:
                fixed[load.name] = Place(f"={load.server}", 0)
            elif load.server in number:
                fixed[load.name] = Place(*number[load.server])
    return fixed


def _start(estate: Estate, number: Mapping[str, tuple[str, int]], kept: Sequence[Server]) -> dict[str, Place]:
    """Everything where it is."""
    from bulkhead.advise.packing import Place

    bare = {server.name for server in kept}
    start = {}
    for load in estate.loads:
        if load.server in bare:
            start[load.name] = Place(f"={load.server}", 0)
        elif load.server in number:
            start[load.name] = Place(*number[load.server])
    return start


def _names(
    estate: Estate, answer: Answer, groups: Mapping[str, Sequence[Server]], fixed: Mapping[str, Place]
) -> dict[str, str]:
    """The answer's hosts as servers: each is a server of its type, so chosen that most stays where it is."""
    held: dict[Place, list[str]] = defaultdict(list)
    for name, place in answer.places.items():
        held[place].append(name)
    now = {load.name: load.server for load in estate.loads}
    taken: dict[Place, str] = {}
    for place in fixed.values():
        taken[place] = place.type[1:] if place.type.startswith("=") else groups[place.type][place.number].name
    for place in held:
        if place.type.startswith("="):
            taken[place] = place.type[1:]
    used, wishes = set(taken.values()), []
    for place, names in held.items():
        if place in taken:
            continue
        members = {server.name for server in groups[place.type]}
        for server in sorted({now[name] for name in names} & members):
            wishes.append((-sum(now[name] == server for name in names), place, server))
    for _, place, server in sorted(wishes):
        if place not in taken and server not in used:
            taken[place] = server
            used.add(server)
    for place in sorted(held):
        if place not in taken:
            taken[place] = next(server.name for server in groups[place.type] if server.name not in used)
            used.add(taken[place])
    return {name: taken[place] for name, place in answer.places.items()}
