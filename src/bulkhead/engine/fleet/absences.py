"""What is on hosts that are not heard of, or do not answer, and what becomes of it: in words, for lists and messages.
See design 0032.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead.errors import Unavailable
from bulkhead.fleet import Fate, Host, Phase, Place, Replica, TakenOver, Waiting, Will
from bulkhead.limits.capacity import UNKNOWN_GHZ
from bulkhead.model import Instance, Plan, Spec, State
from bulkhead.store import replicas, wills
from bulkhead.store.fleet import FleetState
from bulkhead.store.seen import Seen
from bulkhead.where import OnHostLoss


@dataclass(frozen=True, slots=True)
class Records:
    """What the fleet has written down for the loss of hosts."""

    wills: Mapping[str, Will] = field(default_factory=dict)
    copies: Mapping[str, Replica] = field(default_factory=dict)
    remains: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By the lost host and the instance: who has taken it."""

    @classmethod
    def of(cls, state: FleetState | None) -> Records:
        """As they are now; none where the fleet's store does not answer, or is not to be asked (None)."""
        try:
            return cls(wills.all_of(state), replicas.all_of(state), wills.all_remains(state)) if state else cls()
        except Unavailable:
            return cls()


def silent(seen: Seen) -> frozenset[str]:
    """Ids of hosts that are not heard of."""
    return frozenset(host.id for host in seen.hosts if host.id not in seen.alive)


def waiting(seen: Seen, hosts: Collection[str], records: Records, *, lost: Collection[str]) -> list[Waiting]:
    """What is on these hosts (ids), and what others are about to start in their place. `lost`: those that count so."""
    names = {host.id: host.name for host in seen.hosts}
    found = []
    for place in seen.places:
        coming = place.phase is Phase.RECOVERING and place.host in seen.alive
        if place.host not in names or not (coming or place.host in hosts):
            continue
        will, copy = records.wills.get(place.id), records.copies.get(place.id)
        heard = place.host in seen.alive
        state, reason = _fate(place, will, copy, names[place.host], heard=heard, lost=place.host in lost)
        found.append(
            Waiting(
                id=place.id,
                name=place.name,
                tenant=place.tenant,
                host=names[place.host],
                level=place.level,
                image=place.image,
                on_host_loss=place.where.on_host_loss,
                state=state,
                reason=reason,
                problem=will.problem if will else "",
                refused=dict(will.refused) if will else {},
            )
        )
    return sorted(found, key=lambda each: (each.tenant, each.name))


def _fate(
    place: Place, will: Will | None, copy: Replica | None, host: str, *, heard: bool, lost: bool
) -> tuple[Fate, str]:
    policy, problem = place.where.on_host_loss, will.problem if will else ""
    if heard:
        if place.phase is Phase.RECOVERING:
            lost_host = will.lost if will else "its host"
            return Fate.RECOVERING, problem or f"{lost_host} is lost: it is about to start on {host}"
        return Fate.UNHEARD, f"{host} does not answer, and may run it"
    again = policy != "stay" and (will is None or will.runs)
    if not lost:
        then = f", and is lost in a moment: then it is started elsewhere (--on-host-loss {policy})" if again else ""
        return Fate.UNHEARD, f"{host} is not heard of{then}"
    return _of_lost(host, policy, again=again, whole=copy is not None and copy.at > 0, problem=problem)


def _of_lost(host: str, policy: OnHostLoss, *, again: bool, whole: bool, problem: str) -> tuple[Fate, str]:
    if policy == "stay":
        return Fate.LOST, f"it waits for {host}, which alone has its disk (--on-host-loss stay)"
    if not again:
        return Fate.LOST, f"it did not run, so nobody starts it: it waits for {host}"
    if policy == "restart" and not whole:
        return Fate.LOST, f"no copy of its disk was whole yet: it waits for {host}, which alone has that"
    return Fate.WAITING, problem or "it is about to be started elsewhere"


def taken(seen: Seen, records: Records) -> list[TakenOver]:
    """What was on hosts that are not heard of, and is another's by now."""
    names, places = {host.id: host.name for host in seen.hosts}, {place.id: place for place in seen.places}
    found = []
    for (lost, instance_id), _ in records.remains.items():
        place, will = places.get(instance_id), records.wills.get(instance_id)
        if place is None or lost in seen.alive or lost not in names or place.host not in names:
            continue
        if place.host == lost or place.phase is not Phase.PLACED:
            continue
        runs = will.runs if will else False
        found.append(
            TakenOver(
                id=place.id,
                name=place.name,
                tenant=place.tenant,
                lost=names[lost],
                host=names[place.host],
                runs=runs,
                unheard=will.unheard if will else 0.0,
            )
        )
    return sorted(found, key=lambda each: (each.tenant, each.name))


def line(found: Waiting, place: Place, will: Will | None, host: Host | None) -> dict[str, Any]:
    """An instance that cannot be asked for, as a list has it: with its spec where the fleet keeps that, else with what
    is known of it.
    """
    spec = will.spec if will else _spec(place, host)
    shown = Instance.model_construct(spec=spec, state=State.EXITED).model_dump(mode="json")
    return {**shown, "state": found.state.value, "host": found.host, "reason": found.reason}


def _spec(place: Place, host: Host | None) -> Spec:
    ghz = (host.machine.ghz if host else None) or UNKNOWN_GHZ
    sold = place.amounts
    plan = Plan.model_construct(
        memory=max(1, sold.get("memory", 0)),
        cpus=max(0.01, round(sold.get("cpu", 0) / (ghz * 1_000_000), 2)),
        disk=max(1, sold.get("disk", 0)),
    )
    return Spec.model_construct(
        id=place.id,
        name=place.name,
        tenant=place.tenant,
        image=place.image,
        image_digest="",
        isolation=place.level,
        plan=plan,
        argv=(),
        hostname=place.name,
        labels=place.labels,
        network=place.network.rpartition("@")[2],
        ports=place.ports,
        where=place.where,
        created=0.0,
    )
