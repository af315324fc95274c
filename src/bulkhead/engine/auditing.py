"""Audits: the probe run behind a wall, what the host's kernel says of what runs there, and the two put together."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from bulkhead.agent.probe import find_probe
from bulkhead.agent.session import Session
from bulkhead.audit import assessing
from bulkhead.audit.assessing import Gathered
from bulkhead.audit.facts import Look, parse
from bulkhead.audit.findings import Targets
from bulkhead.audit.outside import Mounted, Process, host_paths, open_files, root_of, shared_kinds
from bulkhead.audit.report import AuditReport
from bulkhead.engine import bundles, inside, machines
from bulkhead.engine.context import Context
from bulkhead.engine.lifecycle import Lifecycle
from bulkhead.engine.rooms import Rooms
from bulkhead.errors import AgentError, BulkheadError, Conflict, Forbidden, Refused
from bulkhead.events import Progress, Step, quiet
from bulkhead.host import inspection, processes
from bulkhead.host.mounts import MountEntry
from bulkhead.images import Image
from bulkhead.isolation import capabilities
from bulkhead.isolation.base import Command
from bulkhead.model import CreateRequest, Instance, Isolation, Spec, State

log = logging.getLogger(__name__)
PROBE_SECONDS = 120.0
"""Within which it has looked, also in a machine whose processor is emulated."""
REFERENCE_SECONDS = 30.0
REPORT_LIMIT = 1 << 20
"""Bytes of a report that are read."""
AT_A_TIME = 2
"""Audits; others wait."""
ADDRESSES = 24
"""Addresses that are tried at most: the probe takes 32."""
ROOT = "0:0"
IDLE = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
"""What runs in an instance that is made to be looked at. Needs a shell and sleep in the image."""
NO_COMMANDS = "nobody in it can run a program of ours: what its hypervisor's process may do is all that is known"


class Auditor:
    """Audits instances, and levels by an instance of them that is made for it."""

    def __init__(self, context: Context, lifecycle: Lifecycle, rooms: Rooms) -> None:
        self._context = context
        self._lifecycle = lifecycle
        self._rooms = rooms
        self._turns = threading.BoundedSemaphore(AT_A_TIME)

    def audit(self, instance: Instance, *, progress: Progress = quiet) -> AuditReport:
        """Look at an instance that runs. Raises Conflict, and NotFound or Unavailable where it ends meanwhile."""
        spec = instance.spec
        if instance.state is not State.RUNNING:
            paused = instance.state is State.PAUSED
            hint = f"bulkhead {'unpause' if paused else 'start'} {spec.name}"
            raise Conflict(f"instance {spec.name} is {instance.state}, not running", hint=hint)
        with self._turns:
            targets = self._targets(instance)
            notes: list[str] = []
            looks: dict[str, Look] = {}
            if spec.powered:
                notes.append(NO_COMMANDS)
            else:
                for who, user in _users(spec):
                    progress(Step(f"looking about as {who}"))
                    try:
                        looks[who] = self._look(instance, user, targets)
                    except AgentError as error:
                        # Whoever shares its namespaces can end it at once. What the host knows is told all the same.
                        looks[who] = Look()
                        notes.append(f"the probe did not run as {who}: {error}")
            progress(Step("looking from outside"))
            process, hypervisor = self._outside(instance)
            gathered = Gathered(
                instance=spec.name,
                level=str(spec.isolation),
                inside=self._machine_name(spec),
                image=spec.image,
                host_kernel=os.uname().release,
                when=time.time(),
                looks=looks,
                process=process,
                hypervisor=hypervisor,
                reference=self._reference(process, looks),
                targets=targets,
                notes=tuple(notes),
            )
            return assessing.assess(gathered)

    def audit_level(self, level: Isolation, *, image: str | None, progress: Progress = quiet) -> AuditReport:
        """The same of an instance of this level, made of `image` (None: the smallest that fits) and thrown away."""
        chosen = image or self._smallest(level)
        idle = {} if level is Isolation.UNIKERNEL else {"entrypoint": (), "command": IDLE}
        request = CreateRequest.model_validate({"image": chosen, "isolation": level, **idle})
        progress(Step(f"making a {level} of {chosen}"))
        room = self._rooms.open(request)
        try:
            started = self._lifecycle.start(room)
            return self.audit(started, progress=progress)
        finally:
            self._rooms.close(room.spec.id)

    # --- parts

    def _smallest(self, level: Isolation) -> str:
        kind = "unikernel" if level is Isolation.UNIKERNEL else "rootfs"
        images: list[Image] = [each for each in self._context.images.list() if each.kind == kind and each.references]
        if not images:
            hint = "bulkhead build --unikernel" if kind == "unikernel" else "bulkhead image bootstrap, or pull"
            raise Refused(f"there is no image that a {level} could be made of", hint=f"{hint}; then --image NAME")
        return min(images, key=lambda each: (each.size, each.references)).references[0]

    def _look(self, instance: Instance, user: str | None, targets: Targets) -> Look:
        """One run of the probe, in the instance. What it says is not believed before it has been checked."""
        bundle = self._context.bundle_dir(instance)
        argv = ("audit", "look", *targets.all()[:ADDRESSES])
        command = Command(argv=argv, user=user, workdir="/", program=find_probe().read_bytes())
        driver = self._context.driver(instance)
        request = driver.exec_request(instance.spec, bundles.require_handle(bundle), command)
        with Session.connect(bundle / "agent.sock") as session:
            try:
                done = session.exec_collect(request, timeout=PROBE_SECONDS, limit=REPORT_LIMIT)
            except TimeoutError as error:
                what = f"the probe in {instance.spec.name} did not end within {PROBE_SECONDS:g} s"
                raise AgentError(what, hint="bulkhead stats tells how busy it is") from error
        return parse(done.stdout, truncated=done.truncated or done.code != 0)

    def _outside(self, instance: Instance) -> tuple[Process | None, Process | None]:
        """The workload's process where it is the host's, and the hypervisor's where there is one."""
        spec = instance.spec
        if spec.inside:
            machine = inside.machine_of(self._context, spec)
            return None, self._see(machine.pid) if machine and machine.pid else None
        if machines.is_machine(spec):
            return None, self._see(instance.pid)
        return self._see(instance.pid), None

    def _see(self, pid: int) -> Process:
        config = self._context.config
        return seen(pid, own=(str(config.state_dir), str(config.run_dir), str(config.cache_dir)))

    def _reference(self, process: Process | None, looks: Mapping[str, Look]) -> dict[str, dict[int, int]]:
        """What the host's kernel answers without a filter; empty where there is none, or it cannot be found out."""
        if process is None or not process.seccomp or not looks:
            return {}
        with suppress(BulkheadError):
            return reference(find_probe(), mask_of(process.bounding))
        log.warning("without a reference, calls that a filter refuses cannot be told from those the kernel lacks")
        return {}

    def _machine_name(self, spec: Spec) -> str:
        machine = inside.machine_of(self._context, spec) if spec.inside else None
        return machine.spec.name if machine else ""

    def _targets(self, instance: Instance) -> Targets:
        """Whose addresses are to be tried, a bounded number of each kind."""
        spec, groups = instance.spec, {"same": set[str](), "others": set[str](), "tenants": set[str]()}
        for other in self._context.state.instances():
            address = other.address
            if not other.pid or address is None or other.spec.id == spec.id:
                continue
            kind = "tenants" if other.spec.tenant != spec.tenant else "others"
            if instance.address and instance.address.network == address.network:
                kind = "same" if kind == "others" else kind
            groups[kind].add(address.ipv4)
        local = inspection.local_addresses()
        some = {kind: frozenset(sorted(found)[: ADDRESSES // 4]) for kind, found in groups.items()}
        return Targets(**some, host=frozenset(local[: ADDRESSES // 4]))


def seen(pid: int, *, own: Sequence[str]) -> Process:
    """A process as the host sees it. `own` are directories with nothing of the host's in them. Raises NotFound."""
    found = inspection.see(pid)
    return Process(
        program=found.program,
        shared=shared_kinds(found.namespaces, inspection.host_namespaces()),
        uid=found.uid,
        root_uid=root_of(found.uid_map),
        effective=tuple(capabilities.names(found.effective)),
        bounding=tuple(capabilities.names(found.bounding)),
        ambient=tuple(capabilities.names(found.ambient)),
        no_new_privs=found.no_new_privs,
        seccomp=found.seccomp,
        filters=found.filters,
        security=found.security,
        host_paths=host_paths(map(_mounted, found.mounts), map(_mounted, inspection.host_mounts()), own),
        open_files=open_files(found.descriptors),
    )


class NoAudits:
    """What a tenant gets in its place: reports name paths of the host's, and addresses of other tenants."""

    def audit(self, instance: Instance, *, progress: Progress) -> AuditReport:  # noqa: ARG002
        """Refused."""
        raise Forbidden(f"an audit of {instance.spec.name} is the operator's", hint="ask for its report")

    def audit_level(self, level: Isolation, *, image: str | None, progress: Progress) -> AuditReport:  # noqa: ARG002
        """Refused."""
        raise Forbidden(f"an audit of {level} is the operator's", hint="ask for its report")


def mask_of(names: Collection[str]) -> int:
    """Capabilities by name as the kernel's mask."""
    return sum(1 << bit for bit in range(64) if capabilities.names(1 << bit)[0] in names)


@lru_cache(maxsize=8)
def reference(probe: Path, mask: int) -> dict[str, dict[int, int]]:
    """What system calls come to on this host's kernel with these capabilities and no filter. Raises HostError."""
    return parse(processes.run([probe, "reference", f"{mask:x}"], timeout=REFERENCE_SECONDS)).calls


def _users(spec: Spec) -> list[tuple[str, str | None]]:
    """As whom the probe runs: the workload's user, and root where that is another."""
    own = spec.user.partition(":")[0] in ("", "0", "root")
    return [("root", ROOT)] if own else [("workload", None), ("root", ROOT)]


def _mounted(entry: MountEntry) -> Mounted:
    return Mounted(
        target=str(entry.target),
        kind=entry.kind,
        device=f"{entry.device[0]}:{entry.device[1]}",
        root=entry.root,
        read_only="ro" in entry.options,
    )
