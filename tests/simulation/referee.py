"""An independent look at what placement decided: the rules once more, written down from what they promise.

Nothing of `cluster/rules.py`, `broken.py` or `spare.py` is used: what they got wrong would be wrong here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bulkhead.amounts import RESOURCES, Amounts
from bulkhead.cluster.placing import Decision, Refusal
from bulkhead.cluster.rules import Rule
from bulkhead.cluster.snapshot import HostView, Placed, Wanted
from bulkhead.model import Isolation

WHOLE = 1 << 20


class Foul(AssertionError):
    """Something that was promised does not hold."""


def takes(wanted: Wanted, host: HostView) -> dict[str, int]:
    """Of each resource what an instance takes of a host."""
    need, speed = wanted.need, host.speed
    found = {name: getattr(need.amounts, name) for name in RESOURCES}
    found["memory"] += need.overhead.get(speed.accelerator, 0)
    found["cpu"] += round(need.cores * round(speed.khz * speed.factor))
    return found


def left(host: HostView) -> dict[str, int]:
    """Of each resource that a host is sold by what its instances leave, counted anew."""
    found = {}
    for name, share in host.has.shares.items():
        sellable = int(max(0, share.host - share.reserve) * share.ratio)
        found[name] = sellable - sum(getattr(placed.amounts, name) for placed in host.instances)
    return found


def faults(host: HostView) -> list[str]:
    """What is wrong with what is on a host together, whoever came first."""
    found = [f"{name}: {-free} more than {host.name} has" for name, free in left(host).items() if free < 0]
    for name in RESOURCES:
        if getattr(host.sold, name) != sum(getattr(placed.amounts, name) for placed in host.instances):
            found.append(f"{name}: what is sold on {host.name} is not what its instances add up to")
    everybody = [placed.wanted for placed in host.instances]
    if len({each.id for each in everybody}) != len(everybody):
        found.append(f"an instance is on {host.name} twice")
    tenants = {each.tenant for each in everybody}
    found += [f"{each.tenant} is not alone on {host.name}" for each in everybody if each.dedicated and len(tenants) > 1]
    kernel = [each for each in everybody if _shares_kernel(each)]
    if len({each.tenant for each in kernel}) > 1:
        found += [f"{each.id} shares the kernel of {host.name} untrusted" for each in kernel if not each.trusted]
    for each in everybody:
        for other in everybody:
            if other.id != each.id and _is_kept_off(each, other):
                found.append(f"{each.id} and {other.id} are to be apart, and are both on {host.name}")
    return found


def _shares_kernel(wanted: Wanted) -> bool:
    return wanted.level in (Isolation.CHROOT, Isolation.CONTAINER) and not wanted.inside


def _is_about(key: str, value: str, other: Wanted) -> bool:
    return other.labels.get(key) == value if key else other.name == value


def _is_kept_off(one: Wanted, other: Wanted) -> bool:
    """Whether one of the two says that it is to be away from the other."""
    if one.tenant != other.tenant:
        return False
    return any(term.hard and term.away and _is_about(term.key, term.value, other) for term in one.terms)


def is_anywhere(hosts: Iterable[HostView], wanted: Wanted, key: str, value: str) -> bool:
    """Whether another instance of its tenant that a term is about is on any host."""
    return any(
        placed.wanted.tenant == wanted.tenant and placed.id != wanted.id and _is_about(key, value, placed.wanted)
        for host in hosts
        for placed in host.instances
    )


def broken(host: HostView, wanted: Wanted, hosts: Sequence[HostView]) -> set[Rule]:
    """The rules by which an instance cannot come to a host; not the reserve."""
    found = set()
    able = host.abilities.get(wanted.level)
    checks = {
        Rule.STATE: host.state != "ready",
        Rule.PINNED: bool(wanted.host) and wanted.host not in (host.id, host.name),
        Rule.REFUSED: host.id in wanted.avoid,
        Rule.ARCHITECTURE: wanted.architecture != host.architecture,
        Rule.LEVEL: able is None or not able.works,
        Rule.CORES: wanted.need.widest > host.speed.cores,
        Rule.SPEED: wanted.need.core_khz > round(host.speed.khz * host.speed.factor),
    }
    found |= {rule for rule, holds in checks.items() if holds}
    for label in wanted.requires:
        value = host.labels.get(label.key)
        good = value is not None and (not label.values or value in label.values)
        if good == label.absent:
            found.add(Rule.LABELS)
    room, wants = left(host), takes(wanted, host)
    found |= {Rule(name) for name in room if wants[name] > max(0, room[name])}
    there = [placed.wanted for placed in host.instances]
    strangers = [each for each in there if each.tenant != wanted.tenant]
    if strangers and (wanted.dedicated or any(each.dedicated for each in strangers)):
        found.add(Rule.TENANTS)
    if _shares_kernel(wanted):
        beside = [each for each in strangers if _shares_kernel(each)]
        if beside and not (wanted.trusted and all(each.trusted for each in beside)):
            found.add(Rule.KERNEL)
    others = [each for each in there if each.id != wanted.id]
    if any(_is_kept_off(wanted, each) or _is_kept_off(each, wanted) for each in others):
        found.add(Rule.AWAY)
    for term in wanted.terms:
        if not term.hard or term.away:
            continue
        near = any(each.tenant == wanted.tenant and _is_about(term.key, term.value, each) for each in others)
        first = _is_about(term.key, term.value, wanted) and not is_anywhere(hosts, wanted, term.key, term.value)
        if not near and not first:
            found.add(Rule.NEAR)
    return found


# --- the reserve


class Reserve:
    """What is sure to find room after the loss of one host, by sizes as the design describes them."""

    def __init__(self, hosts: Sequence[HostView]) -> None:
        self._units = {}
        for name in RESOURCES:
            sells = sorted(
                int(max(0, share.host - share.reserve) * share.ratio)
                for host in hosts
                if (share := host.has.shares.get(name))
            )
            if sells:
                self._units[name] = max(1, sells[len(sells) // 2] // WHOLE)
        self._kinds = {host.speed: host for host in hosts}
        self._sizes: dict[str, int] = {}

    def size(self, wanted: Wanted) -> int:
        """Of the usual host, on whichever host it takes most."""
        if wanted.id not in self._sizes:
            each = [takes(wanted, host) for host in self._kinds.values()]
            parts = [-(-wants[name] // unit) for wants in each for name, unit in self._units.items()]
            self._sizes[wanted.id] = max(parts, default=0)
        return self._sizes[wanted.id]

    def room(self, host: HostView) -> int:
        """That is left, by what is least."""
        if host.state != "ready":
            return 0
        free = left(host)
        return max(0, min((free[name] // unit for name, unit in self._units.items() if name in free), default=0))

    def holds(self, hosts: Sequence[HostView]) -> bool:
        """Whether the loss of any one of them is covered."""
        carried = {
            host.id: sum(self.size(placed.wanted) for placed in host.instances)
            for host in hosts
            if host.state in ("ready", "draining")
        }
        counted = [placed.wanted for host in hosts if host.id in carried for placed in host.instances]
        largest = max(map(self.size, counted), default=0)
        rooms = {host.id: self.room(host) for host in hosts}
        sure = {host_id: max(0, room - largest) for host_id, room in rooms.items()}
        total, large = sum(sure.values()), {host_id for host_id, room in rooms.items() if room >= largest}
        ready = {host.id for host in hosts if host.state == "ready"}
        for host_id, carries in carried.items():
            if carries and (not (large & ready) - {host_id} or total - sure[host_id] + largest < carries):
                return False
        return True


def homeless(lost: HostView, others: Iterable[HostView], order: Sequence[Placed]) -> list[Placed]:
    """Of what a lost host carried what finds no room: each, in this order, takes the first host that has any."""
    room = {host.id: left(host) for host in others if host.state == "ready" and host.id != lost.id}
    views = {host.id: host for host in others if host.id in room}
    without = []
    for placed in order:
        for host_id, free in room.items():
            wants = takes(placed.wanted, views[host_id])
            if all(wants[name] <= max(0, free[name]) for name in free):
                for name in free:
                    free[name] -= wants[name]
                break
        else:
            without.append(placed)
    return without


# --- whole decisions


def judge_choice(host: HostView, wanted: Wanted, hosts: Sequence[HostView], reserve: Reserve | None) -> None:
    """The chosen host will do, and where the loss of any host was covered it still is. Raises Foul."""
    if wrong := broken(host, wanted, hosts):
        raise Foul(f"{wanted.id} was put on {host.name}, where it breaks {sorted(wrong)}")
    if reserve and reserve.holds(hosts) and not reserve.holds(_with(hosts, host, wanted)):
        raise Foul(f"{wanted.id} was put on {host.name}: the loss of a host is not covered any more")


def judge_refusal(
    decision: Decision, told: Mapping[str, Refusal], hosts: Sequence[HostView], reserve: Reserve | None
) -> None:
    """Every host is refused, and what was told of these (by id) is so, all of it and no more. Raises Foul."""
    wanted = decision.wanted
    if sum(decision.counts.values()) != len(hosts):
        raise Foul(f"{wanted.id}: {decision.counts} do not add up to {len(hosts)} hosts")
    views = {host.id: host for host in hosts if host.id in told}
    for host_id, refusal in told.items():
        host = views[host_id]
        said, so = {reason.rule for reason in refusal.reasons}, broken(host, wanted, hosts)
        if reserve and host.state == "ready":
            so |= set() if reserve.holds(_with(hosts, host, wanted)) else {Rule.SPARE}
        else:  # it is not counted here
            so |= said & {Rule.SPARE}
        if not said or said != so:
            raise Foul(f"{wanted.id} was refused by {host.name} for {sorted(said)}; what is broken is {sorted(so)}")


def _with(hosts: Sequence[HostView], host: HostView, wanted: Wanted) -> list[HostView]:
    full = host.holding(Placed(wanted, Amounts(**takes(wanted, host))))
    return [full if each.id == host.id else each for each in hosts]
