"""Which programs run in an instance, who started each, and which files each opens.

A *step* is one execution of one program: what a process does from an execve to the next one, with the children it
forks until they execute something themselves. Step 0 is everything from outside, such as the agent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bulkhead.engine.context import Context
from bulkhead.errors import Conflict, Refused
from bulkhead.host import processes
from bulkhead.host.fanotify import Opened, Opens
from bulkhead.model import Instance, Isolation, State

QUIET_SECONDS = 0.2
MOST_ANCESTORS = 32
MOST_TOLD = 2_000_000
"""Steps and files in all: what a workload opens is its own choice."""
_LOADERS = ("ld-linux", "ld-musl", "ld64")
"""Beginnings of the names of dynamic loaders: the kernel opens one with each program."""

Line = dict[str, str | int]
Identity = Callable[[int], tuple[int, int] | None]
"""Parent's pid and start time of a process, None where there is none."""


@dataclass(slots=True)
class Tracker:
    """Turns what is opened into lines about steps: `{"step", "by", "program"}` and `{"step", "path"}`, each once."""

    identity: Identity
    steps: int = 0
    _of: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Start time and step of each process that was seen."""
    _interpreted: set[int] = field(default_factory=set)
    """Processes that have executed a script, whose interpreter comes next."""
    _told: set[tuple[int, str]] = field(default_factory=set)

    def take(self, opened: Opened) -> Iterator[Line]:
        """What there is to tell. Raises Refused where it is too much."""
        if len(self._told) + self.steps > MOST_TOLD:
            raise Refused(f"more than {MOST_TOLD} files were opened")
        if opened.executed:
            if PurePosixPath(opened.path).name.startswith(_LOADERS):
                return
            if opened.pid not in self._interpreted:
                yield self._execute(opened)
            self._interpreted.discard(opened.pid)
            if opened.script:
                self._interpreted.add(opened.pid)
            return
        step = self._step(opened.pid)
        if step and (step, opened.path) not in self._told:
            self._told.add((step, opened.path))
            yield {"step": step, "path": opened.path}

    def _execute(self, opened: Opened) -> Line:
        caller = self._step(opened.pid)
        self.steps += 1
        found = self.identity(opened.pid)
        self._of[opened.pid] = (found[1] if found else 0, self.steps)
        return {"step": self.steps, "by": caller, "program": opened.path}

    def _step(self, pid: int) -> int:
        """The step that a process is in; a child is in that of its parent until it executes something."""
        passed: list[tuple[int, int]] = []
        step = 0
        for _ in range(MOST_ANCESTORS):
            found = self.identity(pid)
            if found is None:
                break
            parent, started = found
            known = self._of.get(pid)
            if known and known[0] == started:
                step = known[1]
                break
            passed.append((pid, started))
            pid = parent
        for process, started in passed:
            if step:
                self._of[process] = (started, step)
        return step


class Watches:
    """Instances that are watched: at most once each, for as long as somebody listens."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ended: dict[str, threading.Event] = {}
        self._guard = threading.Lock()

    def watch(self, instance: Instance, *, alive: Callable[[], bool]) -> Iterator[Line]:
        """An empty line when it begins, then what `Tracker` tells, to `end` or until nobody is `alive`.

        Raises Refused, Conflict, CallError.
        """
        spec = instance.spec
        if spec.isolation not in (Isolation.CHROOT, Isolation.CONTAINER):
            what = f"{spec.name} is a {spec.isolation}: which files are opened in it, its own kernel knows alone"
            raise Refused(what, hint="use --isolation container or chroot")
        if instance.state is not State.RUNNING:
            raise Conflict(f"instance {spec.name} is {instance.state}, not running", hint=f"bulkhead start {spec.name}")
        with self._guard:
            if spec.id in self._ended:
                raise Conflict(f"{spec.name} is watched already", hint="end the other watch first")
            ended = self._ended[spec.id] = threading.Event()
        try:
            with Opens(Path(f"/proc/{instance.pid}/root")) as opens:
                yield {}
                tracker = Tracker(processes.parent)
                while alive():
                    last = ended.is_set()
                    for opened in opens.events(seconds=0 if last else QUIET_SECONDS):
                        yield from tracker.take(opened)
                        if not alive():
                            return
                    if last:
                        return
        finally:
            with self._guard:
                del self._ended[spec.id]

    def end(self, instance_id: str) -> None:
        """Let a watch end when all that was opened so far has been told. Fine where there is none."""
        with self._guard:
            ended = self._ended.get(instance_id)
        if ended:
            ended.set()
