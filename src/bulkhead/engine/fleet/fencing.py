"""What of this host's instances may run while the fleet is not heard of: all of them, but those that are to be started
elsewhere when this host is lost. Those run only while this host holds its lease, and a guard that is no part of the
daemon ends them in time where it cannot renew it. See design 0032.
"""

from __future__ import annotations

import logging
import threading
import time

from bulkhead.agent.guard import PASSED, Guard, Told, now
from bulkhead.config import Config
from bulkhead.engine.fleet.identity import Opened
from bulkhead.errors import AgentError, Conflict
from bulkhead.host.cgroups import Layout
from bulkhead.model import Spec
from bulkhead.store import wills
from bulkhead.store.abilities import Lease

log = logging.getLogger(__name__)
BEAT_SECONDS = 0.25
"""After which the guard hears of the daemon again."""
SILENT_SECONDS = 3.0
"""For which the daemon may stand still after the lease is over; then the guard ends it, lest it go on with a start."""
SETTLE_SECONDS = 30.0
DIRECTORY = "guard"


def is_fenced(spec: Spec) -> bool:
    """Whether an instance is ended where this host cannot say that it lives."""
    return spec.where.on_host_loss != "stay"


class Fence:
    """This host's."""

    def __init__(self) -> None:
        self.guard: Guard
        """From `begin` on."""
        self.begun: set[str] = set()
        """Ids of instances that have begun to run since the fleet was told whether they do."""
        self._member: Opened | None = None
        self._lease: Lease | None = None
        self._stop, self._soon = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    # --- while this host is a member

    def begin(self, member: Opened, config: Config, layout: Layout) -> None:
        """Look after the guard from here on."""
        trees = [tree / config.cgroup for tree in layout.trees]
        self.guard = Guard(config.run_dir / DIRECTORY, trees, silence=SILENT_SECONDS)
        self._member, self._lease = member, None
        self._stop.clear()
        self._thread = threading.Thread(target=self._feed, name="guard", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No more: the guard ends what it is about in time, or itself where that is nothing."""
        self._stop.set()
        self._soon.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = self._member = self._lease = None
        if not self.guard.quit():
            self.guard.close()

    def known(self) -> set[str]:
        """Ids of the instances that the guard is about, whether it has ended them or is to."""
        return self.guard.armed() | self.guard.fenced() if self._thread is not None else set()

    def adopt(self, lease: Lease) -> None:
        """This host is recorded as alive under a new lease. What ran under an older one and was not kept alive until
        now is ended first: others may have taken it. Raises AgentError where it does not end.
        """
        if self.guard.armed() or self.guard.fenced():
            deadline = time.monotonic() + SETTLE_SECONDS
            # Asked now, after the record: whoever takes over waits for longer than the deadline, and finds the record.
            while not self.guard.tell(0, begin=PASSED).settled:
                if time.monotonic() > deadline:
                    raise AgentError(f"instances of this host do not end within {SETTLE_SECONDS:g} s after KILL")
                time.sleep(0.02)
        self._lease = lease
        self._soon.set()

    def held(self) -> Lease | None:
        """The lease, where this host holds it for certain."""
        lease = self._lease
        return lease if lease is not None and lease.remaining() > 0 else None

    def _feed(self) -> None:
        while not self._stop.is_set():
            self._soon.clear()
            needed = bool(self.guard.armed() or self.guard.fenced())
            if needed:
                try:
                    self._tell()
                except AgentError as error:
                    log.error("%s", error)
            elif self.guard.quit():
                self._soon.wait()
                continue
            self._soon.wait(BEAT_SECONDS)

    def _tell(self) -> Told:
        until = self._until()
        return self.guard.tell(until, begin=until or PASSED)

    def _until(self) -> int:
        """How long the lease is held for certain; 0 where it is not."""
        asked, lease = now(), self._lease
        remaining = lease.remaining() if lease is not None else 0.0
        return asked + int(remaining * 1e9) if remaining else 0

    # --- before a start

    def admit(self, spec: Spec) -> None:
        """An instance is about to run here. Raises Conflict where it may be another host's, Unavailable."""
        if not is_fenced(spec):
            return
        member = self._member
        self.require(spec)
        assert member is not None
        wills.begin_run(member.state, spec, host=member.identity.id)
        self.begun.add(spec.id)
        until = self._until()
        if until:
            self.guard.arm(spec.id, until)
            self._soon.set()
        self.require(spec)

    def may_run(self, spec: Spec) -> bool:
        """Whether an instance could run here now, as far as this host knows by itself."""
        return not is_fenced(spec) or (self._member is not None and self.held() is not None)

    def require(self, spec: Spec) -> None:
        """Raise Conflict where this host does not hold its lease."""
        if not self.may_run(spec):
            what = f"{spec.name} is started elsewhere when this host is not heard of, and this host's lease is not held"
            raise Conflict(what, hint="it can be started once etcd answers: see bulkhead cluster status")
