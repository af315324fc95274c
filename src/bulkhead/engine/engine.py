"""The engine as its users see it: one method per verb. Synchronous and safe to call from many threads.

`ref` is an instance's name, its id, or a unique beginning of the id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bulkhead.agent.collect import Collected
from bulkhead.agent.frames import ExecRequest
from bulkhead.engine import hosting, logs, machines, replanning
from bulkhead.engine.admission import signal_problems
from bulkhead.engine.admitting import Admission
from bulkhead.engine.auditing import Auditor
from bulkhead.engine.builds.builder import Builder
from bulkhead.engine.builds.order import BuildOrder, Tell
from bulkhead.engine.commands import Commands, require_running
from bulkhead.engine.context import Context
from bulkhead.engine.copying import Copier
from bulkhead.engine.doctor import examine
from bulkhead.engine.exposing import metered
from bulkhead.engine.fleet.member import Member
from bulkhead.engine.fleet.opening import open_shared
from bulkhead.engine.fleet.travel import Travels
from bulkhead.engine.images import ImageCatalog
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.engine.memory import Memory
from bulkhead.engine.moving import Mover
from bulkhead.engine.networks import DEFAULT, NetworkCatalog
from bulkhead.engine.operations import Operations
from bulkhead.engine.plans import Plans
from bulkhead.engine.recovery import Recovery
from bulkhead.engine.registries import RegistryCatalog
from bulkhead.engine.reports import Reporter, Usage
from bulkhead.engine.rooms import Rooms
from bulkhead.engine.secrets import SecretCatalog
from bulkhead.engine.snapshots import SnapshotCatalog
from bulkhead.engine.temporaries import Temporaries
from bulkhead.engine.tenants import Tenants
from bulkhead.engine.upkeep import Upkeep
from bulkhead.engine.users import Users
from bulkhead.engine.volumes import VolumeCatalog
from bulkhead.engine.walls import Walls
from bulkhead.engine.watching import Watches
from bulkhead.errors import NotFound, Refused
from bulkhead.events import Event, Progress, quiet
from bulkhead.host import cgroups
from bulkhead.images import Image
from bulkhead.isolation.base import Ability, Collects, Command
from bulkhead.model import (
    DEFAULT_TENANT,
    CreateRequest,
    Exit,
    Instance,
    Isolation,
    PlanRequest,
    RestartPolicy,
    State,
)
from bulkhead.moves import Moved
from bulkhead.quantities import parse_signal
from bulkhead.store.access import Access

if TYPE_CHECKING:
    from bulkhead.engine.tenancy import TenantEngine


class Engine:
    """All verbs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.access = Access(context.state)
        self.fleet = Member(context, open_store=partial(open_shared, context.config.run_dir))
        self.images, self.registries = ImageCatalog(context), RegistryCatalog(context)
        self.plans = Plans(context)
        self.networks = NetworkCatalog(context)
        self.volumes, self.secrets = VolumeCatalog(context), SecretCatalog(context)
        self.operations = Operations(context.state)
        self.tenants = Tenants(context, self.access, self.networks)
        self.users = Users(self.access)
        self._reports = Reporter(context)
        self._commands = Commands(context)
        self._lifecycle = Lifecycle(context)
        self.fleet.travels = Travels(context, self._lifecycle, self.fleet, self.plans)
        self.meter = self._lifecycle.meter
        self.usage, self.billing, self.exposer = metered(context, self.meter)
        self._builder = Builder(context, self._lifecycle, self.plans)
        self.snapshots = SnapshotCatalog(context, self._lifecycle)
        self._admission = Admission(context, self.plans, self.images, self.snapshots)
        self._copier = Copier(context, self._lifecycle.resources)
        self._upkeep = Upkeep(context, self._lifecycle, self._commands.check_health)
        self._memory = Memory(context)
        self._walls = Walls(context, self.plans, self.images)
        self._mover = Mover(context, self._lifecycle, self._commands.check_health)
        self.rooms = Rooms(context, self._lifecycle, self.create)
        self.temporaries, self.watches = Temporaries(context), Watches(context)
        self.audits = Auditor(context, self._lifecycle, self.rooms)

    def recover(self) -> list[str]:
        """Make the host agree with the store, watch what runs, start what should run. Call once, first."""
        self._memory.check()
        self._context.disks.prepare()
        self._context.state.count_again()  # of a host that has changed, or by a newer Bulkhead, things weigh otherwise
        self._context.lxcfs.try_ensure()
        self.plans.prepare()
        self.networks.prepare()
        repairs = Recovery(self._context, self._lifecycle).run()
        repairs += self.operations.recover()
        repairs += self._mover.recover()
        repairs += self._builder.recover()
        self.access.forget_claims()
        self._context.state.drop_claims()  # of changes that were interrupted: they are through, or undone
        repairs += self.temporaries.recover()
        repairs += self.images.forget_replaced()
        self._upkeep.begin()
        self._memory.begin()
        self._context.disks.prefill(self.plans.default().disk)
        self.meter.start()
        self.networks.tell_hurdles()
        self._context.networks.prefill(self._context.state.network(DEFAULT))
        self.fleet.open()
        return repairs

    def close(self) -> None:
        """Stop what this daemon does; the instances run on."""
        self.fleet.close()
        self._upkeep.quiet()
        self._memory.close()
        self.rooms.close_all()
        self._upkeep.close()
        self.meter.close()
        self._context.warm.close()
        running = [instance for instance in self._context.state.instances() if instance.pid]
        for network in self._context.state.networks():
            # A network that nothing runs on needs no bridge, rules and name server until somebody starts again.
            if network.key not in {instance.spec.network_key for instance in running}:
                self._context.networks.down(network)
        self._context.networks.close()
        self._context.templates.close()
        self._context.disks.close()
        self._context.layers.close(self._reports.layers_in_use(running))
        if not running:
            self._context.lxcfs.stop()
            cgroups.remove(self._context.layout, self._context.config.cgroup)
        self._context.ledger.close()
        self._context.state.close()

    # --- create, start, stop, delete

    def create(
        self, request: CreateRequest, *, at_once: bool = False, room: bool = False, progress: Progress = quiet
    ) -> Instance:
        """Make an instance; `at_once`: it is started next. Raises Refused with every problem, before any change."""
        self.access.tenant(request.tenant or DEFAULT_TENANT)
        admission = self._admission_of(request.tenant)
        admitted = self.fleet.images.having(request, partial(admission.admit, request, room=room), admission.images)
        spec = admitted.spec.model_copy(update={"room": True}) if room else admitted.spec
        for mount in spec.mounts:
            if mount.kind == "volume":
                self.volumes.ensure(mount.source, tenant=spec.tenant)
        if at_once and machines.can_be_warm(self._context, spec) and not admitted.source:
            spec = machines.claim(self._context, spec, admitted.image)
        try:
            with ExitStack() as undo:
                if admitted.machine:
                    undo.callback(self._lifecycle.erase, self._lifecycle.create(admitted.machine, admitted.image))
                made = self._lifecycle.create(
                    spec,
                    admitted.image,
                    source=admitted.source,
                    resumes=admitted.resumes,
                    user_data=request.user_data,
                    progress=progress,
                )
                undo.pop_all()
                return made
        except BaseException:
            self._context.warm.abandon(spec.id)  # where it failed before there was a record
            raise

    def build(self, order: BuildOrder, files: Iterator[bytes], *, tell: Tell, alive: Callable[[], bool]) -> Image:
        """Carry a Containerfile out; `files` is its context, a tar. Raises Refused before anything is done."""
        return self._builder.build(order, files, tell=tell, alive=alive)

    @property
    def context(self) -> Context:
        """The parts; for what looks at them as one tenant does."""
        return self._context

    def seen_by(self, tenant: str) -> TenantEngine:
        """All of this as a tenant sees it."""
        from bulkhead.engine.tenancy import TenantEngine

        return TenantEngine(self, tenant)

    def builder_for(self, context: Context) -> Builder:
        """What carries builds out with the images of `context`."""
        return Builder(context, self._lifecycle, self.plans, host=self._context)

    def _admission_of(self, tenant: str | None) -> Admission:
        """What judges requests by the images that a tenant sees."""
        if tenant in (None, DEFAULT_TENANT):
            return self._admission
        return replace(self._admission, images=ImageCatalog(self._context.seen_by(tenant)))

    def dry_run(self, request: CreateRequest) -> str:
        """What a start would do, in words; nothing is changed."""
        admitted = self._admission_of(request.tenant).admit(request)
        return self._reports.dry_run(admitted.spec, admitted.image, admitted.machine)

    def start(self, ref: str, *, on_launch: Callable[[Path], None] | None = None) -> Instance:
        """Run it. `on_launch` is called with the agent's socket before the workload starts."""
        return self._lifecycle.start(self.get(ref), on_launch=on_launch)

    def stop(self, ref: str, *, timeout: float | None = None, signal: str | None = None) -> Instance:
        """End it in order, after `timeout` seconds by force."""
        if problems := signal_problems(signal):
            raise Refused(problems)
        return self._lifecycle.stop(self.get(ref), timeout=timeout, signal=signal)

    def kill(self, ref: str, *, signal: str = "SIGKILL") -> Instance:
        """Send a signal to the workload's first process; one that is paused goes on for it."""
        instance = self.get(ref)
        if problems := signal_problems(signal):
            raise Refused(problems)
        if instance.state is not State.PAUSED:
            require_running(instance)
        return self._lifecycle.signal(instance, parse_signal(signal))

    def pause(self, ref: str) -> Instance:
        """Freeze every process of it; returns when they are."""
        instance = self.get(ref)
        require_running(instance)
        return self._lifecycle.pausing.pause(instance)

    def unpause(self, ref: str) -> Instance:
        """Let a paused one go on."""
        return self._lifecycle.pausing.unpause(self.get(ref))

    def delete(self, ref: str, *, force: bool = False) -> str:
        """Remove it; a running one only with `force`. Returns its id."""
        instance = self.get(ref)
        self._lifecycle.delete(instance, force=force)
        return instance.spec.id

    def wait(self, ref: str) -> Future[Exit]:
        """How it ends; resolved when that is in the store and, with auto_remove, all of it is gone."""
        return self._lifecycle.waiters.wait(self.get(ref).spec.id)

    def update(self, ref: str, plan: PlanRequest, *, restart: RestartPolicy | None = None) -> Instance:
        """Change its plan, at once when it runs, and its restart policy."""
        instance = self.get(ref)
        changed = replanning.admit(self._context, self.plans, instance, plan)
        return self._lifecycle.updates.carry_out(instance, plan=changed, restart=restart or instance.spec.restart)

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
        """Put it behind another wall, and back where it is not well there `within` so many seconds."""
        instance_id = self.get(ref).spec.id
        with self._context.locks.hold(instance_id):
            instance = self.get(instance_id)
            after = self._walls.admit(instance, level, plan, network)
            return self._mover.move(instance, after, within=within, progress=progress)

    # --- looking

    def get(self, ref: str) -> Instance:
        """The instance. Raises NotFound."""
        return self._context.state.find(ref)

    def list(self) -> list[Instance]:
        """All instances, the newest first."""
        return sorted(self._context.state.instances(), key=lambda instance: -instance.spec.created)

    def describe(self, ref: str) -> dict[str, object]:
        """Everything about it, for `inspect`."""
        return self._reports.describe(self.get(ref))

    def stats(self, refs: Sequence[str] | None = None) -> Sequence[Usage]:
        """What running instances use now; all of them when none are named."""
        instances = [self.get(ref) for ref in refs] if refs else self.list()
        return [self._reports.usage(instance) for instance in instances if refs or instance.pid]

    def logs(
        self, ref: str, *, since: float, until: float, tail: int | None, follow: Callable[[], bool] | None
    ) -> Iterator[logs.LogLine]:
        """Entries of its log; with `follow` also those to come, until it ends or `follow()` is false."""
        instance = self.get(ref)

        def more() -> bool:
            return follow is not None and follow() and self._is_alive(instance.spec.id)

        bundle = self._context.bundle_dir(instance)
        return logs.read(bundle, since=since, until=until, tail=tail, follow=more if follow else None)

    def _is_alive(self, instance_id: str) -> bool:
        try:
            return self._context.state.get(instance_id).pid != 0
        except NotFound:
            return False

    def events(
        self, *, since: float, until: float | None, follow: Callable[[], bool] | None, after: int = 0
    ) -> Iterator[Event]:
        """What has happened, the oldest first; with `follow` also what is still to happen."""
        return self._context.journal.read(since=since, until=until, after=after, follow=follow)

    def doctor(self) -> Sequence[Ability]:
        """Every ability of this host, by trying it."""
        return examine(self._context)

    def walls(self) -> Mapping[str, object]:
        """The levels of isolation as they are here, and the rules by which one is chosen."""
        return self._reports.walls()

    def host(self) -> Mapping[str, object]:
        """What of this host is sold, used and free, and how many more of each plan would fit."""
        return {**hosting.report(self._context), "merged": self._memory.merger.saved()}

    def info(self) -> Mapping[str, object]:
        """Version, host facts, paths."""
        return {"version": version("bulkhead"), **self._reports.host()}

    # --- inside

    def prepare_attach(self, ref: str) -> Path:
        """The agent's socket of a running instance."""
        instance = self.get(ref)
        require_running(instance)
        return self._context.bundle_dir(instance) / "agent.sock"

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
        """The agent's socket of a running instance and what EXEC is to carry."""
        command = Command(argv=tuple(argv), env=tuple(env), user=user, workdir=workdir, tty=tty, stdin=stdin)
        return self._commands.prepare(self.get(ref), command)

    def collects(self, ref: str) -> bool:
        """Whether commands in it are run to their end, since no client can be joined to them."""
        return isinstance(self._context.driver(self.get(ref)), Collects)

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
        """Run a command in such an instance to its end; at most 256 KiB of each output."""
        command = Command(argv=tuple(argv), env=tuple(env), user=user, workdir=workdir, tty=tty, stdin=stdin)
        return self._commands.collect(self.get(ref), command, alive=alive)

    def copy_out(self, ref: str, path: str) -> Iterator[bytes]:
        """A tar stream of a file or directory inside."""
        return self._copier.copy_out(self.get(ref), path)

    def copy_in(self, ref: str, path: str, stream: BinaryIO) -> None:
        """Unpack a tar stream below a directory inside."""
        self._copier.copy_in(self.get(ref), path, stream)
