"""What belongs to the engine as a tenant sees it: plans, networks, volumes, snapshots, rooms, watches, and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from bulkhead.engine.engine import Engine
from bulkhead.engine.plans import Plans
from bulkhead.errors import Forbidden, NotFound, Problem
from bulkhead.events import Progress
from bulkhead.model import (
    CreateRequest,
    Instance,
    Isolation,
    NamedPlan,
    Network,
    PlanRequest,
    Snapshot,
    Volume,
)
from bulkhead.secret import Secret
from bulkhead.storage.changes import Changes
from bulkhead.tenancy.records import Tenant

Own = Callable[[str], Instance]


def own_alone(asked: str | None, own: str) -> None:
    """Raise NotFound where somebody of a tenant names another one."""
    if asked not in (None, own):
        raise NotFound(f"no such tenant: {asked}", hint="leave the tenant out: it is your own")


def request_problems(request: CreateRequest, tenant: Tenant) -> list[Problem]:
    """Everything of a request that would reach beyond the tenant: what is the host's, and what is the operator's."""
    problems = []
    if request.isolation not in ("auto", *tenant.levels):
        levels = ", ".join(tenant.levels)
        problems.append(Problem(f"a {request.isolation} is not for tenant {tenant.name}", f"use one of: {levels}"))
    if request.isolation == "auto" and Isolation.VM not in tenant.levels:
        problems.append(Problem("the rules could choose a vm, which is not for this tenant", "name a level"))
    if request.network == "host":
        problems.append(Problem("the host's network is not for tenants", "leave out --network, or make one"))
    problems += [
        Problem(
            f"{mount.source} is a path of the host: tenants have volumes", "name a volume (no slash), or bulkhead cp"
        )
        for mount in request.mounts
        if mount.kind == "bind"
    ]
    problems += [
        Problem(f"{disk.source} is a device or a file of the host", "leave out --disk-file") for disk in request.disks
    ]
    problems += [
        Problem(f"port {port.host_port} on {port.host_ip}: a tenant does not choose the host's address", "leave it out")
        for port in request.ports
        if port.host_ip
    ]
    if request.where.constraints:
        problems.append(Problem("the labels of hosts are the operator's", "leave out --constraint"))
    if request.kernel:
        problems.append(Problem(f"kernel {request.kernel}: which kernels boot here is the operator's choice", ""))
    if request.trust in ("own", "partner"):
        what = f"trust {request.trust}: to whoever runs this host, a tenant's programs are the public's"
        problems.append(Problem(what, "leave out --trust"))
    return problems


class TenantPlans:
    """The host's plans, to be looked at."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def list(self) -> Sequence[NamedPlan]:
        """Every plan that can be bought."""
        return self._plans.list()

    def get(self, name: str) -> NamedPlan:
        """One plan."""
        return self._plans.get(name)

    def create(self, name: str, asked: PlanRequest) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("plans are the operator's")

    def remove(self, name: str) -> NoReturn:
        """Not for tenants."""
        raise Forbidden("plans are the operator's")


class TenantNetworks:
    """A tenant's networks."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._networks, self._tenant = engine.networks, tenant

    def list(self) -> Sequence[Network]:
        """Its own."""
        return self._networks.list(tenant=self._tenant)

    def get(self, name: str) -> Network:
        """One of its own."""
        return self._networks.get(name, tenant=self._tenant)

    def create(
        self,
        name: str,
        *,
        subnet4: str | None,
        subnet6: str | None,
        tenant: str | None,
        fleet: bool = False,
        unencrypted: bool = False,
    ) -> Network:
        """Make one; its subnets are of the operator's pool, so that none hides another's addresses."""
        own_alone(tenant, self._tenant)
        if subnet4 or subnet6:
            raise Forbidden("a tenant's subnets come from the operator's pool", hint="leave out --subnet and --subnet6")
        wanted = {"fleet": fleet, "unencrypted": unencrypted}
        return self._networks.create(name, subnet4=None, subnet6=None, tenant=self._tenant, **wanted)

    def remove(self, name: str) -> None:
        """Remove one of its own."""
        self._networks.remove(name, tenant=self._tenant)


class TenantVolumes:
    """A tenant's volumes."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._volumes, self._tenant = engine.volumes, tenant

    def list(self) -> Sequence[Volume]:
        """Its own."""
        return self._volumes.list(tenant=self._tenant)

    def get(self, name: str) -> Volume:
        """One of its own."""
        return self._volumes.get(name, tenant=self._tenant)

    def create(self, name: str, *, size: int | None, tenant: str | None) -> Volume:
        """Make one."""
        own_alone(tenant, self._tenant)
        return self._volumes.create(name, size=size, tenant=self._tenant)

    def remove(self, name: str) -> None:
        """Remove one of its own."""
        self._volumes.remove(name, tenant=self._tenant)


