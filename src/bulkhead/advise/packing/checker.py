"""Whether an answer keeps everything that the problem asks for. Shares no code with the solver, on purpose: it is the
second opinion on every answer, in tests and at run time. Plain loops over hosts; each time step of each resource is
added up."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from bulkhead.advise.packing.model import Answer, Place, Problem

TOLERANCE = 1e-7
"""Of a capacity or a cost."""


def check(problem: Problem, answer: Answer) -> list[str]:
    """What is wrong with the answer, in words; [] where nothing is."""
    return [*_names(problem, answer), *_loads(problem, answer), *_rules(problem, answer), *_money(problem, answer)]


def _names(problem: Problem, answer: Answer) -> list[str]:
    """Each item is named once, on a host that exists."""
    wrong = []
    known = {item.name for item in problem.items}
    told = [*answer.places, *answer.unplaced]
    if len(told) != len(set(told)):
        wrong.append("an item has a place and none")
    wrong += [f"{name} is not told of" for name in sorted(known - set(told))]
    wrong += [f"{name} is no item" for name in sorted(set(told) - known)]
    counts = {host.name: host.count for host in problem.hosts}
    for name, place in sorted(answer.places.items()):
        if place.type not in counts:
            wrong.append(f"{name} is on a {place.type}, which is no host type")
            continue
        count = counts[place.type]
        if place.number < 0 or (count is not None and place.number >= count):
            wrong.append(f"{name} is on {place.type} {place.number}, and there are {count} of them")
    return wrong


def _loads(problem: Problem, answer: Answer) -> list[str]:
    """No host over its capacity in any resource at any time step."""
    wrong = []
    steps = problem.steps
    capacities = {host.name: np.asarray(host.capacity, np.float64) for host in problem.hosts}
    held = defaultdict(list)
    for item in problem.items:
        place = answer.places.get(item.name)
        if place is not None and place.type in capacities:
            held[place].append(item)
    for place, items in sorted(held.items(), key=lambda entry: entry[0]):
        capacity = capacities[place.type]
        for row, resource in enumerate(problem.resources):
            load = np.zeros(steps)
            for item in items:
                load += np.asarray(item.demand, np.float64)[row]
            over = load > capacity[row] + TOLERANCE * max(abs(capacity[row]), 1e-300)
            if over.any():
                step = int(np.argmax(load - capacity[row]))
                wrong.append(
                    f"{place.type} {place.number} has {capacity[row]:g} {resource}, and {load[step]:g} at {step}"
                )
        wrong += [
            f"{item.name} may not be on a {place.type}"
            for item in items
            if item.hosts is not None and place.type not in item.hosts
        ]
    return wrong


def _rules(problem: Problem, answer: Answer) -> list[str]:
    """Anti-affinity, affinity, fixed places."""
    wrong = []
    for rule in problem.anti_affinity:
        seen: dict[Place, str] = {}
        for name in sorted(rule):
            place = answer.places.get(name)
            if place is not None and place in seen:
                wrong.append(f"{seen[place]} and {name} are to be apart")
            if place is not None:
                seen[place] = name
    for rule in problem.affinity:
        if len({answer.places.get(name) for name in rule}) > 1:
            wrong.append(f"{', '.join(sorted(rule))} are to be together")
    wrong += [
        f"{name} is fixed on {place.type} {place.number}"
        for name, place in sorted(problem.fixed.items())
        if answer.places.get(name) != place
    ]
    return wrong


def _money(problem: Problem, answer: Answer) -> list[str]:
    """The cost is what it says, and no less than the bound where everything has its place."""
    costs = {host.name: host.cost for host in problem.hosts}
    used = set(answer.places.values())
    cost = math.fsum(costs.get(place.type, 0.0) for place in used)
    for item in problem.items:
        place = answer.places.get(item.name)
        if place is not None:
            cost += item.extra.get(place.type, 0.0)
    wrong = []
    if abs(cost - answer.cost) > TOLERANCE * max(1.0, abs(cost)):
        wrong.append(f"it costs {cost:g}, and {answer.cost:g} is told")
    if not answer.unplaced and answer.bound > cost + TOLERANCE * max(1.0, abs(cost)):
        wrong.append(f"it costs {cost:g}, below the bound {answer.bound:g}")
    return wrong
