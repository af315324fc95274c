"""The optimum by trying everything: for a handful of items."""

from __future__ import annotations

import numpy as np

from bulkhead.advise.packing import Place, Problem


def least_cost(problem: Problem) -> float | None:
    """None: there is no complete answer. Each item on each host in use, or on the first fresh one of each type."""
    items = list(problem.items)
    demand = {item.name: np.asarray(item.demand, np.float64).reshape(len(problem.resources), -1) for item in items}
    types = {host.name: host for host in problem.hosts}
    held: dict[Place, list[str]] = {}
    best: list[float | None] = [None]

    def allowed(name: str, place: Place) -> bool:
        item = next(one for one in items if one.name == name)
        if item.hosts is not None and place.type not in item.hosts:
            return False
        if name in problem.fixed and problem.fixed[name] != place:
            return False
        beside = held.get(place, [])
        if any(name in rule and set(beside) & rule for rule in problem.anti_affinity):
            return False
        elsewhere = {other for at, names in held.items() if at != place for other in names}
        if any(name in rule and elsewhere & rule for rule in problem.affinity):
            return False
        load = sum((demand[other] for other in beside), start=demand[name])
        capacity = np.asarray(types[place.type].capacity, np.float64)[:, None]
        return bool((load <= capacity * (1 + 1e-9)).all())

    def go(index: int, cost: float) -> None:
        if best[0] is not None and cost >= best[0]:
            return
        if index == len(items):
            best[0] = cost
            return
        name = items[index].name
        places = [place for place, names in held.items() if names]
        if name in problem.fixed:
            places = [problem.fixed[name]]
        else:
            for host in problem.hosts:
                taken = {place.number for place in held if place.type == host.name and held[place]}
                taken |= {place.number for place in problem.fixed.values() if place.type == host.name}
                most = len(items) + len(taken) if host.count is None else host.count
                fresh = next((number for number in range(most) if number not in taken), None)
                if fresh is not None:
                    places.append(Place(host.name, fresh))
            places += [place for place in sorted(set(problem.fixed.values())) if not held.get(place)]
        for place in dict.fromkeys(places):
            if allowed(name, place):
                new = not held.get(place)
                held.setdefault(place, []).append(name)
                go(index + 1, cost + items[index].extra.get(place.type, 0.0) + (types[place.type].cost if new else 0.0))
                held[place].pop()

    go(0, 0.0)
    return best[0]
