"""How a host comes into a fleet and leaves it, and what the fleet looks like from here."""

from __future__ import annotations

import platform
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version

from pydantic import ValidationError

from bulkhead.amounts import RESOURCES
from bulkhead.engine import selling
from bulkhead.engine.context import Context
from bulkhead.engine.fleet.identity import Coordinates, Files, Identity, Opened
from bulkhead.errors import Conflict, Problem, Refused, Unauthorized, Unavailable
from bulkhead.fleet import (
    CERTIFICATE_PREFIX,
    Fleet,
    Host,
    HostId,
    HostLine,
    HostName,
    Invitation,
    Invited,
    Level,
    Machine,
    Policy,
    fingerprint,
    invite,
    parse_invitation,
)
from bulkhead.host import peers
from bulkhead.model import Model
from bulkhead.store.base import Store
from bulkhead.store.fleet import FleetState, Seen, Sold
from bulkhead.tenancy import certificates

CA_DAYS, HOST_DAYS = 3650, 3650
INVITED_SECONDS = 3600.0
OpenStore = Callable[[Coordinates], Store]


class Wish(Model):
    """What a host that would like to join says of itself."""

    secret: str
    request: str
    """PEM of its certificate request."""
    host: Host


class Welcome(Model):
    """What a host that has joined is told."""

    fleet_id: HostId
    fleet: HostName
    authority: str
    certificate: str
    store: Coordinates


class Membership:
    """The verbs of `bulkhead cluster`."""

    def __init__(self, context: Context, *, open_store: OpenStore) -> None:
        self._context, self._open_store = context, open_store
        self.files = Files(context.config.state_dir)

    def open(self) -> Opened | None:
        """The fleet that this host is in; None where it is in none. The caller closes its store."""
        identity = self.files.read()
        return None if identity is None else Opened(identity, FleetState(self._open_store(identity.store)))

    # --- begin, come, go

    def init(
        self,
        *,
        fleet: str,
        name: str | None,
        address: str,
        store: Coordinates,
        policy: Policy,
        lease: float,
        cpu_baseline: str,
    ) -> Identity:
        """Make a fleet with this host as its first. Raises Refused, Conflict, Unavailable; nothing is changed then."""
        self._refuse_member()
        host = self._host(name, address)
        require_processor(cpu_baseline, [host])
        ca = certificates.make_ca(days=CA_DAYS)
        record = Fleet(
            id=uuid.uuid4().hex,
            name=fleet,
            created=time.time(),
            certificate=ca[0].decode(),
            key=ca[1].decode(),
            policy=policy,
            lease=lease,
            cpu_baseline=cpu_baseline,
        )
        request, key = certificates.make_request(host.name)
        certificate = _sign(record, request, host)
        identity = Identity(
            fleet_id=record.id, fleet=fleet, id=host.id, name=host.name, address=host.address, store=store
        )
        with ExitStack() as undo:
            opened = self._open_store(store)
            undo.callback(opened.close)
            state = FleetState(opened)
            self.files.write(identity, authority=record.certificate, certificate=certificate, key=key)
            undo.callback(self.files.remove)
            state.found(record, host)
            undo.pop_all()
            opened.close()
        return identity

    def invite(self, member: Opened, *, seconds: float, by: str) -> str:
        """A token with which one host can join for so long."""
        fleet = member.state.fleet()
        made = invite(member.identity.address, fleet.certificate)
        member.state.invite(made.hash, Invitation(until=time.time() + seconds, by=by))
        return made.encode()

    def admit(self, member: Opened, wish: Wish) -> Welcome:
        """Take in a host that shows a good token. Raises Unauthorized, Conflict, Refused."""
        fleet = member.state.fleet()
        shown = Invited(member.identity.address, fingerprint(fleet.certificate), wish.secret)
        certificate = _sign(fleet, wish.request.encode(), wish.host)
        member.state.join(shown.hash, wish.host, now=time.time())
        return Welcome(
            fleet_id=fleet.id,
            fleet=fleet.name,
            authority=fleet.certificate,
            certificate=certificate.decode(),
            store=member.identity.store,
        )

    def join(self, token: str, *, name: str | None, address: str) -> Identity:
        """Join the fleet of a token. Raises Refused, Unauthorized, Conflict, Unavailable."""
        self._refuse_member()
        invited, host = parse_invitation(token), self._host(name, address)
        authority = self._authority(invited)
        request, key = certificates.make_request(host.name)
        wish = Wish(secret=invited.secret, request=request.decode(), host=host)
        answer = peers.call(
            invited.address,
            "POST",
            "/v1/fleet/join",
            context=peers.verified(authority),
            body=wish.model_dump(mode="json"),
        )
        try:
            welcome = Welcome.model_validate(answer)
        except ValidationError as error:
            what = f"the host at {invited.address} does not answer as a daemon does"
            raise Unavailable(what, hint="it may have another version") from error
        identity = Identity(
            fleet_id=welcome.fleet_id,
            fleet=welcome.fleet,
            id=host.id,
            name=host.name,
            address=host.address,
            store=welcome.store,
        )
        self.files.write(identity, authority=authority, certificate=welcome.certificate.encode(), key=key)
        return identity

    def leave(self, member: Opened) -> None:
        """Be in no fleet any more. Raises Conflict while something is placed here."""
        member.state.leave(member.identity.id)
        self.files.remove()

    def _authority(self, invited: Invited) -> str:
        """The authority's certificate, which nothing but the fingerprint in the token vouches for."""
        answer = peers.call(invited.address, "GET", "/v1/fleet/authority", context=peers.unverified())
        text = str(answer.get("certificate", "")) if isinstance(answer, Mapping) else ""
        if fingerprint(text) != invited.fingerprint:
            what = f"the host at {invited.address} is not of the fleet that the token is from"
            raise Unauthorized(what, hint="somebody may be in between; make another: bulkhead cluster invite")
        return text

    def _refuse_member(self) -> None:
        if (there := self.files.read()) is not None:
            raise Conflict(f"this host is in the fleet {there.fleet} already", hint="bulkhead cluster leave")

    # --- this host

    def _host(self, name: str | None, address: str) -> Host:
        wanted = name or socket.gethostname().partition(".")[0].lower()
        try:
            return Host(id=uuid.uuid4().hex, name=wanted, address=address, joined=time.time(), **self.facts())
        except ValidationError as error:
            raise Refused(
                Problem(
                    f"{'.'.join(map(str, one['loc']))} {one['input']!r}: {one['msg']}", "see bulkhead cluster --help"
                )
                for one in error.errors()
            ) from None

    def facts(self) -> dict[str, object]:
        """What this host is and can, as its record tells it."""
        context, facts = self._context, self._context.facts
        has = selling.capacity(context)
        levels = {}
        for level, driver in context.drivers.items():
            probe = driver.probe()
            levels[level] = Level(works=probe.works, reason=probe.reason, hint=probe.hint)
        machine = Machine(
            cores=facts.cores,
            ghz=facts.ghz,
            clock=facts.ghz and round(facts.ghz / facts.factor, 3),
            memory=facts.memory,
            kernel=facts.kernel,
            architecture=platform.machine(),
            version=version("bulkhead"),
            accelerator=context.scales.accelerator(),
            cpu_models=tuple(name for name, missing in context.hypervisor.processors().items() if not missing),
            idle_watts=context.config.host_idle_watts,
            peak_watts=context.config.host_peak_watts,
        )
        sellable = {resource: has.shares[resource].sellable for resource in RESOURCES if resource in has.shares}
        return {"machine": machine, "levels": levels, "sellable": sellable, "factor": facts.factor}


