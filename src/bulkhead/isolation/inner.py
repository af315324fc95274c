"""An instance within a VM: a container's or a chroot's own lists, carried out by an agent in the VM's guest.

On the host an agent supervises it as it does any other, keeps its log and tells of its end. In the guest a supervisor
of its own carries out its start; the two are joined by a port that the VM is given for it (docs/design/0012).
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from bulkhead.agent.ending import quit_or_kill
from bulkhead.agent.frames import ExecRequest, Start, StartFlag
from bulkhead.agent.operations import Code, Operation, read, rmdir, simple, write
from bulkhead.agent.session import SOCKET, Session
from bulkhead.config import Config
from bulkhead.errors import AgentError, BulkheadError, Problem, Unavailable
from bulkhead.host import processes
from bulkhead.host.qmp import Qmp, connect_below
from bulkhead.isolation import ending, guest, nesting, plugging, vmm
from bulkhead.isolation.base import Bundle, Change, Command, Handle, Inside, Probe
from bulkhead.isolation.plugging import Known
from bulkhead.isolation.rooted import Rooted
from bulkhead.isolation.supervised import Outside, common_problems
from bulkhead.isolation.vm import Machine
from bulkhead.model import Isolation, Plan, Spec

ANSWER_SECONDS = 60.0
"""Within which a guest has started a supervisor, also under TCG on a busy host."""
CLEAR_SECONDS = 10.0
"""Within which a guest that lives has ended what an instance's supervisor has left."""
FREEZE_SECONDS = 10.0
PLACE = "inside"
"""In a bundle, while anything of it may be in a VM: the VM's id, how many instances that can hold, the port's name."""
_PAUSE = 0.01


