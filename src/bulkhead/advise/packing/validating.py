"""Everything that is wrong with a problem, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from bulkhead.advise.packing.model import SLACK, Floats, HostType, Item, Problem
from bulkhead.errors import Problem as Wrong
from bulkhead.errors import Refused


def validate(problem: Problem) -> None:
    """Raises Refused with all that is wrong with the numbers and the names."""
    found = [*_hosts(problem), *_items(problem)]
    known = {item.name for item in problem.items}
    named = {host.name for host in problem.hosts}
    for rule, sets in (("anti-affinity", problem.anti_affinity), ("affinity", problem.affinity)):
        found += [
            Wrong(f"{rule} names {name}, which is no item", "name items, or leave it out")
            for name in sorted(set().union(*sets) - known)
        ]
    for what, places in (("fixed", problem.fixed), ("start", problem.start)):
        for name, place in sorted(places.items()):
            if name not in known:
                found.append(Wrong(f"{what} names {name}, which is no item", "name items, or leave it out"))
            if place.type not in named:
                found.append(Wrong(f"{what} has {name} on {place.type}, which is no host type", "name a host type"))
    limits = {host.name: host.count for host in problem.hosts}
    for name, place in sorted(problem.fixed.items()):
        count = limits.get(place.type)
        if place.number < 0 or (count is not None and place.number >= count):
            found.append(
                Wrong(f"{name} is fixed on {place.type} {place.number}, and there are {count}", "count from 0")
            )
    if found:
        raise Refused(found)


def _hosts(problem: Problem) -> Iterator[Wrong]:
    yield from _twice("host type", [host.name for host in problem.hosts])
    yield from _twice("resource", problem.resources)
    if not problem.resources:
        yield Wrong("there is no resource", "name one at least")
    if not problem.hosts:
        yield Wrong("there is no host type", "give one at least")
    for host in problem.hosts:
        yield from _host(host, len(problem.resources))


def _host(host: HostType, resources: int) -> Iterator[Wrong]:
    capacity = np.asarray(host.capacity, np.float64)
    if capacity.shape != (resources,):
        yield Wrong(f"{host.name}: its capacity has shape {capacity.shape}", f"give {resources} numbers")
    elif not (np.isfinite(capacity).all() and (capacity >= 0).all()):
        yield Wrong(f"{host.name}: its capacity is {capacity.tolist()}", "give finite numbers of 0 or more")
    if not (np.isfinite(host.cost) and host.cost >= 0):
        yield Wrong(f"{host.name}: its cost is {host.cost}", "give a finite number of 0 or more")
    if host.count is not None and host.count < 0:
        yield Wrong(f"{host.name}: its count is {host.count}", "give 0 or more, or None")


def _items(problem: Problem) -> Iterator[Wrong]:
    yield from _twice("item", [item.name for item in problem.items])
    resources, steps = len(problem.resources), problem.steps
    named = {host.name for host in problem.hosts}
    capacities = _capacities(problem)
    for item in problem.items:
        demand = np.asarray(item.demand, np.float64)
        if demand.shape not in ((resources,), (resources, steps)):
            hint = f"give {resources} numbers" + (f" or {resources} rows of {steps}" if steps > 1 else "")
            yield Wrong(f"{item.name}: its demand has shape {demand.shape}", hint)
        elif not (np.isfinite(demand).all() and (demand >= 0).all()):
            yield Wrong(f"{item.name}: its demand has a number below 0, or none", "give finite numbers of 0 or more")
        else:
            yield from _fits(problem, item, demand.reshape(resources, -1).max(axis=1, initial=0.0), capacities)
        for name in sorted((item.hosts or frozenset()) - named):
            yield Wrong(f"{item.name}: {name} is no host type", "name a host type")
        for name, cost in sorted(item.extra.items()):
            if name not in named:
                yield Wrong(f"{item.name}: {name} is no host type", "name a host type")
            if not (np.isfinite(cost) and cost >= 0):
                yield Wrong(f"{item.name}: its extra on {name} is {cost}", "give a finite number of 0 or more")


def _fits(problem: Problem, item: Item, peak: Floats, capacities: Floats | None) -> Iterator[Wrong]:
    """Whether some host type can hold it, alone; `capacities`: (types, resources), None where some are wrong."""
    if capacities is None:
        return
    holds = np.all(peak <= capacities * (1 + SLACK), axis=1)
    if item.hosts is not None:
        holds = holds & np.array([host.name in item.hosts for host in problem.hosts])
    if not holds.any():
        needs = ", ".join(f"{need:g} {name}" for name, need in zip(problem.resources, peak, strict=True))
        yield Wrong(f"{item.name} needs {needs}: no host that may hold it has as much", "add a larger host type")


def _capacities(problem: Problem) -> Floats | None:
    """(types, resources), below 0 for types of which there is none."""
    rows = [np.asarray(host.capacity, np.float64) for host in problem.hosts]
    if any(row.shape != (len(problem.resources),) for row in rows) or not rows:
        return None
    return np.array([row if host.count != 0 else row * 0 - 1 for row, host in zip(rows, problem.hosts, strict=True)])


def _twice(what: str, names: Iterable[str]) -> Iterator[Wrong]:
    for name, times in Counter(names).items():
        if times > 1:
            yield Wrong(f"{what} {name} is there {times} times", "give each a name of its own")
