"""Everything off this host, one instance after the other, to the hosts that the fleet's rules choose.

The plan is kept while its next move would still be judged so by the fleet as it is then (design 0029), and made anew
where it would not, and when it is through. What a host refuses goes on to the next best one; what none takes, or what
does not go, stays and is told with the reasons.
An end in between leaves every instance where it is by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.identity import Opened
from bulkhead.errors import BulkheadError, HostRefused
from bulkhead.events import Progress, Step
from bulkhead.fleet import Host, HostState, Load
from bulkhead.moves import Drained, Moved, Stays, Went

if TYPE_CHECKING:
    from bulkhead.cluster.draining import Left
    from bulkhead.cluster.groups import Proposed
    from bulkhead.cluster.snapshot import Snapshot

MOST_ASKED = 5
"""Hosts that are asked to take the same instance, one after the other."""
Carry = Callable[[str, str, Progress], Moved]
"""Moves an instance (id) to a host (id)."""


def empty(
    opened: Opened, carry: Carry, loads: Mapping[str, Load], *, deadline: float, dry_run: bool, progress: Progress
) -> Drained:
    """Let this host take nothing new, and move what is there within `deadline` seconds; with `dry_run` say only what
    would go where. `loads`: what its instances take, by id.
    """
    own, ends = opened.identity, time.monotonic() + deadline
    if not dry_run:
        opened.state.change_host(own.id, _draining)
    went: list[Went] = []
    failed: dict[str, Stays] = {}
    refused: dict[str, dict[str, str]] = {}
    moves: list[Proposed] = []
    while True:
        snapshot, names = _look(opened, loads, refused)
        if not moves or _over(moves[0], ends) or not _stands(snapshot, moves[0]):
            moves, left = _plan(opened, snapshot, ends - time.monotonic())
            moves = [move for move in moves if move.instance not in failed]
            if dry_run:
                went = [_foreseen(move, names[move.target]) for move in moves]
            if dry_run or not moves:
                stays = [_left(each, refused.get(each.wanted.id, {}), names) for each in left]
                named = {each.name for each in failed.values()}
                stays = [*failed.values(), *(each for each in stays if each.name not in named)]
                return Drained(host=own.name, done=not dry_run, went=tuple(went), stays=tuple(stays))
        move = moves.pop(0)
        target = names[move.target]
        progress(Step(f"{move.name} goes to {target}", len(went), len(went) + 1 + len(moves)))
        try:
            moved = carry(move.instance, move.target, progress)
        except HostRefused as error:  # the next best one may take it
            refused.setdefault(move.instance, {})[move.target] = error.what
            moves = []
            if len(refused[move.instance]) == MOST_ASKED:
                failed[move.instance] = Stays(name=move.name, reason=_said(refused[move.instance], names))
        except BulkheadError as error:
            failed[move.instance] = Stays(name=move.name, reason=error.what, hint=error.hint)
        else:
            sent = moved.hosts.sent if moved.hosts else 0
            warning = "; ".join(moved.dropped)
            went.append(Went(name=move.name, host=target, downtime=moved.downtime, size=sent, warning=warning))


def _draining(host: Host) -> Host:
    return host.model_copy(update={"state": HostState.DRAINING})


def _look(
    opened: Opened, loads: Mapping[str, Load], refused: Mapping[str, Mapping[str, str]]
) -> tuple[Snapshot, dict[str, str]]:
    seen = opened.state.seen()
    snapshot = views.snapshot(seen, heard={opened.identity.id}, loads=loads)
    return views.avoiding(snapshot, refused), {host.id: host.name for host in seen.hosts}


def _left(left: Left, refused: Mapping[str, str], names: Mapping[str, str]) -> Stays:
    """What stays, with what the hosts have said that were asked to take it."""
    reason = f"{_said(refused, names)}; else: {left.reason}" if refused else left.reason
    return Stays(name=left.wanted.name, reason=reason, hint=left.hint)


def _said(refused: Mapping[str, str], names: Mapping[str, str]) -> str:
    return "; ".join(f"host {names.get(host, host)}: {why}" for host, why in refused.items())


def _plan(opened: Opened, snapshot: Snapshot, seconds: float) -> tuple[list[Proposed], tuple[Left, ...]]:
    from bulkhead.cluster.draining import drain  # numpy: a daemon that serves no large fleet does without

    policy = opened.state.fleet().policy
    plan = drain(snapshot, opened.identity.id, max(0.0, seconds), policy=policy)
    return [timed.move for timed in plan.moves], plan.left


def _over(move: Proposed, ends: float) -> bool:
    """Whether it would end after the deadline, since those before it took longer than was foreseen."""
    return time.monotonic() + move.cost.seconds > ends


def _stands(snapshot: Snapshot, move: Proposed) -> bool:
    from bulkhead.cluster.standing import objection

    return not objection(snapshot, move)


def _foreseen(move: Proposed, target: str) -> Went:
    return Went(name=move.name, host=target, downtime=move.cost.downtime, size=move.cost.size)
