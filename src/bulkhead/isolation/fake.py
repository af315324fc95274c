"""A driver for tests: everything the contract asks for, without a wall, a process or privileges.

It can be told to fail at a step, to take its time, and to find faults with a spec; its workloads are the few
programs of `fake_agent.parse`. What the engine does over it is what it does over the real drivers: the same
bundle, the same socket, the same `exit.json`.
"""

from __future__ import annotations

import json
import signal as signals
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.agent.frames import ExecRequest
from bulkhead.agent.operations import Code, describe, simple
from bulkhead.agent.session import SOCKET, Session
from bulkhead.errors import CommandNotExecutable, CommandNotFound, Problem, Unavailable
from bulkhead.isolation.base import Bundle, Change, Command, Handle, Inspection, Probe
from bulkhead.isolation.fake_agent import OOM_REPORT, FakeAgent, Program, parse
from bulkhead.model import Exit, Isolation, Spec

STEPS = (
    "probe",
    "check",
    "create",
    "start",
    "launched",
    "exec",
    "inspect",
    "stop",
    "delete",
    "resize",
    "pause",
    "flush",
)
"""Where `failures` and `delays` can be put; `launched` is after `on_launch`, before the program runs."""
RECORD = "fake.json"
_FIRST_PID = 5_000_000
"""Above the kernel's largest pid (2^22), so that a stray kill(2) hits nothing."""
_WORKS = Probe(works=True, not_isolated=("everything: this is a fake",))
_LOST = Exit(code=255, error="the fake agent is gone without a trace of how the workload ended")


@dataclass(slots=True)
class FakeDriver:
    """A level that pretends. `calls` lists the steps that were asked for, in order."""

    isolation: Isolation = Isolation.CONTAINER
    failures: dict[str, Exception] = field(default_factory=dict)
    """Step -> what is raised there, each time until it is taken out."""
    delays: dict[str, float] = field(default_factory=dict)
    """Step -> seconds."""
    problems: dict[str, Problem] = field(default_factory=dict)
    """Word of a command line -> what `check` says about it."""
    ability: Probe = _WORKS
    calls: list[str] = field(default_factory=list)

    def probe(self) -> Probe:
        """What it was told to say."""
        self._step("probe")
        return self.ability

    def not_isolated(self, spec: Spec) -> Sequence[str]:
        """What the probe says."""
        return self.ability.not_isolated

    def check(self, spec: Spec) -> list[Problem]:
        """A problem for each word of the command line that it was told to mind."""
        self._step("check")
        return [self.problems[word] for word in spec.argv if word in self.problems]

    def create(self, bundle: Bundle) -> None:
        """Make the record in the bundle, if it is not there."""
        self._step("create")
        if not (bundle.directory / RECORD).exists():
            _write(bundle.directory, {"state": "created", "operations": []})

    def start(self, bundle: Bundle, *, on_launch: Callable[[Path], None] | None = None) -> Handle:
        """Run one of the fake programs. Raises CommandNotFound for any other."""
        self._step("start")
        directory, spec = bundle.directory, bundle.spec
        program = parse(spec.argv)
        if Path(spec.argv[0]).name == "not-executable":
            raise CommandNotExecutable(f"{spec.argv[0]} cannot be executed: Permission denied")
        if program is None:
            raise CommandNotFound(f"{spec.argv[0]} is not in the image")
        (directory / "exit.json").unlink(missing_ok=True)
        pid = _FIRST_PID + int(spec.id[-5:], 16)
        agent = FakeAgent(directory, program, pid)
        try:
            if on_launch:
                on_launch(directory / SOCKET)
            self._step("launched")
        except BaseException:
            agent.abandon()
            raise
        agent.run()
        _write(directory, {"state": "running", "operations": [], "limits": describe(bundle.limits.prepare)})
        return Handle(supervisor_pid=pid - 1, supervisor_started=1, pid=pid, data={"driver": "fake"})

    def exec_request(self, spec: Spec, handle: Handle, command: Command) -> ExecRequest:
        """The command line alone."""
        self._step("exec")
        return ExecRequest(inside=(simple(Code.EXEC, *command.argv),))

    def inspect(self, bundle: Path, handle: Handle) -> Inspection:
        """From `exit.json`, else from whether the agent answers."""
        self._step("inspect")
        found = _read_exit(bundle)
        if found:
            return Inspection(running=False, exit=found)
        try:
            with Session.connect(bundle / SOCKET) as session:
                session.info()
        except Unavailable:
            return Inspection(running=False, exit=_read_exit(bundle) or _LOST)
        return Inspection(running=True, pid=handle.pid)

    def stop(self, bundle: Path, handle: Handle, *, signal: str, timeout: float) -> None:
        """As the real ones: the signal, KILL after `timeout`."""
        self._step("stop")
        with suppress(Unavailable), Session.connect(bundle / SOCKET) as session:
            stream = session.watch()
            session.signal(signals.Signals[signal])
            if session.ended(stream, timeout=timeout) is None:
                session.signal(signals.SIGKILL)
                session.ended(stream, timeout=10.0)

    def delete(self, bundle: Path, instance_id: str) -> None:
        """End the agent, remove the record."""
        self._step("delete")
        with suppress(Unavailable), Session.connect(bundle / SOCKET) as session:
            session.quit()
        for name in (RECORD, SOCKET):
            (bundle / name).unlink(missing_ok=True)

    def resize(self, bundle: Path, handle: Handle, change: Change) -> None:
        """Keep the operations, in words, in the record."""
        self._step("resize")
        record, operations = _read(bundle), change.host(change.old, change.new)
        _write(bundle, {**record, "operations": [operation.describe() for operation in operations]})

    def pause(self, bundle: Path, handle: Handle) -> None:
        """Say so in the record."""
        self._step("pause")
        _write(bundle, {**_read(bundle), "state": "paused"})

    def resume(self, bundle: Path, handle: Handle) -> None:
        """Say so in the record."""
        self._step("pause")
        _write(bundle, {**_read(bundle), "state": "running"})

    def flush(self, bundle: Path, handle: Handle) -> None:
        """It keeps nothing in memory."""
        self._step("flush")

    def hold(self, bundle: Bundle) -> Handle:
        """An agent whose program never ends by itself."""
        self._step("start")
        FakeAgent(bundle.directory, Program(after=None), _FIRST_PID).run()
        return Handle(supervisor_pid=_FIRST_PID - 1, supervisor_started=1, pid=_FIRST_PID)

    def _step(self, step: str) -> None:
        self.calls.append(step)
        if step in self.delays:
            time.sleep(self.delays[step])
        if step in self.failures:
            raise self.failures[step]


def _write(bundle: Path, record: Mapping[str, object]) -> None:
    (bundle / RECORD).write_text(json.dumps(record))


def _read(bundle: Path) -> dict[str, object]:
    found = json.loads((bundle / RECORD).read_text())
    return found if isinstance(found, dict) else {}


def _read_exit(bundle: Path) -> Exit | None:
    try:
        found = json.loads((bundle / "exit.json").read_text())
    except FileNotFoundError:
        return None
    return Exit(
        code=found["code"],
        signal=found["signal"],
        oom=OOM_REPORT in found["reports"],
        started=found["started"],
        ended=found["ended"],
    )
