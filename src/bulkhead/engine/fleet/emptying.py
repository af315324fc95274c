"""Everything off this host, one instance after the other, to the hosts that the fleet's rules choose.

What is next is judged anew after each move, by the fleet as it is then (design 0029); what a host refuses, or what does
not go, stays and is told with the reason. An end in between leaves every instance where it is by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.identity import Opened
from bulkhead.errors import BulkheadError
from bulkhead.events import Progress, Step
from bulkhead.fleet import Host, HostState
from bulkhead.moves import Drained, Moved, Stays, Went
from bulkhead.store.fleet import Seen

if TYPE_CHECKING:
    from bulkhead.cluster.draining import Drain
    from bulkhead.cluster.groups import Proposed

Carry = Callable[[str, str, Progress], Moved]
"""Moves an instance (id) to a host (id)."""


def empty(opened: Opened, carry: Carry, *, deadline: float, dry_run: bool, progress: Progress) -> Drained:
    """Let this host take nothing new, and move what is there within `deadline` seconds; with `dry_run` say only what
    would go where.
    """
    own, ends = opened.identity, time.monotonic() + deadline
    if not dry_run:
        opened.state.change_host(own.id, _draining)
    went: list[Went] = []
    failed: dict[str, Stays] = {}
    while True:
        seen, plan = _plan(opened, ends - time.monotonic())
        names = {host.id: host.name for host in seen.hosts}
        moves = [timed.move for timed in plan.moves if timed.move.instance not in failed]
        if dry_run:
            went = [_foreseen(move, names[move.target]) for move in moves]
        if dry_run or not moves:
            left = [Stays(name=each.wanted.name, reason=each.reason, hint=each.hint) for each in plan.left]
            return Drained(host=own.name, done=not dry_run, went=tuple(went), stays=(*failed.values(), *left))
        move, target = moves[0], names[moves[0].target]
        progress(Step(f"{move.name} goes to {target}", len(went), len(went) + len(moves)))
        try:
            moved = carry(move.instance, move.target, progress)
        except BulkheadError as error:
            failed[move.instance] = Stays(name=move.name, reason=error.what, hint=error.hint)
            continue
        sent = moved.hosts.sent if moved.hosts else 0
        went.append(Went(name=move.name, host=target, downtime=moved.downtime, size=sent))


def _draining(host: Host) -> Host:
    return host.model_copy(update={"state": HostState.DRAINING})


def _plan(opened: Opened, seconds: float) -> tuple[Seen, Drain]:
    from bulkhead.cluster.draining import drain  # numpy: a daemon that serves no large fleet does without

    seen = opened.state.seen()
    policy = seen.fleet.policy if seen.fleet else "balance"
    snapshot = views.snapshot(seen, heard={opened.identity.id})
    return seen, drain(snapshot, opened.identity.id, max(0.0, seconds), policy=policy)


def _foreseen(move: Proposed, target: str) -> Went:
    return Went(name=move.name, host=target, downtime=move.cost.downtime, size=move.cost.size)
