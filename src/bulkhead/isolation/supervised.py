"""What the levels that one agent on this host supervises have in common: the chroot and the container."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bulkhead.agent.ending import quit_or_kill, unstick
from bulkhead.agent.frames import ExecFlag, ExecRequest, Start, StartFlag
from bulkhead.agent.launch import find_agent, launch
from bulkhead.agent.operations import describe
from bulkhead.agent.session import SOCKET, Session
from bulkhead.config import Config
from bulkhead.errors import AgentError, Problem, Refused, Unavailable
from bulkhead.host import processes
from bulkhead.isolation import hardening, probing, root
from bulkhead.isolation.base import Bundle, Change, Command, Handle, Inspection, Probe
from bulkhead.model import Exit, Isolation, Spec
from bulkhead.quantities import parse_signal

EXIT_FILE = "exit.json"
MAX_EXIT_FILE = 1 << 20
LOST_CODE = 255
KILL_SECONDS = 15.0
"""After which KILL has ended everything, or never will (a process in uninterruptible sleep)."""
ARCHITECTURES = ("amd64", "386", "i386")


def _no_freezer(instance_id: str, frozen: bool) -> None:
    """Where there are no cgroups: nothing can be frozen, so nothing is to be thawed."""
    if frozen:
        raise AgentError(f"instance {instance_id[:12]} cannot be frozen: it has no cgroups")


@dataclass(frozen=True, slots=True)
class Outside:
    """What a driver needs of the parts beside it, handed in by the engine."""

    remove_cgroups: Callable[[str], None]
    """Kill every process in an instance's cgroups and remove them; by instance id, idempotent."""
    was_oom: Callable[[Sequence[str]], bool]
    """Whether the reports of a limit program's finish list tell of an out-of-memory kill."""
    freeze: Callable[[str, bool], None] = _no_freezer
    """Stop every process in an instance's cgroups where it is (True), or let them go on; by instance id.

    Letting go on is idempotent, and fine where nothing is left.
    """


class ExitFile(BaseModel):
    """exit.json, as the agent writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: int = Field(ge=0, le=255)
    signal: int = Field(ge=0, le=127)
    started: float
    ended: float
    error: str = Field(default="", max_length=1000)
    """Of a guest: why its workload's end was not seen."""
    reports: tuple[str, ...]