def _sign(fleet: Fleet, request: bytes, host: Host) -> bytes:
    ca = fleet.certificate.encode(), fleet.key.encode()
    address = host.address.rpartition(":")[0].strip("[]")
    return certificates.sign_host(ca, request, CERTIFICATE_PREFIX + host.id, address, days=HOST_DAYS)


def require_processor(model: str, hosts: Sequence[Host]) -> None:
    """Raise Refused for a processor that no VM of these hosts could have; "": none by name."""
    if not model or any(model in host.machine.cpu_models for host in hosts):
        return
    common = sorted(set.intersection(*(set(host.machine.cpu_models) for host in hosts))) if hosts else []
    hint = f"all of them can: {', '.join(common)}" if common else "see: qemu-system-x86_64 -cpu help"
    raise Refused(f"no host can run VMs with all of the processor {model!r}", hint=hint)


def host_lines(seen: Seen, here: str, unheard: Mapping[str, tuple[float, bool]]) -> list[HostLine]:
    """Every host as `host ls` and `cluster status` show it. `here`: the id of the one that answers; `unheard`: of those
    that it does not hear of for how many seconds, and whether they count as lost.
    """
    lines = []
    for host in seen.hosts:
        sold = seen.sold.get(host.id, Sold())
        known: dict[str, float] = {"alive": host.id in seen.alive, "here": host.id == here}
        if host.id in unheard and host.id not in seen.alive:
            known |= {"unheard": unheard[host.id][0], "lost": unheard[host.id][1]}
        amounts = {"sold": sold.amounts.as_dict(), "instances": sold.places}
        lines.append(HostLine(**dict(host), **known, **amounts))
    return lines
