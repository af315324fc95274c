"""The fleet's records as placement looks at them.

A host of a fleet counts in kHz of the fleet's reference core: its clock times its factor (`HostFacts.ghz`). So does
placement, and what is sold and reserved is recorded as the host itself counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from bulkhead.advise import Workload, may_share
from bulkhead.amounts import NOTHING, Amounts, Capacity, Share
from bulkhead.cluster import rules
from bulkhead.cluster.rules import Rule
from bulkhead.cluster.snapshot import (
    Able,
    HostState,
    HostView,
    Label,
    Need,
    Placed,
    PowerCurve,
    Snapshot,
    Speed,
    Term,
    Wanted,
)
from bulkhead.errors import Problem, Refused
from bulkhead.fleet import Host, Load, Place
from bulkhead.limits.capacity import UNKNOWN_GHZ
from bulkhead.limits.check import MACHINES
from bulkhead.limits.machine import OVERHEAD
from bulkhead.model import DEFAULT_TENANT, Isolation, Plan, Trust
from bulkhead.store.fleet import Seen, Sold
from bulkhead.where import Where

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
RUNS_ON = {"386": "amd64"}
"""Architectures of images that run on hosts of another one."""
_OF_PLACED = frozenset({Rule.STATE, Rule.BASELINE, Rule.LABELS, Rule.TENANTS, Rule.KERNEL, Rule.NEAR, Rule.AWAY})


def snapshot(seen: Seen, *, heard: Iterable[str] = (), loads: Mapping[str, Load] | None = None) -> Snapshot:
    """`heard`: ids of hosts that are taken to live whatever their lease says; `loads`: what instances (by id) use."""
    alive = seen.alive | set(heard)
    there: dict[str, list[Place]] = defaultdict(list)
    for place in seen.places:
        there[place.host].append(place)
        if place.target is not None:
            there[place.target].append(place)
    views = [
        standing(
            host,
            seen.sold.get(host.id, Sold()),
            there[host.id],
            alive=host.id in alive,
            loads=loads,
        )
        for host in sorted(seen.hosts, key=lambda each: each.id)
    ]
    return Snapshot(tuple(views), spare=seen.fleet.spare if seen.fleet else False)


def avoiding(fleet: Snapshot, refused: Mapping[str, Collection[str]]) -> Snapshot:
    """The same, with what hosts (ids) have said no to of instances (by id) that are placed elsewhere."""
    if not refused:
        return fleet
    hosts = [replace(host, instances=tuple(_away(each, refused) for each in host.instances)) for host in fleet.hosts]
    return replace(fleet, hosts=tuple(hosts))


def _away(placed: Placed, refused: Mapping[str, Collection[str]]) -> Placed:
    avoid = refused.get(placed.id)
    if not avoid:
        return placed
    return replace(placed, wanted=replace(placed.wanted, avoid=placed.wanted.avoid | frozenset(avoid)))


def standing(
    host: Host,
    sold: Sold,
    places: Iterable[Place],
    *,
    alive: bool,
    loads: Mapping[str, Load] | None = None,
) -> HostView:
    """One host with what is placed there, or is about to come there: both have to hold that."""
    found, coming = [], NOTHING
    for place in places:
        placed = placed_of(place, loads.get(place.id) if loads else None)
        found.append(placed)
        if place.host != host.id:
            coming += placed.amounts
    view = view_of(host, sold, found, alive=alive)
    return replace(view, sold=view.sold + coming) if coming != NOTHING else view


def objections(seen: Seen, instance_id: str, host_id: str) -> list[Problem]:
    """Rules of the fleet that keep an instance that is placed off another host. Of room that host knows more."""
    fleet = snapshot(seen, heard={host_id})
    wanted = next((each.wanted for host in fleet.hosts for each in host.instances if each.id == instance_id), None)
    view = next((host for host in fleet.hosts if host.id == host_id), None)
    if wanted is None or view is None:
        return []  # whoever carries the move out finds that as well, and says it
    found = rules.check(view, wanted, rules.lone_terms(fleet, wanted))
    return [Problem(reason.what, reason.hint) for reason in found if reason.rule in _OF_PLACED]


def view_of(host: Host, sold: Sold, placed: Iterable[Placed], *, alive: bool) -> HostView:
    """One host."""
    machine = host.machine
    shares = {name: Share(has, 0, 1.0) for name, has in host.sellable.items()}
    state: HostState = "unreachable" if not alive else "draining" if host.state == "draining" else "ready"
    return HostView(
        id=host.id,
        name=host.name,
        version=sold.version,
        speed=speed_of(host),
        has=Capacity(shares),
        sold=sold.amounts,
        state=state,
        labels=host.labels,
        abilities={level: Able(found.works, found.reason, found.hint) for level, found in host.levels.items()},
        kernel=machine.kernel,
        architecture=ARCHITECTURES.get(machine.architecture, machine.architecture),
        power=power_of(host),
        cpu_models=frozenset(machine.cpu_models),
        instances=tuple(placed),
    )


def speed_of(host: Host) -> Speed:
    """What plans come to there."""
    khz = round((host.machine.ghz or UNKNOWN_GHZ) * 1_000_000)
    return Speed(host.machine.cores, khz, accelerator=host.machine.accelerator)  # its factor is in its GHz


def wanted_of(place: Place) -> Wanted:
    """What is placed already. What it would take of other hosts is not known but as what it takes of its own."""
    return Wanted(
        id=place.id,
        name=place.name,
        need=Need(Amounts(**place.amounts)),
        level=place.level,
        tenant=place.tenant,
        trusted=place.trusted,
        image=place.image,
        cpu_model=place.cpu_model,
        labels=place.labels,
        requires=labels_of(place.where),
        terms=terms_of(place.where),
    )


def placed_of(place: Place, load: Load | None) -> Placed:
    """What is placed, with what it uses where that is known."""
    placed = Placed(
        wanted_of(place),
        Amounts(**place.amounts),
        moved=math.inf if place.target is not None else place.moved,
    )
    if load is None:
        return placed
    used = None if load.used is None else Amounts(**load.used)
    return replace(
        placed,
        running=load.running,
        written=load.written,
        resident=load.resident,
        used=used,
        live=load.live,
        pinned=load.pinned,
    )


def power_of(host: Host) -> PowerCurve | None:
    """What it draws, on a straight line from idle to its peak; None where nobody said, or what was said makes none."""
    try:
        return PowerCurve(host.watts) if host.watts else None
    except Refused:
        return None


def need_of(plan: Plan, level: Isolation) -> Need:
    """What a plan takes, of whichever host."""
    khz = round(plan.ghz * 1_000_000) if plan.ghz else 0
    return Need(
        Amounts(
            memory=plan.memory,
            cpu=round(plan.sold_cpus * plan.ghz * 1_000_000) if plan.ghz else 0,
            disk=plan.disk,
            bandwidth=plan.bandwidth or 0,
            iops=plan.iops or 0,
            disk_bps=plan.disk_bps or 0,
        ),
        cores=0.0 if plan.ghz else plan.sold_cpus,
        widest=plan.cpus,
        core_khz=khz,
        overhead=OVERHEAD if level in MACHINES else {},
    )


def sold_there(need: Need, host: Host) -> Amounts:
    """What it takes, as the host itself counts."""
    return need.on(speed_of(host))


def trusted(tenant: str, trust: Trust | None, *, hostile_input: bool) -> bool:
    """Whether it may share a kernel with other tenants. Who says nothing of whose program it is: the operator's own
    is, a tenant's is anybody's.
    """
    whose: Trust = trust or ("own" if tenant == DEFAULT_TENANT else "public")
    return may_share(Workload(trust=whose, hostile_input=hostile_input))


def labels_of(where: Where) -> tuple[Label, ...]:
    """Its constraints."""
    return tuple(map(_label, where.constraints))


def _label(text: str) -> Label:
    key, equals, value = text.partition("=")
    if not equals:
        return Label(key.removeprefix("!"), absent=key.startswith("!"))
    values = tuple(value.removeprefix("=").split("|"))
    return Label(key.removesuffix("!"), values, absent=key.endswith("!"))


def terms_of(where: Where) -> tuple[Term, ...]:
    """Its affinity."""
    near = [_term(text, away=False) for text in where.affinity]
    return (*near, *(_term(text, away=True) for text in where.anti_affinity))


def _term(text: str, *, away: bool) -> Term:
    key, equals, value = text.removeprefix("~").partition("=")
    hard = not text.startswith("~")
    return Term(value, key, away=away, hard=hard) if equals else Term(key, away=away, hard=hard)
