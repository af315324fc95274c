"""The virtual machine: a kernel of its own on a jailed QEMU.

On the host an agent supervises QEMU as it would any workload; in the guest another is PID 1 and starts the instance's
program. The first joins the two, so that everything after the start is as with a container.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bulkhead.agent.frames import ExecRequest, Start, StartFlag
from bulkhead.agent.launch import NETNS_NEW, NETNS_PATH
from bulkhead.agent.operations import Code, describe, simple
from bulkhead.agent.session import SOCKET, Session
from bulkhead.config import Config
from bulkhead.errors import AgentError, Problem, Refused, Unavailable
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp
from bulkhead.isolation import (
    departing,
    ending,
    expecting,
    guest,
    inits,
    jail,
    parking,
    resizing,
    saving,
    shapes,
    vmm,
    warming,
)
from bulkhead.isolation.base import Bundle, Change, Command, Handle, Probe, Room
from bulkhead.isolation.console import last_words
from bulkhead.isolation.migrating import OTHER_VERSION, Migrating, machine_of
from bulkhead.isolation.rooted import Rooted
from bulkhead.isolation.supervised import Outside, common_problems
from bulkhead.model import UID_RANGE, Isolation, Spec
from bulkhead.moves import Blueprint
from bulkhead.quantities import format_size

log = logging.getLogger(__name__)
NOT_ISOLATED = (
    "the processor's caches and the memory bus: timing can be observed by neighbours",
    "QEMU's devices: a flaw in one leads into QEMU's jail, which has no file, process or network of the host's",
)
MIN_MEMORY = 32 << 20
"""Bytes without which no kernel is up to it. What the one that is booted needs is the engine's to know."""
FLUSH_SECONDS = 60.0
"""Within which a guest has written out what it keeps in memory."""
BOOT_SECONDS = 60.0
"""Within which a guest's agent answers, also under TCG on a busy host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Start):
    """The start of a hypervisor, with what the guest's agent is then asked to start."""

    guest: Start | None
    """None: nothing, it becomes a template."""


