"""Operations: what lasts longer than a request may. Recorded when they begin and when they end, followed in between.

How far one has got is kept in memory alone, bounded: a daemon that ends leaves records of operations that run, and
the next one says that they were interrupted.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bulkhead.errors import Conflict, NotFound
from bulkhead.events import Step
from bulkhead.operation import Operation, OperationState, ProgressReport
from bulkhead.store import State

MOST_KEPT = 1000
"""Operations that have ended and are remembered."""
MOST_REPORTS = 256
"""Reports of one operation that a client which comes back can still get."""
MOST_RESULT = 1 << 18
"""Bytes of a result that is kept."""
LISTEN_SECONDS = 0.5
TELL_SECONDS = 0.1
"""Progress of one step is told at most this often."""


class Cancelled(BrokenPipeError):
    """Nobody wants it any more. Raised by the progress sink, as where a client has gone: work ends by itself."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report of progress, numbered from 1."""

    number: int
    progress: ProgressReport


@dataclass(slots=True)
class _Live:
    """An operation that runs."""

    operation: Operation
    reports: deque[Report] = field(default_factory=lambda: deque(maxlen=MOST_REPORTS))
    changed: threading.Condition = field(default_factory=threading.Condition)
    number: int = 0
    cancelled: bool = False
    told: float = 0.0


class Operations:
    """All operations of this daemon, and those of earlier ones."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._guard = threading.Lock()
        self._live: dict[str, _Live] = {}

    def recover(self) -> list[str]:
        """Say of those that an earlier daemon has left running that they were interrupted; call once, first."""
        repairs = []
        for one in self._state.operations():
            if one.running:
                changed = {"state": OperationState.INTERRUPTED, "ended": time.time()}
                self._state.save_operation(one.model_copy(update=changed))
                repairs.append(f"operation {one.id[:12]} ({one.kind} {one.target}) was interrupted".replace(" )", ")"))
        return repairs

    # --- by whom it is carried out

    def begin(self, kind: str, target: str, *, tenant: str, cancellable: bool) -> Operation:
        """A new one, which is recorded as running."""
        now = time.time()
        operation = Operation(
            id=uuid.uuid4().hex, kind=kind, target=target, tenant=tenant, created=now, cancellable=cancellable
        )
        self._state.save_operation(operation)
        with self._guard:
            self._live[operation.id] = _Live(operation)
        self._trim()
        return operation

    def tell(self, operation_id: str, step: Step) -> bool:
        """How far it is; whether that was worth telling. Raises Cancelled where it is to end."""
        live = self._live[operation_id]
        with live.changed:
            if live.cancelled:
                raise Cancelled(f"operation {operation_id[:12]} was cancelled")
            last, now = live.operation.progress, time.monotonic()
            begins = last is None or last.label != step.label
            if not (begins or (step.total and step.done >= step.total) or now - live.told >= TELL_SECONDS):
                return False
            report = ProgressReport(label=step.label, done=step.done, total=step.total, unit=step.unit)
            live.told, live.number = now, live.number + 1
            live.operation = live.operation.model_copy(update={"progress": report})
            live.reports.append(Report(live.number, report))
            live.changed.notify_all()
        return True

    def is_cancelled(self, operation_id: str) -> bool:
        """Whether it is to end."""
        live = self._live.get(operation_id)
        return live is None or live.cancelled

    def end(self, operation_id: str, state: OperationState, *, result: object = None, problem: object = None) -> None:
        """It has ended; the record says how. `result` and `problem` are JSON values."""
        live = self._live[operation_id]
        with live.changed:
            changes = {"state": state, "ended": time.time(), "result": result, "problem": problem}
            live.operation = live.operation.model_copy(update=changes)
            if len(live.operation.model_dump_json()) > MOST_RESULT:
                live.operation = live.operation.model_copy(update={"result": None})
            self._state.save_operation(live.operation)
            live.changed.notify_all()
        with self._guard:  # only now: until the record says so, what is live does
            del self._live[operation_id]

    # --- by whom it is watched

    def list(self, *, tenant: str | None = None) -> Sequence[Operation]:
        """A tenant's (None: all) that are remembered, the newest first; those that run with their progress."""
        found = [self._current(one) for one in reversed(self._state.operations())]
        return [one for one in found if tenant in (None, one.tenant)]

    def get(self, operation_id: str, *, tenant: str | None = None) -> Operation:
        """One of them. Raises NotFound, also where it is not this tenant's (None: anybody's)."""
        found = self._state.operation(operation_id)
        if found is None or tenant not in (None, found.tenant):
            raise NotFound(
                f"no such operation: {operation_id}", hint=f"the last {MOST_KEPT} are remembered: GET /v1/operations"
            )
        return self._current(found)

    def cancel(self, operation_id: str, *, tenant: str | None = None) -> Operation | None:
        """Ask one that runs to end, soon; forget one that has ended, and return None. Raises NotFound, Conflict."""
        operation = self.get(operation_id, tenant=tenant)
        if not operation.running:
            self._state.delete_operation(operation_id)
            return None
        if not operation.cancellable:
            raise Conflict(
                f"operation {operation_id[:12]} ({operation.kind}) cannot be cancelled", hint="it ends by itself"
            )
        if live := self._live.get(operation_id):
            with live.changed:
                live.cancelled = True
                live.changed.notify_all()
        return operation

    def follow(self, operation_id: str, *, after: int, alive: Callable[[], bool]) -> Iterator[Report | Operation]:
        """Reports with numbers above `after`, those to come as well, then the record of its end.

        Ends without that where `alive()` says false, which is asked at least once a second. Raises NotFound.
        """
        live, last = self._live.get(operation_id), after
        while live:
            with live.changed:
                new = [report for report in live.reports if report.number > last]
                if not new:
                    if not live.operation.running:
                        break
                    live.changed.wait(LISTEN_SECONDS)
            for report in new:
                last = report.number
                yield report
            if not alive():
                return
        yield self.get(operation_id)

    # --- inside

    def _current(self, recorded: Operation) -> Operation:
        if not recorded.running:
            return recorded
        if live := self._live.get(recorded.id):
            return live.operation
        # It has ended since the record was read, or an earlier daemon's is to be recovered yet.
        return self._state.operation(recorded.id) or recorded

    def _trim(self) -> None:
        ended = [one for one in self._state.operations() if not one.running]
        for one in ended[: max(0, len(ended) - MOST_KEPT)]:
            self._state.delete_operation(one.id)
