"""A fleet that runs, by what its API tells: hosts, instances, and their use by the hour from the fleet's own
metering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bulkhead.advise import wishes
from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.levels import Workload
from bulkhead.errors import Refused
from bulkhead.fleet import IDLE, PEAK
from bulkhead.model import Isolation

if TYPE_CHECKING:
    from bulkhead.advise.estate import Series

HOUR = 3600
GIB = 1 << 30
USUAL_GHZ = 2.0
RISK = ("trust", "hostile_input", "needs_kernel")
Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The API's answers: GET /v1/hosts, /v1/instances, /v1/usage by instance and hour."""

    hosts: Sequence[Told]
    instances: Sequence[Told]
    usage: Sequence[Told]


def read(fleet: Fleet) -> Estate:
    """The estate. Instances of which no whole hour was measured are left out, with a note. Raises Refused."""
    import numpy as np

    rows: dict[str, list[Told]] = {}
    for row in fleet.usage:
        if row["kind"] == "instance" and row["uptime_seconds"] > 0:
            rows.setdefault(str(row["id"]), []).append(row)
    begins = sorted({int(row["from"]) // HOUR for told in rows.values() for row in told})
    if not begins:
        raise Refused("nothing was measured of this fleet yet", hint="try again in an hour, or give a longer --last")
    first, steps = begins[0], begins[-1] - begins[0] + 1
    servers = [_server(host) for host in fleet.hosts]
    clocks = {server.name: server.ghz for server in servers}
    notes: list[str] = []
    loads, unmeasured = [], []
    for told in fleet.instances:
        spec, host = told["spec"], str(told.get("host", ""))
        if spec.get("inside") or host not in clocks:
            continue
        if not (mine := rows.get(spec["id"])):
            unmeasured.append(spec["name"])
            continue
        use = np.zeros((4, steps), dtype=np.float32)
        for row in mine:
            use[:, int(row["from"]) // HOUR - first] = tuple(_amounts(row, clocks[host]))
        loads.append(_load(fleet, spec, host, use, notes))
    if unmeasured:
        notes.append(f"left out, since nothing was measured of them: {', '.join(sorted(unmeasured)[:20])}")
    known = {load.name for load in loads}
    loads = [
        replace(load, near=tuple(x for x in load.near if x in known), apart=tuple(x for x in load.apart if x in known))
        for load in loads
    ]
    inner = sum(bool(told["spec"].get("inside")) for told in fleet.instances)
    if inner:
        notes.append(f"{inner} instances run in virtual machines of others, with whose use theirs is counted")
    notes.append(
        "of instances whose level was asked for by name, without a label advice.trust, the risk is not known: "
        "they keep that level or a stronger one"
    )
    return Estate(
        tuple(servers),
        tuple(loads),
        float(first * HOUR),
        float(HOUR),
        steps,
        ("the fleet's metering",),
        frozenset(clocks),
        tuple(notes),
    )


def _server(host: Told) -> Server:
    machine, sellable, labels = host["machine"], host.get("sellable", {}), host.get("labels", {})
    idle, peak = (_watts(labels.get(name, "")) for name in (IDLE, PEAK))
    if idle is None or peak is None or peak < idle:
        idle = peak = None
    return Server(
        str(host["name"]),
        int(machine["cores"]),
        # Of a reference core: hosts of a fleet are not all as quick at the same clock.
        float(machine["ghz"] or USUAL_GHZ) * float(host.get("factor", 1.0)),
        int(machine["memory"]),
        int(sellable.get("disk") or machine["memory"]),
        10**9,
        f"host {host['name']}",
        idle,
        peak,
    )


def _watts(text: str) -> float | None:
    """What a label says, which an operator has written."""
    try:
        watts = float(text)
    except ValueError:
        return None
    return watts if 0 <= watts < 1e6 else None


def _amounts(row: Told, ghz: float) -> Iterable[float]:
    """GHz, bytes, bytes, bits per second in an hour: means over the time that it ran."""
    seconds = float(row["uptime_seconds"])
    hours = seconds / HOUR
    return (
        float(row["cpu_seconds"]) / seconds * ghz,
        float(row["memory_gib_hours_used"]) / hours * GIB,
        float(row["disk_gib_hours_used"]) / hours * GIB,
        max(float(row["received"]), float(row["sent"])) * 8 / seconds,
    )


def _load(fleet: Fleet, spec: Told, host: str, use: Series, notes: list[str]) -> Load:
    level, choice, told = Isolation(spec["isolation"]), spec.get("choice"), wishes.facts(spec, notes)
    risk = {name: told.pop(name) for name in RISK if name in told}
    if choice or "trust" in risk:
        known = {name: choice[name] for name in RISK} if choice else {}
        workload = Workload(**{**known, **risk}, system=spec.get("system") is not None)
    else:
        # Asked for by name: whoever did knows why.
        machine = level in (Isolation.VM, Isolation.UNIKERNEL)
        own = Workload("own", system=machine, shares_network=level is Isolation.CHROOT)
        workload = replace(own, **risk)
    near, apart = wishes.near_and_apart(spec, [each["spec"] for each in fleet.instances])
    return Load(
        wishes.name_of(spec),
        host,
        workload,
        f"instance {spec['name']}",
        use,
        float(use[0].mean()),
        str(spec["tenant"]),
        near=near,
        apart=apart,
        wall=level,
        hosts=wishes.allowed(spec, fleet.hosts),
        **told,
    )
