"""The order in which everything is done, so that no host is ever over its capacity.

While a workload moves it is on both hosts. Servers that become hosts are prepared first, what stays on them is put
behind its wall there, and then workloads move one after the other: those first that free a server soonest. Where
moves wait for one another in a circle, one of them takes a detour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bulkhead.advise.sizing import Floats

What = Literal["prepare", "enclose", "move", "create", "retire"]
SLACK = 1e-6
"""Of a capacity."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. prepare: make `host` a host; enclose: put a workload behind its wall where it is; move: from
    `source` to `host`; create: a new one on `host`; retire: take the server `host` out."""

    what: What
    host: str
    workload: str = ""
    source: str = ""

    def __str__(self) -> str:
        if self.what in ("prepare", "retire"):
            return f"{self.what} {self.host}"
        if self.what == "move":
            return f"move {self.workload} from {self.source} to {self.host}"
        return f"{self.what} {self.workload} on {self.host}"


@dataclass(frozen=True, slots=True)
class Ordered:
    """The steps, and workloads that cannot get to their place in any order that was found."""

    steps: tuple[Step, ...]
    stuck: tuple[str, ...] = ()


def order(
    now: Mapping[str, str],
    then: Mapping[str, str],
    wants: Mapping[str, Floats],
    capacity: Mapping[str, tuple[float, ...]],
    *,
    hosts_already: frozenset[str] = frozenset(),
    walled: frozenset[str] = frozenset(),
) -> Ordered:
    """Workloads from where they are (`now`, "" for new ones) to where they shall be (`then`).

    `hosts_already`: servers that need not be prepared; `walled`: workloads that are behind their wall already.
    """
    import numpy as np

    used: dict[str, Floats] = {}
    held: dict[str, set[str]] = {}
    for name, host in now.items():
        if host:
            used[host] = used.get(host, 0.0) + wants[name]
            held.setdefault(host, set()).add(name)
    steps = [Step("prepare", host) for host in sorted(set(then.values()) - hosts_already)]
    steps += [
        Step("enclose", then[name], name) for name in sorted(then) if now[name] == then[name] and name not in walled
    ]
    at, waiting = dict(now), {name for name in then if now[name] != then[name]}

    def fits(name: str, host: str) -> bool:
        most = np.array(capacity[host])[:, None]
        return bool((used.get(host, 0.0) + wants[name] <= most * (1 + SLACK)).all())

    def carry(name: str, host: str) -> None:
        source = at[name]
        steps.append(Step("move", host, name, source) if source else Step("create", host, name))
        used[host] = used.get(host, 0.0) + wants[name]
        held.setdefault(host, set()).add(name)
        if source:
            used[source] = used[source] - wants[name]
            held[source].discard(name)
            if not held[source] and source not in kept:
                steps.append(Step("retire", source))
        at[name] = host

    kept = set(then.values())
    # Each takes one detour at most, so there is an end.
    detours: set[str] = set()
    while waiting:
        # New ones come last: what is there already has the better claim to room.
        ready = sorted(waiting, key=lambda name: (not at[name], len(held.get(at[name], ())), at[name], name))
        for name in ready:
            if fits(name, then[name]):
                carry(name, then[name])
                waiting.discard(name)
        if len(waiting) < len(ready):
            continue
        detour = _detour([name for name in ready if at[name] and name not in detours], at, then, kept, fits)
        if detour is None:
            return Ordered(tuple(steps), tuple(sorted(waiting)))
        detours.add(detour[0])
        carry(*detour)
    return Ordered(tuple(steps))


def _detour(
    ready: Sequence[str],
    at: Mapping[str, str],
    then: Mapping[str, str],
    kept: set[str],
    fits: Callable[[str, str], bool],
) -> tuple[str, str] | None:
    """A workload that waits, and a host with room for it meanwhile. Each takes one detour at most, so there is an
    end."""
    for name in ready:
        for host in sorted(kept - {at[name], then[name]}):
            if fits(name, host):
                return name, host
    return None
