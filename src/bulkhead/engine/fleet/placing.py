"""Which host an instance goes to: judged over the fleet's records, and reserved by the version that was judged.

See docs/design/0029. Whoever asks for an instance asks any host; that one judges, reserves, and has the chosen one
make it, under the id that is reserved. What a host refuses is not asked of it again.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bulkhead.cluster import explain as explaining
from bulkhead.cluster.placing import Decision, place
from bulkhead.cluster.rules import IN_WORDS, Rule
from bulkhead.cluster.snapshot import Wanted
from bulkhead.engine.admission import decide_level, network_of
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.indexing import Indexed
from bulkhead.engine.fleet.places import PASSING_SECONDS, RESERVED_SECONDS
from bulkhead.engine.images import ImageCatalog
from bulkhead.engine.names import generate_name
from bulkhead.engine.plans import Plans
from bulkhead.errors import BulkheadError, Conflict, NoRoom, Problem, Refused, Unavailable
from bulkhead.fleet import Fleet, Host, Place, Policy
from bulkhead.images import Image
from bulkhead.model import CreateRequest, Isolation
from bulkhead.store.fleet import Sold, Stale
from bulkhead.store.overlays import Occupied
from bulkhead.tenancy.names import qualified

_TRIES = 100
_PAUSE = 0.2
NAMELESS, USUAL_NETWORK = "unnamed", "default"


@dataclass(slots=True)
class Order:
    """An instance that is to find its place."""

    wanted: Wanted
    named: bool
    """Its name was asked for."""
    bound: str = ""
    """Why no other host will do, in words; "" where any may."""
    tenant: bool = False
    """A tenant asks, who is told nothing of single hosts."""
    refused: dict[str, str] = field(default_factory=dict)
    """What hosts that were asked to make it have said, by their names."""

    def refuse(self, host: Host, why: str) -> None:
        """A host will not make it."""
        self.refused[host.name] = why
        self.wanted = replace(self.wanted, avoid=self.wanted.avoid | {host.id})


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision, and by what it was made."""

    decision: Decision
    host: Host | None
    """The one that is chosen."""
    whole: Mapping[str, int] | None
    """Versions of what is sold on all hosts, where it rests on them."""

    @classmethod
    def of(cls, decision: Decision, hosts: Mapping[str, Host], sold: Mapping[str, Sold]) -> Judged:
        """Over these records."""
        whole = {key: each.version for key, each in sold.items()} if decision.whole else None
        return cls(decision, hosts[decision.chosen.id] if decision.chosen else None, whole)


