"""Entries become an estate: what does not fit together is told with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bulkhead.advise.entries import Entries, ServerEntry, Told, UseEntry, WorkloadEntry
from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.levels import Workload
from bulkhead.advise.troubles import Place, Troubles
from bulkhead.advise.uses import Uses

if TYPE_CHECKING:
    from bulkhead.advise.estate import Series

BEYOND = 1.02
"""A measurement may be above what a server has by this much: clocks and counters are not read at one moment."""
MOST_VALUES = 400_000_000


def build(entries: Entries, uses: Uses | None, sources: Sequence[str], troubles: Troubles) -> Estate | None:
    """The estate; None, and all that is wrong in `troubles`, where it is none."""
    servers = _servers(entries.servers, troubles)
    steps = uses.steps if uses else _steps(entries.workloads, troubles)
    _check_names(entries.workloads, servers, uses, sources, troubles)
    if len(entries.workloads) * steps * 4 > MOST_VALUES:
        troubles.add(
            entries.workloads[0].where.at(""), f"{len(entries.workloads)} workloads of {steps} steps are too many"
        )
    if troubles:
        return None
    loads = [_load(told, servers, uses, steps, troubles) for told in entries.workloads]
    notes = [*entries.notes, *(uses.notes if uses else ())]
    if steps == 1:
        notes.append(
            "there are no values over time: peaks are taken to coincide, and nothing is known of hours or days"
        )
    made = [load for load in loads if load is not None]
    return Estate(
        tuple(servers.values()),
        tuple(made),
        uses.start if uses else entries.start,
        uses.step if uses else entries.step,
        steps,
        tuple(sources),
        notes=tuple(notes),
    )


def _servers(told: Sequence[Told[ServerEntry]], troubles: Troubles) -> dict[str, Server]:
    found: dict[str, Server] = {}
    for each in told:
        entry = each.entry
        if entry.name in found:
            troubles.add(each.where.at("name"), f"server {entry.name} is there already: {found[entry.name].source}")
            continue
        idle, peak = entry.idle_watts, entry.peak_watts
        if (idle is None) != (peak is None):
            troubles.add(
                each.where.at("idle_watts"), f"server {entry.name} has one of idle_watts and peak_watts: give both"
            )
        elif idle is not None and peak is not None and peak < idle:
            troubles.add(
                each.where.at("peak_watts"),
                f"server {entry.name} draws less at its peak ({peak:g} W) than idle ({idle:g} W)",
            )
        found[entry.name] = Server(
            entry.name,
            entry.cores,
            entry.ghz,
            entry.memory,
            entry.disk,
            entry.network,
            _source(each),
            idle,
            peak,
            entry.purchase,
        )
    return found


def _source(told: Told[ServerEntry] | Told[WorkloadEntry]) -> str:
    place = told.where.at("")
    return f"{place.file}:{place.line}"


def _steps(told: Sequence[Told[WorkloadEntry]], troubles: Troubles) -> int:
    """The common length of all series."""
    steps, whose = 1, ""
    for each in told:
        use = each.entry.use
        for name in ("cpu", "memory", "disk", "network"):
            value = getattr(use, name, 0)
            length = len(value) if isinstance(value, list) else 1
            if length > 1 and steps > 1 and length != steps:
                what = f"{name} of {each.entry.name} has {length} values, and {whose} has {steps}"
                troubles.add(each.where.at(f"use.{name}"), what, "series are of the same moments")
            elif length > 1 and steps == 1:
                steps, whose = length, each.entry.name
    return steps


def _check_names(
    told: Sequence[Told[WorkloadEntry]],
    servers: Mapping[str, Server],
    uses: Uses | None,
    sources: Sequence[str],
    troubles: Troubles,
) -> None:
    names: dict[str, str] = {}
    known = {each.entry.name for each in told}
    for each in told:
        entry = each.entry
        if entry.name in names:
            troubles.add(each.where.at("name"), f"workload {entry.name} is there already: {names[entry.name]}")
        names[entry.name] = _source(each)
        if entry.server and entry.server not in servers and not (troubles and not servers):
            troubles.add(each.where.at("server"), f"workload {entry.name} is on {entry.server!r}, which is no server")
        for field, others in (("near", entry.near), ("apart", entry.apart)):
            for other in others:
                if other not in known or other == entry.name:
                    troubles.add(each.where.at(field), f"{field} of {entry.name}: {other!r} is no other workload")
        for other in {*entry.near} & {*entry.apart}:
            troubles.add(each.where.at("near"), f"{entry.name} is to be both near to {other} and apart from it")
        if entry.use is None and (uses is None or entry.name not in uses.series):
            hint = (
                f"it is not in {sources[-1]} either" if uses else "give cpu_peak, memory_used, disk_used, or --use FILE"
            )
            troubles.add(each.where.at("use"), f"nothing is told of what {entry.name} uses", hint)
    for name in sorted({*(uses.series if uses else ())} - known):
        troubles.add(
            told[0].where.at("") if told else _nowhere(sources),
            f"{sources[-1]} has use of {name!r}, which is no workload",
        )


def _nowhere(sources: Sequence[str]) -> Place:
    return Place(sources[0], 1)


def _load(
    told: Told[WorkloadEntry], servers: Mapping[str, Server], uses: Uses | None, steps: int, troubles: Troubles
) -> Load | None:
    entry = told.entry
    server = servers.get(entry.server)
    ghz = server.ghz if server else _usual_ghz(servers)
    given = uses.series.get(entry.name) if uses else None
    if given is not None:
        cores, mean = given, float(given[0].mean())
    elif entry.use is not None:
        made = _given(told, entry.use, server, steps, troubles)
        if made is None:
            return None
        cores, mean = made
    else:
        return None
    series = cores.copy()
    series[0] *= ghz
    if server:
        _check_fits(told, series, server, troubles)
    workload = Workload(entry.trust, entry.hostile_input, entry.needs_kernel, entry.system)
    return Load(
        entry.name,
        entry.server,
        workload,
        _source(told),
        series,
        mean * ghz,
        entry.owner,
        entry.data,
        entry.licence_per_core,
        entry.latency,
        entry.near,
        entry.apart,
        entry.downtime,
        entry.outage_hour,
    )


def _usual_ghz(servers: Mapping[str, Server]) -> float:
    clocks = sorted(server.ghz for server in servers.values())
    return clocks[len(clocks) // 2]


def _given(
    told: Told[WorkloadEntry], use: UseEntry, server: Server | None, steps: int, troubles: Troubles
) -> tuple[Series, float] | None:
    """An entry's own series, cpu in cores, and the mean of that."""
    import numpy as np

    series, found = np.zeros((4, steps), dtype=np.float32), len(troubles)
    cpu, mean = _cores(told, "cpu", use.cpu, server, troubles), None
    if use.cpu_mean is not None:
        mean = _cores(told, "cpu_mean", use.cpu_mean, server, troubles)
        if cpu is not None and mean is not None and np.max(mean) > np.max(cpu):
            troubles.add(told.where.at("use.cpu_mean"), f"{told.entry.name} uses more cpu in the mean than at its peak")
    elif not isinstance(use.cpu, list):
        what = f"cpu_mean of {told.entry.name} is missing: power cannot be counted by a peak"
        troubles.add(told.where.at("use.cpu"), what)
    if cpu is None or len(troubles) > found:
        return None
    series[0] = cpu
    for row, value in ((1, use.memory), (2, use.disk), (3, use.network)):
        series[row] = value
    return series, float(np.mean(cpu) if mean is None else np.max(mean))


def _cores(
    told: Told[WorkloadEntry], name: str, value: float | str | list[float], server: Server | None, troubles: Troubles
) -> float | list[float] | None:
    if not isinstance(value, str):
        return value
    if server is None:
        troubles.add(told.where.at(f"use.{name}"), f"{value} of no server: give cores")
        return None
    part = float(value.rstrip("%")) / 100
    if part > 1:
        troubles.add(told.where.at(f"use.{name}"), f"{name} of {told.entry.name}: {value} is more than a server has")
        return None
    return part * server.cores


def _check_fits(told: Told[WorkloadEntry], series: Series, server: Server, troubles: Troubles) -> None:
    for row, (name, most) in enumerate(zip(("cpu", "memory", "disk", "network"), server.capacity, strict=True)):
        peak = float(series[row].max())
        if peak > most * BEYOND:
            shown = f"{peak:.4g} of {most:.4g} {'GHz' if row == 0 else 'bytes' if row < 3 else 'bit/s'}"
            what = f"{told.entry.name} uses more {name} than {server.name} has: {shown}"
            troubles.add(told.where.at(f"use.{name}"), what)
        series[row] = series[row].clip(0, most)
