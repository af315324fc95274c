"""A second opinion on an order of moves: carried out step by step on paper, by code that shares nothing with
`ordering`."""

from __future__ import annotations

from collections import defaultdict
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
    there: dict[str, set[str]] = defaultdict(set)
    for name, host in now.items():
        there[host].add(name)
    ready, retired, enclosed = set(hosts_already), set[str](), set(walled)
    for number, step in enumerate(steps, 1):
        told = f"step {number} ({step})"
        if step.what == "prepare":
            ready.add(step.host)
        elif step.what == "retire":
            left = sorted(there[step.host])
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
            there[step.host].add(step.workload)
            held = [wants[name] for name in there[step.host]]
            wrong += [f"{told}: {problem}" for problem in _over(step.host, held, capacity[step.host])]
            for host in before:
                there[host].discard(step.workload)
            where[step.workload] = [step.host]
    return [*wrong, *_ends(now, then, where, enclosed)]


def _ends(
    now: Mapping[str, str], then: Mapping[str, str], where: Mapping[str, Sequence[str]], enclosed: set[str]
) -> list[str]:
    wrong = []
    for name, host in then.items():
        if where.get(name) != [host]:
            wrong.append(f"{name} ends on {', '.join(where.get(name, [])) or 'no host'} instead of {host}")
        if now[name] == host and name not in enclosed:
            wrong.append(f"{name} stays on {host} and never gets its wall")
    return wrong


def _over(host: str, there: Sequence[Floats], capacity: tuple[float, ...]) -> list[str]:
    import numpy as np

    total = np.sum(np.stack(list(there)), axis=0)
    over = []
    for row, most in enumerate(capacity):
        slot = int(np.argmax(total[row]))
        if total[row][slot] > most * (1 + TOLERANCE):
            over.append(f"{host} has {most:g} of resource {row}, and {total[row][slot]:g} are wanted in slot {slot}")
    return over
