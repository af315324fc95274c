"""Routes of the fleet and its hosts, and the two that a host which would like to join may ask without a certificate."""

from __future__ import annotations

from typing import Literal, cast

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from bulkhead.api.auth import principal_of
from bulkhead.api.progress import with_progress
from bulkhead.api.responses import json_response
from bulkhead.api.service import Service
from bulkhead.engine.fleet.balancing import Aim
from bulkhead.engine.fleet.identity import Coordinates
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.fleet.membership import INVITED_SECONDS, Wish
from bulkhead.errors import Refused
from bulkhead.events import Progress
from bulkhead.fleet import LEASE_SECONDS, Address, CpuModel, Host, HostName, HostState, Label, Policy
from bulkhead.model import CreateRequest, Model

router = APIRouter(prefix="/v1", tags=["fleet"], max_body_size=1 << 18)
AUTHORITY, JOIN = "/v1/fleet/authority", "/v1/fleet/join"
"""What a host may ask that has no certificate yet."""


BASELINE = "one of QEMU's processor models, which VMs are made with from now on; empty: each host's own"


class NewFleet(Model):
    """A fleet to make with this host as its first; None for its name: the machine's."""

    fleet: HostName = "bulkhead"
    name: HostName | None = None
    address: Address
    store: Coordinates
    policy: Policy = "balance"
    cpu_baseline: CpuModel | Literal[""] = Field(default="", description=BASELINE)
    lease: float = Field(
        default=LEASE_SECONDS, ge=2, le=600, description="seconds after which a host that is not heard of may be lost"
    )


class Joining(Model):
    """A fleet to join."""

    token: str = Field(max_length=4096, repr=False)
    name: HostName | None = None
    address: Address


class Inviting(Model):
    """For how long a token is good."""

    seconds: float = Field(default=INVITED_SECONDS, ge=10, le=7 * 86400)


class InvitationShown(Model):
    """A token with which one host can join, shown this once."""

    token: str
    seconds: float


class AuthorityShown(Model):
    """The certificate that signs those of the hosts."""

    certificate: str


class FleetChange(Model):
    """What to change of the fleet; None: nothing."""

    policy: Policy | None = None
    spare: bool | None = None
    cpu_baseline: CpuModel | Literal[""] | None = Field(default=None, description=BASELINE)


class JudgedHost(Model):
    """What is said of a host, or of several that are refused for the same."""

    host: str
    verdict: Literal["chosen", "fits", "refused"]
    score: float | None
    reason: str
    hint: str = ""
    hosts: int = 1


class Explained(Model):
    """Where an instance would go, and why."""

    instance: str
    policy: Policy
    feasible: int
    refused: int
    hosts: list[JudgedHost]


class DrainRequest(Model):
    """How a host is to be emptied."""

    deadline: float = Field(default=600.0, ge=0, le=7 * 86400, description="seconds in which it may move instances")
    dry_run: bool = Field(default=False, description="only say what would go where")


class RebalanceRequest(Model):
    """How the hosts of the fleet are to be made more alike."""

    consolidate: bool = Field(default=False, description="free whole hosts instead")
    by: Literal["use", "sold"] = Field(
        default="use", description="what loads a host: what its instances use, as measured, or what is sold to them"
    )
    most_moves: int = Field(default=50, ge=1, le=1000)
    dry_run: bool = Field(default=False, description="only say what would go where")


class HostChange(Model):
    """What to change of a host; a label that is null is removed."""

    state: Literal[HostState.READY, HostState.DRAINING] | None = None
    labels: dict[Label, str | None] = {}


def fleet_of(request: Request) -> tuple[Service, Member]:
    """The service, whose threads are used, and the fleet."""
    return request.app.state.service, cast(Member, request.app.state.fleet)


@router.get("/fleet")
async def get_fleet(request: Request) -> Response:
    """The fleet as it is seen from here."""
    service, fleet = fleet_of(request)
    return json_response(await service.call(fleet.status))


@router.post("/fleet", status_code=201)
async def init_fleet(request: Request, body: NewFleet) -> Response:
    """Make a fleet with this host as its first."""
    service, fleet = fleet_of(request)
    given = {name: getattr(body, name) for name in NewFleet.model_fields}
    await service.call(fleet.init, **given)
    return json_response(await service.call(fleet.status), 201)


@router.patch("/fleet")
async def change_fleet(request: Request, body: FleetChange) -> Response:
    """Change by what hosts are chosen."""
    service, fleet = fleet_of(request)
    if changes := body.model_dump(exclude_none=True):
        await service.call(fleet.change, **changes)
    return json_response(await service.call(fleet.status))