class TenantSecrets:
    """A tenant's secrets."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._secrets, self._tenant = engine.secrets, tenant

    def list(self) -> Sequence[Secret]:
        """Its own."""
        return self._secrets.list(tenant=self._tenant)

    def get(self, name: str) -> Secret:
        """One of its own."""
        return self._secrets.get(name, tenant=self._tenant)

    def create(self, name: str, value: bytes, *, labels: Mapping[str, str], replace: bool) -> Secret:
        """Make one, or put another value into one of its own."""
        return self._secrets.create(name, value, labels=labels, replace=replace, tenant=self._tenant)

    def remove(self, name: str) -> None:
        """Remove one of its own."""
        self._secrets.remove(name, tenant=self._tenant)


class TenantSnapshots:
    """The snapshots of a tenant's instances."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._snapshots, self._tenant = engine.snapshots, tenant

    def list(self, ref: str | None = None) -> Sequence[Snapshot]:
        """Its own, or those of one of its instances."""
        return self._snapshots.list(ref, tenant=self._tenant)

    def get(self, ref: str, name: str) -> Snapshot:
        """One of its own."""
        return self._snapshots.get(ref, name, tenant=self._tenant)

    def create(self, ref: str, *, name: str | None, memory: bool, progress: Progress) -> Snapshot:
        """Make one."""
        return self._snapshots.create(ref, name=name, memory=memory, progress=progress, tenant=self._tenant)

    def restore(self, ref: str, name: str, *, force: bool, memory: bool, progress: Progress) -> Instance:
        """Put one back."""
        return self._snapshots.restore(ref, name, force=force, memory=memory, progress=progress, tenant=self._tenant)

    def remove(self, ref: str, name: str) -> None:
        """Remove one."""
        self._snapshots.remove(ref, name, tenant=self._tenant)


class TenantRooms:
    """A tenant's clean rooms."""

    def __init__(self, engine: Engine, tenant: str, own: Own, judged: Callable[[CreateRequest], CreateRequest]) -> None:
        self._rooms, self._tenant, self._own, self._judged = engine.rooms, tenant, own, judged

    def open(self, request: CreateRequest) -> Instance:
        """Make a room."""
        return self._rooms.open(self._judged(request))

    def is_there(self, instance_id: str) -> bool:
        """Whether one of its rooms has not been removed yet."""
        try:
            return self._rooms.is_there(self._own(instance_id).spec.id)
        except NotFound:
            return False

    def close(self, instance_id: str) -> None:
        """Throw one of its rooms away. Fine when it is gone."""
        if self.is_there(instance_id):
            self._rooms.close(instance_id)

    def changes(self, instance: Instance) -> Changes:
        """What has been changed in one of its instances."""
        return self._rooms.changes(self._own(instance.spec.id))

    def layer(self, instance: Instance) -> Iterator[bytes]:
        """The same as a layer."""
        return self._rooms.layer(self._own(instance.spec.id))


class TenantWatches:
    """Which files are opened in a tenant's instances."""

    def __init__(self, engine: Engine, own: Own) -> None:
        self._watches, self._own = engine.watches, own

    def watch(self, instance: Instance, *, alive: Callable[[], bool]) -> Iterator[Mapping[str, str | int]]:
        """See Watches.watch."""
        return self._watches.watch(self._own(instance.spec.id), alive=alive)

    def end(self, instance_id: str) -> None:
        """See Watches.end."""
        self._watches.end(self._own(instance_id).spec.id)
