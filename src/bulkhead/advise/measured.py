"""What was measured on servers, by counters that grow: made into an estate in which each server has one workload,
itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bulkhead.advise.entries import Entries, ServerEntry, Told, Where, WorkloadEntry
from bulkhead.advise.troubles import Troubles
from bulkhead.advise.uses import Uses

if TYPE_CHECKING:
    from bulkhead.advise.estate import Series

USUAL_GHZ = 2.0
"""Of a server that does not tell its clock."""
MOST_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a server. Counters: seconds of busy cores, bytes received and sent since it has booted."""

    time: float
    busy: float
    memory: float
    """Bytes in use that cannot be given back at once."""
    disk: float
    received: float
    sent: float


@dataclass(slots=True)
class Measured:
    """One server."""

    name: str
    where: Where
    cores: int
    memory: int
    disk: int
    ghz: float | None = None
    network: int | None = None
    samples: list[Sample] = field(default_factory=list)


def entries(servers: Sequence[Measured], troubles: Troubles) -> tuple[Entries, Uses | None]:
    """Each as a server with a workload of its name, over the time that all were measured in."""
    import numpy as np

    for each in servers:
        each.samples.sort(key=lambda sample: sample.time)
        if len(each.samples) < 2:
            troubles.add(
                each.where.at(""), f"{each.name} was looked at once: use is what counters grow by, so it takes two"
            )
    if troubles or not servers:
        return Entries((), ()), None
    start = max(each.samples[0].time for each in servers)
    end = min(each.samples[-1].time for each in servers)
    gaps = [after.time - before.time for each in servers for before, after in _pairs(each.samples)]
    step = max(float(np.median(gaps)), 0.1)
    steps = int((end - start) / step + 1e-6)
    if not 1 <= steps <= MOST_STEPS:
        what = f"the servers were measured over {end - start:g} s together, in steps of {step:g} s"
        troubles.add(servers[0].where.at(""), what, "measure all of them over the same time")
        return Entries((), ()), None
    edges = start + step * np.arange(steps + 1)
    told: list[tuple[Told[ServerEntry], Told[WorkloadEntry]]] = []
    series: dict[str, Series] = {}
    for each in servers:
        if (made := _told(each, troubles)) is not None:
            told.append(made)
            series[each.name] = _series(each, edges)
    clockless = [each.name for each in servers if each.ghz is None]
    notes = [f"{len(clockless)} servers do not tell their clock: {USUAL_GHZ} GHz is taken"] if clockless else []
    found = Entries(tuple(server for server, _ in told), tuple(workload for _, workload in told), notes=tuple(notes))
    # One interval is a mean without a time.
    return found, Uses(start, step, steps, series)


def _pairs(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    return list(pairwise(samples))


def _told(each: Measured, troubles: Troubles) -> tuple[Told[ServerEntry], Told[WorkloadEntry]] | None:
    fields = {
        "name": each.name,
        "cores": each.cores,
        "ghz": each.ghz or USUAL_GHZ,
        "memory": each.memory,
        "disk": each.disk,
        **({"network": each.network} if each.network else {}),
    }
    try:
        server = ServerEntry.model_validate(fields)
        workload = WorkloadEntry.model_validate({"name": each.name, "server": each.name})
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            troubles.add(each.where.at(""), f"server {each.name[:100]!r}: {problem['loc'][0]}: {problem['msg']}")
        return None
    return Told(server, each.where), Told(workload, each.where)


def _series(each: Measured, edges: Series) -> Series:
    """(4, steps): rates between the edges, and the larger of the amounts at them."""
    import numpy as np

    times = np.array([sample.time for sample in each.samples])
    step = float(edges[1] - edges[0])

    def rate(counts: Sequence[float]) -> Series:
        # A counter that falls has begun anew: the server has booted.
        grown = np.diff(np.array(counts, dtype=np.float64), prepend=counts[0])
        total = np.cumsum(np.where(grown < 0, 0.0, grown))
        return np.asarray(np.diff(np.interp(edges, times, total)) / step, dtype=np.float32)

    def amount(values: Sequence[float]) -> Series:
        at = np.interp(edges, times, np.array(values, dtype=np.float64))
        return np.asarray(np.maximum(at[1:], at[:-1]), dtype=np.float32)

    made = np.zeros((4, len(edges) - 1), dtype=np.float32)
    made[0] = np.minimum(rate([sample.busy for sample in each.samples]), each.cores)
    made[1] = np.minimum(amount([sample.memory for sample in each.samples]), each.memory)
    made[2] = np.minimum(amount([sample.disk for sample in each.samples]), each.disk)
    received, sent = (rate([getattr(sample, way) for sample in each.samples]) for way in ("received", "sent"))
    made[3] = np.maximum(received, sent) * 8
    if each.network:
        made[3] = np.minimum(made[3], each.network)
    return made
