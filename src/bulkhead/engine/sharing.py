"""What a VM's own workload may use while instances run in it: what they have been promised is not its any more.

Without this the guest's kernel would be out of memory as a whole, and end whatever it likes.
"""

from __future__ import annotations

import logging

from bulkhead import limits
from bulkhead.agent.session import SOCKET, Session
from bulkhead.engine import inside
from bulkhead.engine.context import Context
from bulkhead.errors import BulkheadError, NotFound
from bulkhead.model import Instance, State

log = logging.getLogger(__name__)
_ALIVE = (State.STARTING, State.RUNNING, State.PAUSED, State.STOPPING)
SECONDS = 10.0
"""Within which a guest that lives answers."""


def reserve(context: Context, machine: Instance) -> None:
    """While an instance starts in a VM: take what it is promised from the VM's own workload.

    Raises Conflict where that uses too much of it; AgentError, Unavailable where the guest does not answer.
    """
    if machine.spec.only_for:
        return  # it has no workload of its own
    promised = _promised(context, machine)
    with Session.connect(context.bundle_dir(machine) / SOCKET) as session:
        used = session.guest_run(limits.guest_use(), timeout=SECONDS)
        limits.check_own_use(machine.spec.plan, promised, used, name=machine.spec.name)
        session.guest_run(limits.own_memory(machine.spec.plan, promised), timeout=SECONDS)


def settle(context: Context, machine_id: str) -> None:
    """Give a VM's own workload what no instance in it has any more. Fine where the VM does not run, or is none."""
    if not machine_id:
        return
    try:
        machine = context.state.get(machine_id)
    except NotFound:
        return
    if machine.spec.inner == 0 or machine.spec.only_for or machine.state is not State.RUNNING:
        return
    try:
        with Session.connect(context.bundle_dir(machine) / SOCKET) as session:
            own = limits.own_memory(machine.spec.plan, _promised(context, machine))
            session.guest_run(own, timeout=SECONDS)
    except BulkheadError as error:  # it has just ended, or hangs: it is the next to settle it
        log.warning("the memory of %s could not be settled: %s", machine.spec.name, error)


def _promised(context: Context, machine: Instance) -> int:
    """Bytes that those have which run in it, or start just now."""
    there = inside.held(context, machine.spec)
    return sum(each.spec.plan.memory for each in there if each.state in _ALIVE)
