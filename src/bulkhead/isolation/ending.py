"""How what runs in a guest is ended: its agent may not answer, since the guest is its tenant's."""

from __future__ import annotations

import signal as signals
import time

from bulkhead.agent.session import Session
from bulkhead.errors import AgentError, Unavailable
from bulkhead.isolation.supervised import KILL_SECONDS

ANSWER_SECONDS = 5.0
"""Within which a guest that lives answers a signal."""


def end(session: Session, number: int, timeout: float) -> None:
    """Signal the workload, after `timeout` seconds kill it; where the guest does not answer, end what holds it."""
    watched, deadline = session.watch(), time.monotonic() + timeout
    if number != signals.SIGKILL:
        _answers(session, number, min(timeout, ANSWER_SECONDS))
        if session.ended(watched, timeout=max(0.0, deadline - time.monotonic())):
            return
    # What the workload has written goes to the disk before the guest tells of its end, so KILL is for the guest.
    alive = _answers(session, signals.SIGKILL, ANSWER_SECONDS)
    if session.ended(watched, timeout=KILL_SECONDS if alive else 0) is None:
        session.quit(timeout=KILL_SECONDS)


def _answers(session: Session, number: int, timeout: float) -> bool:
    """Send the workload a signal, KILL to all of its processes; whether the guest has answered in time."""
    try:
        session.signal(number, everyone=number == signals.SIGKILL, timeout=timeout)
    except AgentError:
        return True  # there is no such process any more: the watch tells
    except Unavailable as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise
        return False
    return True