class InnerDriver(Rooted):
    """Runs instances in VMs. `level` makes the lists of what they are within the guest."""

    def __init__(self, config: Config, outside: Outside, *, level: Rooted, machines: Callable[[], Probe]) -> None:
        super().__init__(config, outside)
        self.isolation: Isolation = level.isolation
        self._level = level.within(Path(guest.STAGE))
        self._machines = machines
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def probe(self) -> Probe:
        """Whether there are VMs to run in."""
        return self._machines()

    def not_isolated(self, spec: Spec) -> Sequence[str]:
        """What it shares with its VM, and that with the host."""
        return (*NOT_ISOLATED, *self._machines().not_isolated)

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that an instance within a VM cannot do."""
        chroot = self.isolation is Isolation.CHROOT
        problems = self._level.check(spec) if chroot else common_problems(spec)
        for item in spec.mounts:
            what = f"{item.source}: an instance within a VM has no volumes and no directories of the host's"
            problems.append(Problem(what, "its own disk is kept until it is removed; bulkhead cp copies files"))
        if spec.network == "host" and not chroot:
            what = "an instance within a VM has a place of its own on the VM's network, or none"
            problems.append(Problem(what, "leave --network out, or use none"))
        if spec.plan.bandwidth is not None and not chroot:
            problems.append(Problem("bandwidth is that of the VM: it has one link", "give the VM a --bandwidth"))
        if spec.plan.swap:
            problems.append(Problem("a VM has no swap that an instance within it could have", "leave --swap out"))
        if spec.init != "none" and not chroot:
            problems.append(
                Problem("a system within a VM is the VM's own", "bulkhead run --isolation vm --init system")
            )
        return problems

    # --- requests

    def start_request(self, bundle: Bundle) -> Machine:
        """The whole of a start as data: the place on the host, and the start in the guest."""
        return self._request(bundle, self._level.start_request(bundle))

    def hold_request(self, bundle: Bundle) -> Machine:
        """The same with nothing that runs: for its files."""
        return self._request(bundle, self._level.hold_request(bundle))

    def command_request(self, spec: Spec, join: Sequence[str], command: Command) -> ExecRequest:
        """A command beside the workload, in the guest."""
        return self._level.command_request(spec, join, command)

    def explain(self, bundle: Bundle) -> str:
        """The operations of a start in the guest, in words. The numbers of spare disks are examples."""
        inside = require_inside(bundle)
        layers = tuple(plugging.device(inside, inside.inner + number) for number in range(len(inside.layers)))
        placed = nesting.placed(bundle, plugging.Plugged(plugging.device(inside, 0), layers))
        made = nesting.within(self._level.start_request(placed), placed)
        return self._level.explain_request(made)

    def _request(self, bundle: Bundle, level: Start) -> Machine:
        return Machine(
            flags=StartFlag.GUEST | StartFlag.HOLD,
            inside=(),
            log_size=self._config.log_size,
            log_files=self._config.log_files,
            guest=nesting.within(level, bundle),
        )

    # --- the driver's verbs

    def start(self, bundle: Bundle, *, on_launch: Callable[[Path], None] | None = None) -> Handle:
        """Run the workload in its VM, which runs. Raises AgentError, Unavailable, Conflict; leaves nothing then."""
        with self._placed(bundle) as placed:
            return self._launch(placed, self.start_request(placed), on_launch)

    def hold(self, bundle: Bundle) -> Handle:
        """Make its root in its VM without running its program; `stop` ends it."""
        with self._placed(bundle) as placed:
            return self._launch(placed, self.hold_request(placed), None)

    def begin(
        self, session: Session, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None
    ) -> tuple[int, dict[str, str]]:
        """A process that stands for the VM, the guest's supervisor to its answer, then the workload.

        The pid is that of the process on the host.
        """
        assert isinstance(request, Machine) and request.guest
        began = time.monotonic()
        pid, _ = super().begin(session, bundle, request, on_launch)
        session.guest(f"{vmm.DIRECTORY}/{vmm.AGENT}", timeout=ANSWER_SECONDS)
        answered = time.monotonic() - began
        inner = session.guest_start(request.guest)
        told = {"machine": require_inside(bundle).machine, "guest_pid": str(inner), "disk": str(bundle.disk)}
        return pid, {**told, "answer_seconds": f"{answered:.4f}"}

    def end(self, session: Session, number: int, timeout: float) -> None:
        """Signal the workload, after `timeout` seconds kill it; where the guest does not answer it is given up."""
        ending.end(session, number, timeout)

    def stop(self, bundle: Path, handle: Handle, *, signal: str, timeout: float) -> None:
        """Ask the workload to end, after `timeout` seconds end it by force."""
        with suppress(AgentError):
            super().stop(bundle, handle, signal=signal, timeout=timeout)
        if processes.start_time(handle.supervisor_pid) == handle.supervisor_started:
            self.delete(bundle, handle.data["id"])

    def delete(self, bundle: Path, instance_id: str) -> None:
        """Leave nothing of a run on the host or in the VM, also after a crash in the middle of a start."""
        quit_or_kill(bundle)
        place = read_place(bundle)
        if place:
            machine, inner, port = place
            with self._lock(machine):
                self._clear(bundle, instance_id, machine, inner, port)
                (bundle / PLACE).unlink(missing_ok=True)
        (bundle / SOCKET).unlink(missing_ok=True)
        shutil.rmtree(bundle / vmm.DIRECTORY, ignore_errors=True)

    def pause(self, bundle: Path, handle: Handle) -> None:
        """Freeze every process of it; returns when they are."""
        self._freeze(bundle, handle, frozen=True)

    def resume(self, bundle: Path, handle: Handle) -> None:
        """Let them go on. Idempotent."""
        with suppress(AgentError, Unavailable):  # it has ended, or does not answer: then it goes on with its guest
            self._freeze(bundle, handle, frozen=False)

    def measure(self, bundle: Path, operations: Sequence[Operation]) -> list[str]:
        """What these operations report, carried out in the guest."""
        with Session.connect(bundle / SOCKET) as session:
            return session.guest_run(self._own(bundle, operations), timeout=ending.ANSWER_SECONDS)

    def flush(self, bundle: Path, handle: Handle) -> None:
        """Let the guest write what it keeps in memory to its disks."""
        self.measure(bundle, [simple(Code.SYNC)])

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """Write the new plan's limits in the guest; a disk's file has its new size already."""
        machine, instance_id = bundle.parent / handle.data["machine"], handle.data["id"]
        with (
            self._lock(machine.name),
            Session.connect(bundle / SOCKET) as session,
            Qmp.open(machine / vmm.DIRECTORY, vmm.QMP) as monitor,
        ):

            def enforce(old: Plan, new: Plan) -> None:
                session.guest_run(self._own(bundle, change.host(old, new)))
                plugging.limit(monitor, instance_id, new)

            try:
                enforce(change.old, change.new)
            except BulkheadError:
                enforce(change.new, change.old)
                raise
            if change.new.disk != change.old.disk:
                plugging.resize_disk(monitor, instance_id, change.new.disk)
                session.guest_run([simple(Code.GROW, handle.data["disk"], change.new.disk)])

    # --- parts

    @contextmanager
    def _placed(self, bundle: Bundle) -> Iterator[Bundle]:
        """The bundle with its disks and its port in the VM; with an error nothing of it stays there."""
        inside, instance_id = require_inside(bundle), bundle.spec.id
        port = f"{plugging.PORT}{instance_id[:8]}-{secrets.token_hex(4)}"
        with ExitStack() as undo:
            undo.callback(self.delete, bundle.directory, instance_id)
            with self._lock(inside.machine):
                write_place(bundle.directory, inside, port)
                (bundle.directory / vmm.DIRECTORY).mkdir(mode=0o700, exist_ok=True)
                with Qmp.open(inside.directory / vmm.DIRECTORY, vmm.QMP) as monitor:
                    plugging.sweep(monitor, inside.inner, self._known(bundle.directory, inside.machine))
                    plugged = plugging.plug(monitor, inside, instance_id, bundle.spec.plan)
                    plugging.open_port(monitor, bundle.directory / vmm.DIRECTORY / vmm.AGENT, port)
            with Session.connect(inside.directory / SOCKET) as session:
                session.guest_run([simple(Code.SERVE, port)])
            own = nesting.moved_limits(bundle.limits, group_of(instance_id), group_of(instance_id, port))
            yield nesting.placed(replace(bundle, limits=own), plugged)
            undo.pop_all()

    def _clear(self, bundle: Path, instance_id: str, machine: str, inner: int, port: str) -> None:
        """Of a VM that runs: what may be left in the guest, then the disks and the port. Else there is nothing."""
        directory = bundle.parent / machine
        try:
            with Session.connect(directory / SOCKET) as session:
                session.guest_run(_remains(group_of(instance_id, port)), timeout=CLEAR_SECONDS)
        except (AgentError, Unavailable):
            pass  # it has ended, or does not answer: then its disks are taken from it
        known = {each for each in self._known(bundle, machine) if each.id != instance_id}
        with (
            suppress(BulkheadError),  # the same; what a hypervisor that hangs keeps, the next start takes away
            Qmp(connect_below(directory / vmm.DIRECTORY, vmm.QMP), name=f"QEMU of {machine[:12]}") as monitor,
        ):
            plugging.sweep(monitor, inner, known)

    def _known(self, bundle: Path, machine: str) -> set[Known]:
        """Everybody who has, or may have, something in a VM."""
        found = set()
        for directory in bundle.parent.iterdir():
            place = read_place(directory)
            if place and place[0] == machine:
                found.add(Known(directory.name, place[2], _layers(directory)))
        return found

    def _freeze(self, bundle: Path, handle: Handle, *, frozen: bool) -> None:
        group = group_of(handle.data["id"])
        freeze, events = self._own(
            bundle,
            [write(f"{group}/cgroup.freeze", str(int(frozen))), read(f"{group}/cgroup.events", optional=False)],
        )
        with Session.connect(bundle / SOCKET) as session:
            session.guest_run([freeze], timeout=ending.ANSWER_SECONDS)
            deadline = time.monotonic() + FREEZE_SECONDS
            while f"frozen {int(frozen)}" not in session.guest_run([events])[0].splitlines():
                if time.monotonic() > deadline:
                    raise AgentError(f"instance {handle.data['id'][:12]} is not frozen after {FREEZE_SECONDS:g} s")
                time.sleep(_PAUSE)

    def _own(self, bundle: Path, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        """Operations on an instance's cgroup, on that of the run which is under way."""
        place = read_place(bundle)
        return nesting.moved(operations, group_of(bundle.name), group_of(bundle.name, place[2] if place else ""))

    def _lock(self, machine: str) -> threading.Lock:
        """Of those who change what a VM has."""
        with self._guard:
            return self._locks.setdefault(machine, threading.Lock())


