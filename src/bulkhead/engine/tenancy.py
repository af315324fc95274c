"""The engine as a tenant sees it: its own things alone, and nothing that reaches the host.

Every route gets this in the place of the engine where a tenant asks, so that no route can forget to look. It finds what
is named among what is the tenant's, and hands on whole ids; what is another's is not found, in the same words as what
is not there. What is not written down here cannot be done: the API's protocol asks for every verb by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import ExecRequest
from bulkhead.engine.auditing import NoAudits
from bulkhead.engine.builds.builder import Builder
from bulkhead.engine.builds.order import BuildOrder, Tell
from bulkhead.engine.engine import Engine
from bulkhead.engine.logs import LogLine
from bulkhead.engine.reports import Usage
from bulkhead.engine.temporaries import Temporaries
from bulkhead.engine.tenant_access import TenantOperations, TenantTenants, TenantUsage, TenantUsers
from bulkhead.engine.tenant_billing import TenantBilling, TenantExposer
from bulkhead.engine.tenant_images import TenantImages, TenantRegistries
from bulkhead.engine.tenant_parts import (
    TenantNetworks,
    TenantPlans,
    TenantRooms,
    TenantSecrets,
    TenantSnapshots,
    TenantVolumes,
    TenantWatches,
    request_problems,
)
from bulkhead.errors import Forbidden, NotFound, Problem, Refused
from bulkhead.events import Event, Progress, quiet
from bulkhead.isolation.base import Ability
from bulkhead.model import CreateRequest, Exit, Instance, Isolation, PlanRequest, RestartPolicy
from bulkhead.moves import Moved
from bulkhead.tenancy.records import Tenant

HIDDEN = ("bundle", "log", "layers")
"""Of `describe`: where things are on the host."""


class TenantEngine:
    """All verbs for one tenant. `ref` as for Engine, among its own."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._engine = engine
        self._tenant = tenant
        self._context = engine.context.seen_by(tenant)
        self.images = TenantImages(self._context)
        self.registries = TenantRegistries(self._context, self.images)
        self.plans = TenantPlans(engine.plans)
        self.networks = TenantNetworks(engine, tenant)
        self.volumes = TenantVolumes(engine, tenant)
        self.secrets = TenantSecrets(engine, tenant)
        self.snapshots = TenantSnapshots(engine, tenant)
        self.rooms = TenantRooms(engine, tenant, self.own, self.judged)
        self.watches = TenantWatches(engine, self.own)
        self.temporaries = Temporaries(self._context)
        self.audits = NoAudits()
        self.operations = TenantOperations(engine.context.state, engine.operations, tenant)
        self.tenants = TenantTenants(engine, tenant)
        self.users = TenantUsers(engine.access, tenant)
        self.usage = TenantUsage(engine, tenant)
        self.billing = TenantBilling(engine, tenant)
        self.exposer = TenantExposer(engine, tenant)
        self.access = engine.access

    @cached_property
    def _builder(self) -> Builder:
        return self._engine.builder_for(self._context)

    def own(self, ref: str) -> Instance:
        """An instance of the tenant's. Raises NotFound."""
        return self._context.state.find(ref, tenant=self._tenant)

    def _id(self, ref: str) -> str:
        return self.own(ref).spec.id

    def _record(self) -> Tenant:
        return self._engine.access.tenant(self._tenant)

    def judged(self, request: CreateRequest) -> CreateRequest:
        """A request as this tenant's. Raises Refused with everything that reaches beyond it."""
        if request.tenant not in (None, self._tenant):
            raise NotFound(f"no such tenant: {request.tenant}", hint="leave out --tenant")
        if problems := request_problems(request, self._record()):
            raise Refused(problems)
        return request.model_copy(update={"tenant": self._tenant})

    # --- create, start, stop, delete

    def create(self, request: CreateRequest, *, at_once: bool = False) -> Instance:
        """See Engine.create."""
        return self._engine.create(self.judged(request), at_once=at_once)

    def build(self, order: BuildOrder, files: Iterator[bytes], *, tell: Tell, alive: Callable[[], bool]) -> object:
        """See Engine.build."""
        if problems := self._build_problems(order):
            for _ in files:
                pass
            raise Refused(problems)
        return self.images.within_quota(lambda: self._builder.build(order, files, tell=tell, alive=alive))

    def _build_problems(self, order: BuildOrder) -> list[Problem]:
        problems = []
        levels = self._record().levels
        if order.isolation not in levels:
            problems.append(Problem(f"a {order.isolation} is not for tenants", f"use one of: {', '.join(levels)}"))
        if order.network == "host":
            problems.append(Problem("the host's network is not for tenants", "leave out --network"))
        if not order.names:
            problems.append(Problem("a tenant's image needs a name", "name it with -t NAME"))
        return problems

    def dry_run(self, request: CreateRequest) -> str:
        """Not for tenants: it tells of the host's paths."""
        raise Forbidden("a dry run tells of the host's paths: it is not for tenants", hint="leave out --dry-run")

    def start(self, ref: str, *, on_launch: Callable[[Path], None] | None = None) -> Instance:
        """See Engine.start."""
        return self._engine.start(self._id(ref), on_launch=on_launch)

    def stop(self, ref: str, *, timeout: float | None = None, signal: str | None = None) -> Instance:
        """See Engine.stop."""
        return self._engine.stop(self._id(ref), timeout=timeout, signal=signal)

    def kill(self, ref: str, *, signal: str = "SIGKILL") -> Instance:
        """See Engine.kill."""
        return self._engine.kill(self._id(ref), signal=signal)

    def pause(self, ref: str) -> Instance:
        """See Engine.pause."""
        return self._engine.pause(self._id(ref))

    def unpause(self, ref: str) -> Instance:
        """See Engine.unpause."""
        return self._engine.unpause(self._id(ref))

    def delete(self, ref: str, *, force: bool = False) -> str:
        """See Engine.delete."""
        return self._engine.delete(self._id(ref), force=force)

    def wait(self, ref: str) -> Future[Exit]:
        """See Engine.wait."""
        return self._engine.wait(self._id(ref))

    def update(self, ref: str, plan: PlanRequest, *, restart: RestartPolicy | None = None) -> Instance:
        """See Engine.update."""
        return self._engine.update(self._id(ref), plan, restart=restart)

    def move(
        self,
        ref: str,
        level: Isolation,
        *,
        plan: PlanRequest,
        network: str | None,
        within: float,
        progress: Progress = quiet,
    ) -> Moved:
        """See Engine.move."""
        identifier, problems, levels = self._id(ref), [], self._record().levels
        if level not in levels:
            problems.append(Problem(f"a {level} is not for tenants", f"use one of: {', '.join(levels)}"))
        if network == "host":
            problems.append(Problem("the host's network is not for tenants", "leave out --network"))
        if problems:
            raise Refused(problems)
        return self._engine.move(identifier, level, plan=plan, network=network, within=within, progress=progress)

    # --- looking

    def get(self, ref: str) -> Instance:
        """See Engine.get."""
        return self.own(ref)

    def list(self) -> Sequence[Instance]:
        """The tenant's instances, the newest first."""
        return [one for one in self._engine.list() if one.spec.tenant == self._tenant]

    def describe(self, ref: str) -> Mapping[str, object]:
        """See Engine.describe; without the host's paths."""
        told = self._engine.describe(self._id(ref))
        return {key: value for key, value in told.items() if key not in HIDDEN}

    def stats(self, refs: Sequence[str] | None = None) -> Sequence[Usage]:
        """See Engine.stats."""
        if refs:
            return self._engine.stats([self._id(ref) for ref in refs])
        ids = [one.spec.id for one in self.list() if one.pid]
        return self._engine.stats(ids) if ids else []

    def logs(
        self, ref: str, *, since: float, until: float, tail: int | None, follow: Callable[[], bool] | None
    ) -> Iterator[LogLine]:
        """See Engine.logs."""
        return self._engine.logs(self._id(ref), since=since, until=until, tail=tail, follow=follow)

    def events(
        self, *, since: float, until: float | None, follow: Callable[[], bool] | None, after: int = 0
    ) -> Iterator[Event]:
        """What has happened to the tenant's things."""
        for event in self._engine.events(since=since, until=until, follow=follow, after=after):
            if event.tenant == self._tenant:
                yield event

    def host(self) -> Mapping[str, object]:
        """Not for tenants."""
        raise Forbidden("what of the host is sold and free is not for tenants", hint="GET /v1/tenants has the quota")

    def doctor(self) -> Sequence[Ability]:
        """Not for tenants."""
        raise Forbidden("the host's abilities are not for tenants")

    def walls(self) -> Mapping[str, object]:
        """The levels that the tenant may have, and the rules by which one is chosen."""
        told, allowed = self._engine.walls(), self._record().levels
        levels = told["levels"]
        assert isinstance(levels, list)
        return {**told, "levels": [level for level in levels if level["level"] in allowed]}

    def info(self) -> Mapping[str, object]:
        """The version, and what the tenant has."""
        report = self._engine.tenants.get(self._tenant)
        return {
            "version": self._engine.info()["version"],
            "tenant": report.tenant.model_dump(mode="json"),
            "used": report.used.model_dump(mode="json"),
            "instances": report.used.instances,
        }

    # --- inside

    def prepare_attach(self, ref: str) -> Path:
        """See Engine.prepare_attach."""
        return self._engine.prepare_attach(self._id(ref))

    def prepare_exec(
        self,
        ref: str,
        *,
        argv: Sequence[str],
        env: Sequence[str],
        user: str | None,
        workdir: str | None,
        tty: bool,
        stdin: bool,
    ) -> tuple[Path, ExecRequest]:
        """See Engine.prepare_exec."""
        return self._engine.prepare_exec(
            self._id(ref), argv=argv, env=env, user=user, workdir=workdir, tty=tty, stdin=stdin
        )

    def collects(self, ref: str) -> bool:
        """See Engine.collects."""
        return self._engine.collects(self._id(ref))

    def collect(
        self,
        ref: str,
        *,
        argv: Sequence[str],
        env: Sequence[str],
        user: str | None,
        workdir: str | None,
        tty: bool,
        stdin: bool,
        alive: Callable[[], bool],
    ) -> Collected:
        """See Engine.collect."""
        return self._engine.collect(
            self._id(ref), argv=argv, env=env, user=user, workdir=workdir, tty=tty, stdin=stdin, alive=alive
        )

    def copy_out(self, ref: str, path: str) -> Iterator[bytes]:
        """See Engine.copy_out."""
        return self._engine.copy_out(self._id(ref), path)

    def copy_in(self, ref: str, path: str, stream: BinaryIO) -> None:
        """See Engine.copy_in."""
        self._engine.copy_in(self._id(ref), path, stream)