class VmDriver(Migrating, Rooted):
    """Runs instances in virtual machines under an agent each. `ability` finds out whether QEMU works here."""

    isolation = Isolation.VM
    node, agent = vmm.disk_node(0), True

    def __init__(self, config: Config, outside: Outside, *, ability: Callable[[], Probe]) -> None:
        super().__init__(config, outside)
        self._ability = ability

    def probe(self) -> Probe:
        """Whether VMs work here, and with what."""
        return replace(self._ability(), not_isolated=NOT_ISOLATED)

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that a VM cannot do for `spec`."""
        problems = common_problems(spec) + inits.problems(spec)
        ability = self._ability()
        if not ability.works:
            problems.append(Problem(f"virtual machines do not work here: {ability.reason}", ability.hint))
        problems += [
            Problem(
                f"{item.source}: a directory of the host's cannot be mounted in a VM", "use a volume, or bulkhead cp"
            )
            for item in spec.mounts
            if item.kind == "bind"
        ]
        if spec.plan.memory < MIN_MEMORY:
            what = f"memory {format_size(spec.plan.memory)} is too little for a kernel of its own"
            problems.append(Problem(what, f"at least --memory {format_size(MIN_MEMORY)}"))
        if spec.network == "host":
            problems.append(Problem("a VM cannot have the host's network", "leave --network out, or use none"))
        if len(spec.mounts) > vmm.MAX_DISKS - 2:
            problems.append(Problem(f"{len(spec.mounts)} volumes are more than a VM takes", "use fewer volumes"))
        return problems

    def create(self, bundle: Bundle) -> None:
        """Nothing: what a VM needs is made at each start."""

    def start(self, bundle: Bundle, *, on_launch: Callable[[Path], None] | None = None) -> Handle:
        """Run the workload, in a guest that is warm where there is one, or go on with a saved one.

        Raises AgentError; Refused where another machine was saved.
        """
        if vmm.require_boot(bundle).warm:
            return self._take_over(bundle, on_launch)
        return super().start(parking.fitted(bundle), on_launch=on_launch)

    def start_request(self, bundle: Bundle) -> Start:
        """The whole of a VM as data: the jail with QEMU, and the start within the guest."""
        if bundle.spec.only_for:
            return self._machine(bundle, guest.idle_request(bundle, guest.Moment.present()))
        limits = vmm.require_boot(bundle).guest_limits
        return self._machine(bundle, guest.start_request(bundle, limits, guest.Moment.present()))

    def hold_request(self, bundle: Bundle) -> Start:
        """A VM in which nothing runs: for its files."""
        return self._machine(bundle, guest.hold_request(bundle, guest.Moment.present()))

    def explain(self, bundle: Bundle) -> str:
        """The operations of a start in words: the hypervisor's, then the guest's."""
        request = guest.start_request(bundle, vmm.require_boot(bundle).guest_limits, guest.Moment.present())
        phases = (
            ("in the guest: before, by its agent", request.prepare),
            ("in the guest: in a private mount namespace", request.stage),
            ("in the guest: in the instance's own namespaces", request.inside),
        )
        return "\n\n".join(
            [super().explain(bundle), *(f"# {title}\n{describe(operations)}" for title, operations in phases)]
        )

    def command_request(self, spec: Spec, join: Sequence[str], command: Command) -> ExecRequest:
        """A command beside the workload, in the guest."""
        return guest.command_request(spec, tuple(join), command)

    def stop(self, bundle: Path, handle: Handle, *, signal: str, timeout: float) -> None:
        """Ask the workload to end, after `timeout` seconds end it by force; a guest that does not answer as well."""
        with suppress(AgentError):
            super().stop(bundle, handle, signal=signal, timeout=timeout)
        if processes.start_time(handle.supervisor_pid) == handle.supervisor_started:
            self.delete(bundle, handle.data["id"])

    def end(self, session: Session, number: int, timeout: float) -> None:
        """Signal the workload, after `timeout` seconds kill it; a guest that does not answer is switched off."""
        ending.end(session, number, timeout)

    def resume(self, bundle: Path, handle: Handle) -> None:
        """Let it go on, with the time that it is now: its clock has stood still with its hypervisor."""
        super().resume(bundle, handle)
        try:
            with Session.connect(bundle / SOCKET) as session:
                session.guest_run([guest.clock(time.time_ns())], timeout=ending.ANSWER_SECONDS)
        except (AgentError, Unavailable) as error:  # it hangs, or ends just now: it goes on all the same
            log.warning("the clock of %s could not be set: %s", handle.data["id"][:12], error)

    def delete(self, bundle: Path, instance_id: str) -> None:
        """Leave nothing of a run, also after a crash in the middle of a start."""
        super().delete(bundle, instance_id)
        shutil.rmtree(bundle / vmm.DIRECTORY, ignore_errors=True)

    def flush(self, bundle: Path, handle: Handle) -> None:
        """Let the guest write what it keeps in memory to its disks."""
        with Session.connect(bundle / SOCKET) as session:
            session.guest_run([simple(Code.SYNC)], timeout=FLUSH_SECONDS)

    def begin(
        self, session: Session, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None
    ) -> tuple[int, dict[str, str]]:
        """QEMU in its jail, the guest to its agent's answer, then the workload. The pid is QEMU's on the host."""
        assert isinstance(request, Machine)
        began = time.monotonic()
        jail.open_sockets(bundle, vmm.QMP, vmm.AGENT, departing.DISK_SOCKET)
        pid, _ = super().begin(session, bundle, request, on_launch)
        boot = vmm.require_boot(bundle)
        with Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
            if boot.incoming:
                expecting.open_door(monitor, vmm.disk_node(0))
                jail.seal_sockets(bundle)
                return pid, _told(bundle, time.monotonic() - began)
            if boot.resumed:
                parking.load(monitor, boot.resumed)
            elif boot.saved:
                saving.load(monitor, boot.saved.state)
            jail.seal_sockets(bundle)
            monitor.execute("cont")
        try:
            session.guest(f"{vmm.DIRECTORY}/{vmm.AGENT}", timeout=BOOT_SECONDS)
        except (AgentError, Unavailable) as error:
            said = last_words(bundle.directory / "vmm.log")
            hint = f"its console ended in: {said}" if said else error.hint
            raise AgentError(f"the virtual machine did not boot: {error.what}", hint=hint) from error
        answered = time.monotonic() - began
        if boot.resumed:
            parking.resume(session, bundle, guest.Moment.present())
        elif request.guest:
            session.guest_start(request.guest)
        return pid, _told(bundle, answered)

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """Change the machine with the limits around it and in it; a disk's file has its new size already."""
        began, most = resizing.extent(handle)
        resizing.check(began, most, change.old, change.new)
        with Session.connect(bundle / SOCKET) as session, Qmp.open(bundle / vmm.DIRECTORY, vmm.QMP) as monitor:
            machine = resizing.Machine(monitor, session, began)
            resizing.resize(machine, change)
            if change.new.disk != change.old.disk:
                machine.grow_disk(handle.pid, change.new.disk)

    def save(self, bundle: Path, handle: Handle, state: Path) -> None:
        """Stop it where it is and write its memory and devices to the new file `state`; see `parking`."""
        parking.save(bundle, handle, state)

    def resume_saved(self, bundle: Path, handle: Handle) -> None:
        """Let an instance that `save` has stopped go on; also after a crash in the middle of it. Idempotent."""
        parking.resume_saved(bundle)

    def describe(self, bundle: Path, handle: Handle) -> Blueprint:
        """What another host has to make. Raises Refused where this one cannot go while it runs."""
        if "shape" not in handle.data:
            raise Refused(OTHER_VERSION, hint="move it with --stop")
        if resizing.was_resized(handle):
            what = "its memory or processors were changed while it ran, and QEMU 7.2 cannot send such a machine"
            raise Refused(what, hint="move it with --stop")
        shape = shapes.decode(handle.data["shape"])
        return machine_of(
            bundle,
            accelerator=shape.accelerator,
            hypervisor=shape.hypervisor,
            cpu_model=shape.cpu_model,
            kernel=handle.data.get("kernel", ""),
            shape=handle.data["shape"],
        )

    def expect(self, bundle: Bundle, machine: Blueprint) -> Handle:
        """The very same machine, which waits. Raises AgentError, HostError; Refused where it cannot be the same."""
        shape, boot = shapes.decode(machine.shape), vmm.require_boot(bundle)
        room = Room(shape.most_memory, shape.most_vcpus)
        boot = replace(boot, slots=shape.disks, room=room, saved=None, warm=None, incoming=True)
        bundle = replace(bundle, boot=boot)
        if found := shapes.problems(shape, bundle):
            raise Refused(found)
        return self._launch(bundle, self._machine(bundle, None), None)

    def inherited(self, bundle: Bundle) -> tuple[int, ...]:
        """The memory of the template to start from, or foreign disks."""
        boot = vmm.require_boot(bundle)
        return (*((boot.saved.ram,) if boot.saved else ()), *(disk.fd for disk in boot.attached))

    def make_template(self, bundle: Bundle, state: Path) -> None:
        """Boot a guest without an instance to its ready point; leave its memory in `boot.ram`, its devices in `state`.

        Nothing of it runs afterwards. Raises AgentError, HostError.
        """
        identifier, directory = bundle.spec.id, bundle.directory
        with ExitStack() as always:
            always.callback(self.delete, directory, identifier)
            self._launch(bundle, self._machine(bundle, None), None)
            with Qmp.open(directory / vmm.DIRECTORY, vmm.QMP) as monitor:
                saving.save(monitor, state)

    def warm(self, bundle: Bundle) -> Handle:
        """A guest without an instance that has rehearsed a start, and waits for one. Raises AgentError, HostError."""
        handle = self._launch(bundle, self._machine(bundle, None), None)
        with ExitStack() as undo:
            undo.callback(self.delete, bundle.directory, bundle.spec.id)
            with Session.connect(bundle.directory / SOCKET) as session:
                warming.rehearse(session, bundle)
            undo.pop_all()
        return handle

    def _take_over(self, bundle: Bundle, on_launch: Callable[[Path], None] | None) -> Handle:
        """Start the workload in the guest that is warm for it."""
        boot = vmm.require_boot(bundle)
        if boot.warm is None:
            raise ValueError(f"no guest is warm for {bundle.spec.name}")
        request = guest.start_request(bundle, boot.guest_limits, guest.Moment.present())
        with ExitStack() as undo:
            undo.callback(self.delete, bundle.directory, bundle.spec.id)
            with Session.connect(bundle.directory / SOCKET) as session:
                if on_launch:
                    on_launch(bundle.directory / SOCKET)
                session.run(bundle.limits.prepare)
                with Qmp.open(bundle.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
                    warming.give_disks(monitor, bundle)
                try:
                    session.guest_start(request)
                except ValueError as error:
                    raise Refused(f"the command or its environment is too large: {error}") from error
            undo.pop_all()
        return replace(boot.warm, data={**boot.warm.data, "join": "\n".join(boot.guest_limits.join)})

    def _machine(self, bundle: Bundle, inside: Start | None) -> Machine:
        base, limits, boot = jail.uid_start(bundle), bundle.limits, vmm.require_boot(bundle)
        written = [drive.source for drive in vmm.drives(bundle) if not drive.read_only]
        sizes = [
            *map(_size, [*written, *([boot.ram] if boot.ram else [])]),
            boot.largest,
            *(disk.largest for disk in boot.attached),
        ]
        foreign = [vmm.foreign_fd(bundle, number) for number in range(len(boot.attached))]
        ram_fd = vmm.ram_fd(bundle) if boot.saved else None
        return Machine(
            flags=StartFlag.GUEST,
            clone_flags=jail.CLONED,
            unshare_flags=jail.UNSHARED,
            id_base=base,
            id_count=UID_RANGE,
            log_size=self._config.log_size,
            log_files=self._config.log_files,
            netns=NETNS_PATH if bundle.netns_fd is not None else NETNS_NEW,
            join=tuple(limits.join),
            kill=limits.kill,
            prepare=tuple(limits.prepare),
            stage=tuple(jail.stage(bundle, self._stage)),
            inside=tuple(
                jail.inside(vmm.command_line(bundle), largest=max(sizes, default=0), ram_fd=ram_fd, inherit=foreign)
            ),
            finish=tuple(limits.finish),
            guest=inside,
        )


def _told(bundle: Bundle, answered: float) -> dict[str, str]:
    """What the handle of a machine keeps. `answered`: seconds."""
    boot = vmm.require_boot(bundle)
    told = {"join": "\n".join(boot.guest_limits.beside), "answer_seconds": f"{answered:.4f}"}
    shape = shapes.shape_of(bundle).encode()
    return {**told, "kernel": boot.kernel_digest, "shape": shape, **resizing.remember(bundle)}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
