"""Memory of instances that do nothing: their page cache is taken, on the operator's setting (`reclaim_idle`).

Without swap that is all that can be taken of them, and it comes back as they use it. A virtual machine is left alone:
its memory is its guest's, which tells by itself what it does not use (see isolation/vmm.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from bulkhead import limits
from bulkhead.engine.context import Context
from bulkhead.errors import Refused
from bulkhead.host import cgroups
from bulkhead.model import Isolation, State

log = logging.getLogger(__name__)
IDLE_SHARE = 0.005
"""Of a core: who uses less than this does nothing. An nginx that waits uses a tenth of it."""
LEAST_PAUSE = 0.5
LEVELS = (Isolation.CHROOT, Isolation.CONTAINER)


@dataclass(slots=True)
class Seen:
    """Of one instance: when it last worked, and what it had used of a core when it was last seen."""

    worked: float
    when: float
    cpu_seconds: float
    done: bool = False


@dataclass(slots=True)
class Idleness:
    """Tells who has done nothing for `after` seconds: once, and again after it has worked."""

    after: float
    _seen: dict[str, Seen] = field(default_factory=dict)

    def see(self, instance_id: str, cpu_seconds: float, now: float) -> bool:
        """Whether it is time to take its memory. Call it from time to time; `cpu_seconds` count since its start."""
        seen = self._seen.get(instance_id)
        if seen is None or cpu_seconds < seen.cpu_seconds:
            self._seen[instance_id] = Seen(now, now, cpu_seconds)
            return False
        if cpu_seconds - seen.cpu_seconds > IDLE_SHARE * (now - seen.when):
            seen.worked, seen.done = now, False
        seen.when, seen.cpu_seconds = now, cpu_seconds
        if seen.done or now - seen.worked < self.after:
            return False
        seen.done = True
        return True

    def forget_others(self, there: Collection[str]) -> None:
        """Only these run."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in there}


class Reclaimer:
    """Looks at what runs, in a thread of its own, where the configuration says so."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._after = context.config.reclaim_idle
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Raise Refused where the configuration asks for what this kernel cannot do."""
        if self._after is not None and not cgroups.can_reclaim(self._context.layout, self._context.config.cgroup):
            what = f"reclaim_idle {self._after:g}: this kernel cannot take a cgroup's memory (no memory.reclaim)"
            raise Refused(what, hint="leave reclaim_idle out of the configuration, or use Linux 5.19 or newer")

    def begin(self) -> None:
        """Start looking; nothing where it is not asked for."""
        if self._after is not None:
            self._thread = threading.Thread(target=self._loop, args=(self._after,), name="reclaim", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._ended.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _loop(self, after: float) -> None:
        idleness = Idleness(after)
        while not self._ended.wait(max(LEAST_PAUSE, after / 4)):
            try:
                self._look(idleness)
            except OSError as error:
                log.warning("memory of idle instances: %s", error)

    def _look(self, idleness: Idleness) -> None:
        context = self._context
        running = [
            instance.spec
            for instance in context.state.instances()
            if instance.state is State.RUNNING and instance.spec.isolation in LEVELS and not instance.spec.inside
        ]
        for spec in running:
            used = limits.read_usage(context.layout, context.config.cgroup, spec.id)
            if idleness.see(spec.id, used.cpu_seconds, time.monotonic()):
                cgroups.reclaim(context.layout, f"{context.config.cgroup}/{spec.id}")
        idleness.forget_others({spec.id for spec in running})