@router.post("/fleet/explain")
async def explain_place(request: Request, body: CreateRequest, host: str | None = None) -> Response:
    """Which host an instance would go to, and why not to the others; nothing is made."""
    service, fleet = fleet_of(request)
    if body.inside or body.snapshot:
        raise Refused("it is made where its VM or its snapshot is: there is nothing to choose")
    pinned = None if host is None else await service.call(fleet.host, host)
    tenant = body.tenant or principal_of(request).home
    order = await service.call(fleet.placer.order, body, tenant=tenant, host=pinned)
    found = await service.call(fleet.placer.explain, order)
    return json_response(found.as_dict())


@router.post("/fleet/rebalance")
async def rebalance_fleet(request: Request, body: RebalanceRequest) -> Response:
    """Move instances between hosts where that is worth its cost; progress and what it came to as NDJSON. A client that
    goes ends it: what is under way goes back, what has gone stays where it is.
    """
    service, fleet = fleet_of(request)
    await service.call(fleet.opened)
    principal, aim = principal_of(request), Aim(**body.model_dump())

    def work(progress: Progress) -> object:
        return fleet.travels.balance(aim, principal=principal, progress=progress)

    return with_progress(request, work)


@router.get("/fleet/loads")
async def list_loads(request: Request) -> Response:
    """What instances of this host take and use, by which moves are weighed."""
    service, fleet = fleet_of(request)
    return json_response(await service.call(fleet.travels.loads))


@router.post("/fleet/membership", status_code=201)
async def join_fleet(request: Request, body: Joining) -> Response:
    """Join a fleet."""
    service, fleet = fleet_of(request)
    await service.call(fleet.join, body.token, name=body.name, address=body.address)
    return json_response(await service.call(fleet.status), 201)


@router.delete("/fleet/membership", status_code=204)
async def leave_fleet(request: Request) -> Response:
    """Be in no fleet any more."""
    service, fleet = fleet_of(request)
    await service.call(fleet.leave)
    return Response(status_code=204)


@router.post("/fleet/invitations", status_code=201)
async def invite_host(request: Request, body: Inviting) -> Response:
    """Make a token with which one host can join."""
    service, fleet = fleet_of(request)
    token = await service.call(fleet.invite, seconds=body.seconds, by=principal_of(request).user)
    answer = json_response(InvitationShown(token=token, seconds=body.seconds), 201)
    answer.headers["cache-control"] = "no-store"
    return answer


@router.get("/fleet/authority")
async def get_authority(request: Request) -> Response:
    """The certificate that signs those of the hosts; the fingerprint in a token vouches for it."""
    service, fleet = fleet_of(request)
    return json_response(AuthorityShown(certificate=await service.call(fleet.authority)))


@router.post("/fleet/join", status_code=201)
async def admit_host(request: Request, body: Wish) -> Response:
    """For a host that joins: its certificate, and where the fleet's store is."""
    service, fleet = fleet_of(request)
    answer = json_response(await service.call(fleet.admit, body), 201)
    answer.headers["cache-control"] = "no-store"
    return answer


@router.get("/hosts")
async def list_hosts(request: Request) -> Response:
    """Every host of the fleet."""
    service, fleet = fleet_of(request)
    return json_response(await service.call(fleet.hosts))


@router.get("/hosts/{ref}")
async def get_host_of_fleet(request: Request, ref: str) -> Response:
    """One host, by name or id."""
    service, fleet = fleet_of(request)
    found = await service.call(fleet.host, ref)
    lines = await service.call(fleet.hosts)
    return json_response(next(line for line in lines if line.id == found.id))


@router.patch("/hosts/{ref}")
async def change_host(request: Request, ref: str, body: HostChange) -> Response:
    """Change whether a host takes new instances, and its labels."""
    service, fleet = fleet_of(request)

    def change(host: Host) -> Host:
        labels = {**host.labels, **body.labels}
        kept = {key: value for key, value in labels.items() if value is not None}
        changed = host.model_copy(update={"state": body.state or host.state, "labels": kept})
        _ = changed.watts  # labels that tell of no such host are refused
        return changed

    return json_response(await service.call(fleet.change_host, ref, change))


@router.post("/hosts/{ref}/drain")
async def drain_host(request: Request, ref: str, body: DrainRequest) -> Response:
    """Let a host take nothing new, and move what is there to others; progress and how it went as NDJSON. A client that
    goes ends it: what is under way goes back, what has gone stays where it is.
    """
    service, fleet = fleet_of(request)
    await service.call(fleet.host, ref)

    def work(progress: Progress) -> object:
        return fleet.travels.empty(deadline=body.deadline, dry_run=body.dry_run, progress=progress)

    return with_progress(request, work, target=ref)


@router.delete("/hosts/{ref}", status_code=204)
async def remove_host(request: Request, ref: str, force: bool = False) -> Response:
    """Take a host out of the fleet that is gone for good; with `force` also what is placed there."""
    service, fleet = fleet_of(request)
    await service.call(fleet.forget_host, ref, force=force)
    return Response(status_code=204)