NOT_ISOLATED = (
    "its VM's kernel: a flaw in a system call that the seccomp profile allows concerns the VM and all within it",
    "its VM's memory and processors, as /proc shows them; the plan's limits hold",
    "whoever is root in its VM's guest: that is its VM's own workload",
)


def require_inside(bundle: Bundle) -> Inside:
    """The bundle's `inside`, which every instance within a VM has."""
    if bundle.inside is None:
        raise ValueError(f"{bundle.spec.name} is in no VM")
    return bundle.inside


def group_of(instance_id: str, port: str = "") -> str:
    """Its cgroup in the guest: that of the run with this port, or as the limits' lists have it."""
    nonce = port.rpartition("-")[2]
    return f"{GROUPS}/{instance_id}-{nonce}" if nonce else f"{GROUPS}/{instance_id}"


GROUPS = "/sys/fs/cgroup/bulkhead"


def write_place(bundle: Path, inside: Inside, port: str) -> None:
    """Before anything is in the VM: where to look for it."""
    (bundle / PLACE).write_text(f"{inside.machine} {inside.inner} {port}\n")


def read_place(bundle: Path) -> tuple[str, int, str] | None:
    """The VM's id, how many instances it can hold, the port's name; None where nothing is in any VM."""
    try:
        words = (bundle / PLACE).read_text().split()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (words[0], int(words[1]), words[2]) if len(words) == 3 else None


def _layers(bundle: Path) -> tuple[str, ...]:
    """Digests of an instance's layers; none of one that is just being removed."""
    with suppress(FileNotFoundError):
        return tuple((bundle / "layers").read_text().split())
    return ()


def _remains(group: str) -> list[Operation]:
    """End what a supervisor that was cut off may have left, and write back what it has written."""
    return [
        simple(Code.KILLALL, f"{group}/cgroup.kill", optional=True),
        rmdir(group, optional=True),
        simple(Code.SYNC),
    ]
