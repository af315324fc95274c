"""From a problem to its core, and from bins back to places."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from bulkhead.advise.packing.core import UNLIMITED, Bin, Bools, Core, Ints
from bulkhead.advise.packing.model import SLACK, Floats, Place, Problem
from bulkhead.errors import Problem as Wrong
from bulkhead.errors import Refused


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """The core, and what its classes and kinds stand for."""

    core: Core
    classes: tuple[tuple[tuple[int, ...], ...], ...]
    """Of each class its members, each a group of item indexes."""
    kinds: tuple[tuple[Place, ...] | None, ...]
    """Of each kind that is one host with fixed items that host; None for the others ..."""
    types: tuple[tuple[int, ...], ...]
    """... which are hosts of these types."""
    fixed: dict[str, Place]
    """Items that stay where they are, and those that are together with them ..."""
    spent: float
    """... and what their hosts cost, and their extras."""


def build(problem: Problem) -> Built:
    """Raises Refused where rules contradict one another."""
    groups = _groups(problem)
    where = _fixed(problem, groups)
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    clash = _clashes(problem, groups, group_of)
    size, room = _sizes(problem, groups)
    allowed, extra = _tables(problem, groups)
    loads: dict[Place, list[int]] = defaultdict(list)
    for number, place in where.items():
        loads[place].append(number)
    types = {host.name: index for index, host in enumerate(problem.hosts)}
    _groups_fit(problem, groups, size, room, allowed)
    _fixed_fit(problem, loads, size, room, clash=clash, types=types)
    free = np.array([number for number in range(len(groups)) if number not in where], np.int64)
    limits = np.array([UNLIMITED if host.count is None else host.count for host in problem.hosts], np.int64)
    cost = np.array([host.cost for host in problem.hosts], np.float64)
    rows: list[tuple[Floats, float, int, Bools, Floats, Place | None, int]] = []
    spent = 0.0
    for place, held in sorted(loads.items()):
        kind = types[place.type]
        limits[kind] -= limits[kind] < UNLIMITED
        spent += float(cost[kind] + extra[held, kind].sum())
        may = allowed[free, kind]
        if clash is not None:
            may = may & ~clash[np.ix_(free, np.array(held))].any(axis=1)
        left = np.maximum(room[kind] - size[held].sum(axis=0), 0.0)
        rows.append((left, 0.0, 1, may, extra[free, kind], place, kind))
    for kind in range(len(problem.hosts)):
        rows.append((room[kind], cost[kind], int(limits[kind]), allowed[free, kind], extra[free, kind], None, kind))
    fixed = {problem.items[index].name: place for number, place in where.items() for index in groups[number]}
    among = None if clash is None else clash[np.ix_(free, free)]
    return _alike(groups, free, size[free], among, rows=rows, stay=fixed, spent=spent)


def _groups(problem: Problem) -> list[tuple[int, ...]]:
    """Items that are together, each in one group."""
    index = {item.name: number for number, item in enumerate(problem.items)}
    root = list(range(len(problem.items)))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for rule in problem.affinity:
        numbers = sorted(index[name] for name in rule)
        for other in numbers[1:]:
            first, second = sorted((find(numbers[0]), find(other)))
            root[second] = first
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(problem.items)):
        groups[find(number)].append(number)
    return [tuple(group) for group in groups.values()]


def _fixed(problem: Problem, groups: list[tuple[int, ...]]) -> dict[int, Place]:
    where, wrong = {}, []
    for number, group in enumerate(groups):
        named = [problem.items[index].name for index in group]
        places = sorted({problem.fixed[name] for name in named if name in problem.fixed})
        if len(places) > 1:
            wrong.append(Wrong(f"{', '.join(named)} are together and fixed on several hosts", "free all but one"))
        elif places:
            where[number] = places[0]
    if wrong:
        raise Refused(wrong)
    return where


def _clashes(problem: Problem, groups: list[tuple[int, ...]], group_of: dict[int, int]) -> Bools | None:
    if not any(len(rule) > 1 for rule in problem.anti_affinity):
        return None
    index = {item.name: number for number, item in enumerate(problem.items)}
    clash = np.zeros((len(groups), len(groups)), np.bool_)
    wrong = []
    for rule in problem.anti_affinity:
        numbers = [group_of[index[name]] for name in sorted(rule)]
        if len(set(numbers)) < len(numbers):
            wrong.append(Wrong(f"{', '.join(sorted(rule))} are to be apart and together", "drop one of the rules"))
        clash[np.ix_(numbers, numbers)] = True
    if wrong:
        raise Refused(wrong)
    np.fill_diagonal(clash, False)
    return clash


def _sizes(problem: Problem, groups: list[tuple[int, ...]]) -> tuple[Floats, Floats]:
    """(groups, resources x steps) and (types, resources x steps), as parts of the largest capacity of each resource."""
    steps, resources = problem.steps, len(problem.resources)
    capacity = np.array([np.asarray(host.capacity, np.float64) for host in problem.hosts])
    scale = capacity.max(axis=0)
    scale[scale <= 0] = 1.0
    size = np.zeros((len(groups), resources, steps))
    for number, group in enumerate(groups):
        for index in group:
            demand = np.asarray(problem.items[index].demand, np.float64)
            size[number] += (demand if demand.ndim == 2 else demand[:, None]) / scale[:, None]
    room = np.repeat(capacity / scale, steps, axis=1)
    return size.reshape(len(groups), resources * steps), room


def _tables(problem: Problem, groups: list[tuple[int, ...]]) -> tuple[Bools, Floats]:
    """(groups, types): whether it may be there, and what it costs more."""
    types = {host.name: index for index, host in enumerate(problem.hosts)}
    allowed = np.ones((len(groups), len(types)), np.bool_)
    extra = np.zeros((len(groups), len(types)))
    for number, group in enumerate(groups):
        for item in (problem.items[index] for index in group):
            if item.hosts is not None:
                allowed[number] &= [host.name in item.hosts for host in problem.hosts]
            for name, cost in item.extra.items():
                extra[number, types[name]] += cost
    return allowed, extra


def _groups_fit(problem: Problem, groups: list[tuple[int, ...]], size: Floats, room: Floats, allowed: Bools) -> None:
    wrong = []
    for number, group in enumerate(groups):
        if len(group) > 1 and not (allowed[number] & (size[number] <= room * (1 + SLACK)).all(axis=1)).any():
            named = ", ".join(problem.items[index].name for index in group)
            wrong.append(Wrong(f"{named} are to be together, and no host may or can hold them all", "free one of them"))
    if wrong:
        raise Refused(wrong)


def _fixed_fit(
    problem: Problem,
    loads: dict[Place, list[int]],
    size: Floats,
    room: Floats,
    *,
    clash: Bools | None,
    types: dict[str, int],
) -> None:
    wrong = []
    for place, held in sorted(loads.items()):
        if (size[held].sum(axis=0) > room[types[place.type]] * (1 + SLACK)).any():
            wrong.append(Wrong(f"what is fixed on {place.type} {place.number} is more than it has", "free some of it"))
        if clash is not None and clash[np.ix_(held, held)].any():
            wrong.append(Wrong(f"what is fixed on {place.type} {place.number} is to be apart", "free some of it"))
    named = {item.name: item for item in problem.items}
    for name, place in sorted(problem.fixed.items()):
        hosts = named[name].hosts
        if hosts is not None and place.type not in hosts:
            wrong.append(Wrong(f"{name} is fixed on a {place.type}, where it may not be", "free it, or allow the type"))
    if wrong:
        raise Refused(wrong)


def _alike(
    groups: list[tuple[int, ...]],
    free: Ints,
    size: Floats,
    clash: Bools | None,
    *,
    rows: list[tuple[Floats, float, int, Bools, Floats, Place | None, int]],
    stay: dict[str, Place],
    spent: float,
) -> Built:
    """One row for each class and each kind."""
    kinds: dict[bytes, list[int]] = defaultdict(list)
    for number, (left, cost, limit, may, extra, place, _) in enumerate(rows):
        if limit > 0 and (len(free) == 0 or may.any()):
            own = b"" if place is None else str(number).encode()
            kinds[own + left.tobytes() + np.float64(cost).tobytes() + may.tobytes() + extra.tobytes()].append(number)
    chosen = [numbers[0] for numbers in kinds.values()]
    limits = [min(UNLIMITED, sum(rows[number][2] for number in numbers)) for numbers in kinds.values()]
    room = np.array([rows[number][0] for number in chosen]).reshape(len(chosen), size.shape[1])
    allowed = np.array([rows[number][3] for number in chosen], np.bool_).reshape(len(chosen), len(free)).T
    extra = np.array([rows[number][4] for number in chosen]).reshape(len(chosen), len(free)).T
    fits = {row.tobytes(): (size <= row * (1 + SLACK)).all(axis=1) for row in np.unique(room, axis=0)}
    allowed = allowed & np.array([fits[row.tobytes()] for row in room], np.bool_).reshape(allowed.shape[::-1]).T
    alike: dict[bytes, list[int]] = defaultdict(list)
    for row in range(len(free)):
        own = str(row).encode() if clash is not None and clash[row].any() else b""
        alike[own + size[row].tobytes() + allowed[row].tobytes() + extra[row].tobytes()].append(row)
    first = np.array([members[0] for members in alike.values()], np.int64)
    core = Core(
        size[first],
        np.array([len(members) for members in alike.values()], np.int64),
        room * (1 + SLACK) + 1e-12,
        np.array([rows[number][1] for number in chosen], np.float64),
        np.array(limits, np.int64),
        allowed[first],
        extra[first],
        None if clash is None else clash[np.ix_(first, first)],
    )
    fixed = [rows[number][5] for number in chosen]
    return Built(
        core,
        tuple(tuple(groups[free[row]] for row in members) for members in alike.values()),
        tuple(None if place is None else (place,) for place in fixed),
        tuple(tuple(rows[number][6] for number in numbers) for numbers in kinds.values()),
        stay,
        spent,
    )


def places(problem: Problem, built: Built, bins: list[Bin]) -> dict[str, Place]:
    """Item -> place. Where hosts are alike, items stay where they were at the start as far as one host after the other
    tells."""
    left = [list(members) for members in built.classes]
    found = dict(built.fixed)
    taken = set(found.values())
    held: list[tuple[int, list[str]]] = []
    for kind, classes in bins:
        groups = [left[one].pop(0) for one in classes]
        held.append((kind, [problem.items[index].name for group in groups for index in group]))
    wishes = []
    for number, (kind, items) in enumerate(held):
        votes = Counter(problem.start[name] for name in items if name in problem.start)
        named = {problem.hosts[one].name for one in built.types[kind]}
        wishes += [(-count, place, number) for place, count in votes.items() if place.type in named]
    given: dict[int, Place] = {}
    counts = {host.name: UNLIMITED if host.count is None else host.count for host in problem.hosts}
    for _, place, number in sorted(wishes):
        fixed = built.kinds[held[number][0]]
        if fixed is None and number not in given and place not in taken and 0 <= place.number < counts[place.type]:
            given[number] = place
            taken.add(place)
    following: Counter[str] = Counter()
    for number, (kind, items) in enumerate(held):
        fixed = built.kinds[kind]
        place = fixed[0] if fixed else given.get(number) or _next(problem, built.types[kind], taken, following)
        taken.add(place)
        found |= dict.fromkeys(items, place)
    return found


def _next(problem: Problem, types: tuple[int, ...], taken: set[Place], following: Counter[str]) -> Place:
    """The first host of these types that is not taken."""
    for index in types:
        host = problem.hosts[index]
        while host.count is None or following[host.name] < host.count:
            place = Place(host.name, following[host.name])
            if place not in taken:
                return place
            following[host.name] += 1
    raise AssertionError("more hosts than there are")