class Supervised:
    """The life of an instance under an agent. Levels add what to ask the agent for."""

    isolation: Isolation

    def __init__(self, config: Config, outside: Outside) -> None:
        self._config = config
        self._outside = outside
        self._stage = config.run_dir / "stage"
        """An empty directory: each start covers it in a mount namespace of its own."""
        self.hard_limits: Mapping[int, int] = hardening.host_rlimits()
        self._probe: Probe | None = None
        self._probing = threading.Lock()

    def check(self, spec: Spec) -> list[Problem]:
        """Everything that the level cannot do for `spec`."""
        return common_problems(spec)

    def not_isolated(self, spec: Spec) -> Sequence[str]:
        """What the level shares with the host, whatever the spec."""
        return self.probe().not_isolated

    def probe(self) -> Probe:
        """Find out whether the level works here, by starting an instance of it."""
        raise NotImplementedError

    def start_request(self, bundle: Bundle) -> Start:
        """What the agent is asked to start; no side effects."""
        raise NotImplementedError

    def explain(self, bundle: Bundle) -> str:
        """The operations of a start in words, by phase."""
        return self.explain_request(self.start_request(bundle))

    def explain_request(self, request: Start) -> str:
        """The operations of a request in words, by phase."""
        phases = (
            ("before, by the supervisor", request.prepare),
            ("in a private mount namespace", request.stage),
            ("in the instance's own namespaces", request.inside),
            ("after the last process has ended", request.finish),
        )
        return "\n\n".join(f"# {title}\n{describe(operations)}" for title, operations in phases)

    # --- the driver's verbs

    def probed(self, not_isolated: tuple[str, ...]) -> Probe:
        """What `probing` found out, once in this object's life."""
        with self._probing:
            if self._probe is None:
                self._probe = probing.probe(self, self._config, not_isolated)
            return self._probe

    def create(self, bundle: Bundle) -> None:
        """Nothing: all that these levels need is made at each start."""

    def start(self, bundle: Bundle, *, on_launch: Callable[[Path], None] | None = None) -> Handle:
        """Run the workload; returns when it has been executed. Raises AgentError; leaves nothing then."""
        return self._launch(bundle, self.start_request(bundle), on_launch)

    def exec_request(self, spec: Spec, handle: Handle, command: Command) -> ExecRequest:
        """The EXEC for a command beside the workload."""
        raise NotImplementedError

    def inspect(self, bundle: Path, handle: Handle) -> Inspection:
        """Whether it runs; how it ended. Neither, where its supervisor was killed."""
        ended = self._read_exit(bundle)
        if ended is None and processes.start_time(handle.supervisor_pid) == handle.supervisor_started:
            return Inspection(running=True, pid=handle.pid)
        return Inspection(running=False, exit=ended or self._read_exit(bundle))

    def stop(self, bundle: Path, handle: Handle, *, signal: str, timeout: float) -> None:
        """Send `signal` (a name), after `timeout` seconds KILL to all; returns when nothing is left."""
        number = parse_signal(signal)
        unstick(handle.supervisor_pid, handle.supervisor_started)
        self._outside.freeze(handle.data["id"], False)  # v1: what is frozen does not even die
        try:
            with Session.connect(bundle / SOCKET) as session:
                self.end(session, number, timeout)
        except Unavailable:
            # The supervisor was killed, or has just ended with its workload; or it was stopped meanwhile.
            unstick(handle.supervisor_pid, handle.supervisor_started)
        if not processes.wait_gone(handle.supervisor_pid, handle.supervisor_started, timeout=KILL_SECONDS):
            raise AgentError(
                f"the supervisor {handle.supervisor_pid} did not end within {KILL_SECONDS:g} s of KILL",
                hint="a process that waits for a disk or a network file system can hold it; see dmesg",
            )
        self._outside.remove_cgroups(handle.data["id"])

    def delete(self, bundle: Path, instance_id: str) -> None:
        """Leave nothing of a run, also after a crash in the middle of a start."""
        self._outside.freeze(instance_id, False)
        quit_or_kill(bundle)
        self._outside.remove_cgroups(instance_id)
        (bundle / SOCKET).unlink(missing_ok=True)

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """Write the new plan's limits; the old ones again where that fails."""
        with Session.connect(bundle / SOCKET) as session:
            try:
                session.run(change.host(change.old, change.new))
            except AgentError:
                session.run(change.host(change.new, change.old))
                raise

    def pause(self, bundle: Path, handle: Handle) -> None:
        """Freeze every process of the instance; returns when they are."""
        self._outside.freeze(handle.data["id"], True)

    def resume(self, bundle: Path, handle: Handle) -> None:
        """Let them go on. Idempotent."""
        self._outside.freeze(handle.data["id"], False)

    # --- parts

    def begin(
        self, session: Session, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None
    ) -> tuple[int, dict[str, str]]:
        """Ask a new supervisor for the workload: its host pid, and what the handle is to hold besides.

        A level with more to it adds to this.
        """
        if on_launch:
            on_launch(bundle.directory / SOCKET)
        return session.start(request), {}

    def end(self, session: Session, number: int, timeout: float) -> None:
        """Signal the workload, after `timeout` seconds kill it; returns when it has ended.

        Raises AgentError when it has not, Unavailable when the supervisor is gone.
        """
        watched = session.watch()
        # A signal is refused when the workload has just ended by itself: the watch tells of that.
        with suppress(AgentError):
            session.signal(number)
        if session.ended(watched, timeout=timeout) is None:
            with suppress(AgentError):
                session.signal(signal.SIGKILL, everyone=True)
            if session.ended(watched, timeout=KILL_SECONDS) is None:
                raise AgentError(f"the workload did not end within {KILL_SECONDS:g} s of KILL")

    def inherited(self, bundle: Bundle) -> Sequence[int]:
        """Descriptors that the supervisor gets, for its workload to keep."""
        return ()

    def _launch(self, bundle: Bundle, request: Start, on_launch: Callable[[Path], None] | None) -> Handle:
        directory, instance_id = bundle.directory, bundle.spec.id
        (directory / EXIT_FILE).unlink(missing_ok=True)
        self._stage.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            inherit = self.inherited(bundle)
            supervisor = launch(find_agent(), directory, netns_fd=bundle.netns_fd, inherit=inherit)
            started = processes.start_time(supervisor)
            undo.callback(processes.kill, supervisor, started)
            undo.callback(self.delete, directory, instance_id)
            if started is None:
                raise AgentError(f"the supervisor {supervisor} ended at once", hint="bulkhead doctor checks the agent")
            with Session.connect(directory / SOCKET) as session:
                try:
                    pid, more = self.begin(session, bundle, request, on_launch)
                except ValueError as error:
                    raise Refused(f"the command or its environment is too large: {error}") from error
            undo.pop_all()
        data = {"id": instance_id, "join": "\n".join(bundle.limits.beside), **more}
        return Handle(supervisor_pid=supervisor, supervisor_started=started, pid=pid, data=data)

    def _read_exit(self, bundle: Path) -> Exit | None:
        try:
            found = _read_exit_file(bundle)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            return Exit(code=LOST_CODE, error=f"{bundle / EXIT_FILE} is damaged: {error.errors()[0]['msg']}")
        return Exit(
            code=128 + found.signal if found.signal else found.code,
            signal=found.signal,
            oom=self._outside.was_oom(found.reports),
            error=found.error,
            started=found.started,
            ended=found.ended,
        )


def _read_exit_file(bundle: Path) -> ExitFile:
    """Raises FileNotFoundError, ValidationError."""
    with (bundle / EXIT_FILE).open("rb") as file:
        return ExitFile.model_validate_json(file.read(MAX_EXIT_FILE))


def read_exit_file(bundle: Path) -> ExitFile | None:
    """What a supervisor has written down of its workload's end; None where it has not, or it cannot be read."""
    try:
        return _read_exit_file(bundle)
    except (FileNotFoundError, ValidationError):
        return None


def start_flags(spec: Spec) -> StartFlag:
    """Flags of a workload."""
    return (StartFlag.TERMINAL if spec.tty else StartFlag.NONE) | (StartFlag.STDIN if spec.stdin else StartFlag.NONE)


def exec_flags(command: Command) -> ExecFlag:
    """Flags of a command."""
    return (ExecFlag.TERMINAL if command.tty else ExecFlag.NONE) | (ExecFlag.STDIN if command.stdin else ExecFlag.NONE)


def common_problems(spec: Spec) -> list[Problem]:
    """What neither level can do."""
    problems = root.volume_problems(spec)
    if spec.architecture not in ARCHITECTURES:
        problems.append(
            Problem(
                f"the image is for {spec.architecture}, this host runs {' and '.join(ARCHITECTURES[:2])}",
                "use an image for this host's processor",
            )
        )
    return problems
