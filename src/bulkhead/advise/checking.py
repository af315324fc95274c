"""A second opinion on an order of moves: carried out step by step on paper, by code that shares nothing with
`ordering`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkhead.advise.ordering import Step
    from bulkhead.advise.sizing import Floats

TOLERANCE = 1e-5


def check(
    steps: Sequence[Step],
    now: Mapping[str, str],
    then: Mapping[str, str],
    wants: Mapping[str, Floats],
    capacity: Mapping[str, tuple[float, ...]],
    *,
    hosts_already: frozenset[str] = frozenset(),
    walled: frozenset[str] = frozenset(),
) -> list[str]:
    """What is wrong with it, in words; [] where nothing is."""
    wrong: list[str] = []
    where = {name: [host] for name, host in now.items() if host}
    ready, retired, enclosed = set(hosts_already), set[str](), set(walled)
    for number, step in enumerate(steps, 1):
        told = f"step {number} ({step})"
        if step.what == "prepare":
            ready.add(step.host)
        elif step.what == "retire":
            left = sorted(name for name, hosts in where.items() if step.host in hosts)
            if left or step.host in then.values():
                wrong.append(f"{told}: {', '.join(left) or 'a workload to come'} needs it")
            retired.add(step.host)
        else:
            if step.host not in ready or step.host in retired:
                wrong.append(f"{told}: {step.host} is no host then")
            if step.what == "enclose":
                enclosed.add(step.workload)
                if where.get(step.workload) != [step.host]:
                    wrong.append(f"{told}: it is not there")
                continue
            before = where.get(step.workload, [])
            if before != ([step.source] if step.what == "move" else []):
                wrong.append(f"{told}: it is on {', '.join(before) or 'no host'}")
            # Both copies are there until it is done.
            where[step.workload] = [*before, step.host]
            wrong += [f"{told}: {problem}" for problem in _over(step.host, where, wants, capacity)]
            where[step.workload] = [step.host]
    for name, host in then.items():
        if where.get(name) != [host]:
            wrong.append(f"{name} ends on {', '.join(where.get(name, [])) or 'no host'} instead of {host}")
        if now[name] == host and name not in enclosed:
            wrong.append(f"{name} stays on {host} and never gets its wall")
    return wrong


def _over(
    host: str,
    where: Mapping[str, Sequence[str]],
    wants: Mapping[str, Floats],
    capacity: Mapping[str, tuple[float, ...]],
) -> list[str]:
    there = [wants[name] for name, hosts in where.items() if host in hosts]
    over = []
    for row, most in enumerate(capacity[host]):
        for slot in range(there[0].shape[1]):
            total = sum(float(each[row][slot]) for each in there)
            if total > most * (1 + TOLERANCE):
                over.append(f"{host} has {most:g} of resource {row}, and {total:g} are wanted in slot {slot}")
                break
    return over
