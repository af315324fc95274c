"""An estate as files that `bulkhead advise` reads: JSON with the series, CSV with peaks and means, CSV of use over
time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.tables import COLUMNS, NOTHING


def as_csv(estate: Estate, *, use: bool = True) -> str:
    """A row for each workload; without `use` what it uses is left to the other file."""
    out = io.StringIO()
    names = [name for name in COLUMNS if use or not name.endswith(("_peak", "_mean", "_used"))]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    servers = {server.name: server for server in estate.servers}
    told: set[str] = set()
    for load in estate.loads:
        # What a server is stands in its first row.
        facts = (
            _server_cells(servers[load.server]) if load.server and load.server not in told else {"server": load.server}
        )
        told.add(load.server)
        writer.writerow(
            {**facts, **_workload_cells(load), **(_use_cells(load, servers.get(load.server)) if use else {})}
        )
    for server in estate.servers:
        if server.name not in told:
            writer.writerow({**_server_cells(server), "workload": NOTHING})
    return out.getvalue()


def _server_cells(server: Server) -> dict[str, object]:
    return {
        "server": server.name,
        "cores": server.cores,
        "ghz": f"{server.ghz:g}",
        "memory": server.memory,
        "disk": server.disk,
        "network": server.network,
        "idle_watts": _number(server.idle_watts),
        "peak_watts": _number(server.peak_watts),
        "purchase": _number(server.purchase),
    }


def _workload_cells(load: Load) -> dict[str, object]:
    workload = load.workload
    return {
        "workload": load.name,
        "owner": load.owner,
        "trust": workload.trust,
        "hostile_input": _word(workload.hostile_input),
        "needs_kernel": _word(workload.needs_kernel),
        "system": _word(workload.system),
        "data": load.data,
        "licence_per_core": _number(load.licence_per_core or None),
        "latency": load.latency,
        "near": " ".join(load.near),
        "apart": " ".join(load.apart),
        "downtime": _number(load.downtime),
        "outage_hour": _number(load.outage_hour),
    }


def _use_cells(load: Load, server: Server | None) -> dict[str, object]:
    ghz = server.ghz if server else 1.0
    most = load.use.max(axis=1)
    return {
        "cpu_peak": f"{most[0] / ghz:.6g}",
        "cpu_mean": f"{min(load.cpu_mean, float(most[0])) / ghz:.5g}",
        **{
            name: int(value) for name, value in zip(("memory_used", "disk_used", "network_used"), most[1:], strict=True)
        },
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def _word(value: bool) -> str:
    return "yes" if value else "no"


def as_use(estate: Estate) -> Iterator[str]:
    """Use over time, a row for each moment and workload, in pieces."""
    from datetime import UTC, datetime

    servers = {server.name: server for server in estate.servers}
    yield "time,workload,cpu,memory,disk,network\n"
    for at in range(estate.steps):
        moment = datetime.fromtimestamp(estate.start + at * estate.step, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = []
        for load in estate.loads:
            cpu, memory, disk, network = (float(value) for value in load.use[:, at])
            ghz = servers[load.server].ghz if load.server else 1.0
            rows.append(f"{moment},{load.name},{cpu / ghz:.5g},{memory:.0f},{disk:.0f},{network:.0f}\n")
        yield "".join(rows)


def as_json(estate: Estate) -> Iterator[str]:
    """The whole estate, a workload a line."""
    servers = {server.name: server for server in estate.servers}
    head = {"version": 1, "start": estate.start, "step": estate.step}
    yield json.dumps(head)[:-1] + ',\n "servers": [\n'
    yield ",\n".join(f"  {json.dumps(_server_document(server))}" for server in estate.servers)
    yield '\n ],\n "workloads": [\n'
    for at, load in enumerate(estate.loads):
        yield f"{',' if at else ''}  {json.dumps(_workload_document(load, servers.get(load.server)))}\n"
    yield " ]\n}\n"


def _server_document(server: Server) -> dict[str, object]:
    made: dict[str, object] = {
        "name": server.name,
        "cores": server.cores,
        "ghz": server.ghz,
        "memory": server.memory,
        "disk": server.disk,
        "network": server.network,
    }
    for name in ("idle_watts", "peak_watts", "purchase"):
        if (value := getattr(server, name)) is not None:
            made[name] = value
    return made


def _workload_document(load: Load, server: Server | None) -> dict[str, object]:
    workload, ghz = load.workload, server.ghz if server else 1.0
    made: dict[str, object] = {
        "name": load.name,
        "server": load.server,
        "owner": load.owner,
        "trust": workload.trust,
        "hostile_input": workload.hostile_input,
        "needs_kernel": workload.needs_kernel,
        "system": workload.system,
        "data": load.data,
        "licence_per_core": load.licence_per_core,
        "latency": load.latency,
    }
    for name in ("near", "apart"):
        if value := getattr(load, name):
            made[name] = list(value)
    for name in ("downtime", "outage_hour"):
        if getattr(load, name) is not None:
            made[name] = getattr(load, name)
    series = [load.use[0] / ghz, *load.use[1:]]
    use: dict[str, object] = {}
    for name, values in zip(("cpu", "memory", "disk", "network"), series, strict=True):
        amounts = [float(f"{value:.5g}") for value in values]
        use[name] = amounts[0] if len(set(amounts)) == 1 else amounts
    for name in ("memory", "disk", "network"):
        if isinstance(use[name], float):
            use[name] = round(use[name])  # type: ignore[call-overload]
    if not isinstance(use["cpu"], list):
        use["cpu_mean"] = min(use["cpu"], float(f"{load.cpu_mean / ghz:.5g}"))  # type: ignore[call-overload]
    made["use"] = use
    return made
