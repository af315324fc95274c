"""The placement that the problem starts from, as a packing."""

from __future__ import annotations

from collections import defaultdict

from bulkhead.advise.packing.building import Built
from bulkhead.advise.packing.core import Bin
from bulkhead.advise.packing.greedy import Packing
from bulkhead.advise.packing.model import Place, Problem


def started(problem: Problem, built: Built) -> Packing | None:
    """None: it is not complete, or breaks a rule."""
    hosts: dict[Place, list[int]] = defaultdict(list)
    kind_of: dict[Place, int] = {}
    for one, members in enumerate(built.classes):
        for group in members:
            found = {problem.start.get(problem.items[index].name) for index in group}
            place = next(iter(found))
            if len(found) > 1 or place is None:
                return None
            kind = _kind(problem, built, place)
            if kind is None:
                return None
            hosts[place].append(one)
            kind_of[place] = kind
    bins: list[Bin] = [(kind_of[place], tuple(sorted(held))) for place, held in sorted(hosts.items())]
    used: dict[int, int] = defaultdict(int)
    for kind, _ in bins:
        used[kind] += 1
    core = built.core
    if any(used[kind] > core.limit[kind] for kind in used) or not all(core.fits(kind, held) for kind, held in bins):
        return None
    return Packing(bins, (), core.price(bins), "the start")


def _kind(problem: Problem, built: Built, place: Place) -> int | None:
    """The kind that a host is of."""
    for kind, fixed in enumerate(built.kinds):
        if fixed is not None and fixed[0] == place:
            return kind
    for kind, types in enumerate(built.types):
        if built.kinds[kind] is None and place.type in {problem.hosts[index].name for index in types}:
            return kind
    return None