class Placer:
    """Judges and reserves."""

    def __init__(self, context: Context, *, member: Callable[[], Opened]) -> None:
        self._context, self._member = context, member
        self._plans = Plans(context)
        self._indexed = Indexed()

    def order(self, request: CreateRequest, *, tenant: str, host: Host | None, seen_by_tenant: bool = False) -> Order:
        """What is to be placed, of a request that is judged in whole by the host that makes it.

        `host`: the one that was asked for. Raises Refused where the plan is wrong.
        """
        image = self._image(request, tenant)
        plan, problems = self._plans.resolve(request.plan)
        if problems:
            raise Refused(problems)
        level, _ = decide_level(request, image)
        bound = "" if host else _bound(request) or self._bound_by_network(request, tenant)
        architecture = image.architecture if image else "amd64"
        wanted = Wanted(
            id=secrets.token_hex(16),
            name=request.name or NAMELESS,
            need=views.need_of(plan, level),
            level=level,
            tenant=tenant,
            trusted=views.trusted(tenant, request.trust, hostile_input=request.hostile_input),
            architecture=views.RUNS_ON.get(architecture, architecture),
            image=image.digest if image else "",
            labels={**(image.config.labels if image else {}), **request.labels},
            requires=views.labels_of(request.where),
            terms=views.terms_of(request.where),
            host=host.id if host else self._member().identity.id if bound else "",
        )
        return Order(wanted, request.name is not None, bound, tenant=seen_by_tenant)

    def _image(self, request: CreateRequest, tenant: str) -> Image | None:
        try:
            return ImageCatalog(self._context.seen_by(tenant)).resolve(request.image)
        except BulkheadError:
            return None  # another host may have it

    def _bound_by_network(self, request: CreateRequest, tenant: str) -> str:
        """What is on a network is beside the rest of it, and another host's network of that name is another one."""
        networks = {each.name for each in self._context.state.networks(tenant) if not each.overlay} - {USUAL_NETWORK}
        if request.network not in networks:
            return ""
        return f"network {request.network} is the host's own where it was asked for"

    def decide(self, order: Order) -> Judged:
        """Judge by the fleet as it is now. Raises Unavailable."""
        member = self._member()
        # Whoever answers lives, and of one that was asked for the connection tells.
        heard = {member.identity.id, order.wanted.host}
        if member.state.following is not None:
            with member.state.following.latest() as kept:
                if kept is not None:
                    self._name(order, kept.names.get(order.wanted.tenant, ()))
                    policy = _ruled(order, kept.fleet)
                    decision = self._indexed.decide(kept, order.wanted, policy, heard=heard)
                    return Judged.of(decision, kept.hosts, kept.sold)
        seen = member.state.read_all()
        self._name(order, [each.name for each in seen.places if each.tenant == order.wanted.tenant])
        policy = _ruled(order, seen.fleet)
        decision = place(views.snapshot(seen, heard=heard), order.wanted, policy)
        return Judged.of(decision, {host.id: host for host in seen.hosts}, seen.sold)

    def _name(self, order: Order, taken: Collection[str]) -> None:
        if not order.named:
            order.wanted = replace(order.wanted, name=generate_name(taken))

    def explain(self, order: Order) -> explaining.Explanation:
        """The same in words; nothing is reserved."""
        return explaining.explain(self.decide(order).decision)

    def reserve(self, order: Order, request: CreateRequest) -> tuple[Place, Host]:
        """The place that it has from now on for a while, and its host.

        Raises NoRoom where no host will do, Conflict where its name is taken, Unavailable.
        """
        member = self._member()
        for _ in range(_TRIES):
            judged = self.decide(order)
            if judged.host is None or judged.decision.chosen is None:
                raise no_room(judged.decision, order)
            host, made = judged.host, self._place(order, request, judged.host)
            try:
                made = member.state.reserve(made, scored=judged.decision.chosen.version, whole=judged.whole)
            except Stale:
                time.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - somebody else has got on; not both at once again
                continue
            except Occupied:
                raise  # another name is of no use
            except Conflict:
                if order.named:
                    raise
                continue
            checkpoint("place.reserved")
            return made, host
        raise Unavailable("the fleet changes faster than a place can be found", hint="try again")

    def _place(self, order: Order, request: CreateRequest, host: Host) -> Place:
        own, wanted = self._member().identity.id, order.wanted
        return Place(
            id=wanted.id,
            name=wanted.name,
            tenant=wanted.tenant,
            host=host.id,
            level=wanted.level,
            image=request.image,
            amounts=views.sold_there(wanted.need, host).as_dict(),
            labels=dict(wanted.labels),
            until=time.time() + (RESERVED_SECONDS if host.id == own else PASSING_SECONDS),
            by=own,
            trusted=wanted.trusted,
            where=request.where,
            cpu_model=wanted.cpu_model,
            **self._claims(request, wanted.tenant, wanted.level),
        )

    def _claims(self, request: CreateRequest, tenant: str, level: Isolation) -> dict[str, Any]:
        key = qualified(tenant, network_of(request, level))
        return {} if level is Isolation.CHROOT else self._context.fleet_networks.claims(key, request.ports)

    def release(self, place: Place) -> None:
        """Nothing comes of it there. Idempotent; where the fleet cannot be told, its host does so in time."""
        try:
            self._member().state.release(place.id, host=place.host)
        except Unavailable:
            return


def _ruled(order: Order, fleet: Fleet | None) -> Policy:
    """What the fleet's own record says of all that is made: the processor of VMs, and how hosts are chosen."""
    if fleet is None:
        return "balance"
    if order.wanted.level is Isolation.VM:
        order.wanted = replace(order.wanted, cpu_model=fleet.cpu_baseline)
    return fleet.policy


def _bound(request: CreateRequest) -> str:
    """Why it is made where it was asked for."""
    if request.disks:
        return "it uses disks of the host where it was asked for"
    if any(mount.kind == "bind" for mount in request.mounts):
        return "it mounts paths of the host where it was asked for"
    if request.mounts:
        return "volumes are each host's own: it is made where it was asked for"
    return ""


def no_room(decision: Decision, order: Order) -> NoRoom:
    """Why no host will do, with counts; to a tenant without the names of hosts, and what is sold there."""
    total = sum(decision.counts.values())
    problems: list[Problem] = []
    if order.bound:
        problems.append(Problem(order.bound, "" if order.tenant else "--host says another"))
    for rule, count in decision.counts.items():
        if rule is Rule.REFUSED or (rule is Rule.PINNED and order.wanted.host):
            continue
        example = decision.examples[rule]
        what = f"{count} of {total} hosts: {IN_WORDS[rule]}"
        if order.tenant:
            problems.append(Problem(what))
        else:
            reason = example.reasons[0]
            problems.append(Problem(f"{what}, such as {example.host}: {reason.what}", reason.hint))
    for why in dict.fromkeys(order.refused.values()):
        names = [name for name, said in order.refused.items() if said == why]
        who = "" if order.tenant else f", such as {names[0]}"
        problems.append(Problem(f"{len(names)} of {total} hosts: {IN_WORDS[Rule.REFUSED]}{who}: {why}"))
    return NoRoom(problems or [Problem("the fleet has no host", "bulkhead cluster join")])
