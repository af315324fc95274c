"""What of this host is sold, and whether there is room for more. The one place through which everything goes that
takes more of the host: creates, volumes, snapshots, and changes that grow something.

The judgement and the record of what was judged are one transaction, so that no two can be given the same room. See
docs/design/0020.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bulkhead import limits
from bulkhead.amounts import NOTHING, Amounts
from bulkhead.engine import quotas
from bulkhead.engine.context import Context
from bulkhead.errors import NoRoom, Problem
from bulkhead.host import facts
from bulkhead.limits import Capacity
from bulkhead.model import Instance, Spec, State

_HOLDING = (State.STARTING, State.RUNNING, State.PAUSED, State.STOPPING)


def capacity(context: Context) -> Capacity:
    """What this host can sell."""
    disk = facts.disk_size(context.config.state_dir)
    return limits.capacity(context.facts, context.config, disk=disk)


def sold(context: Context) -> Amounts:
    """What is sold: instances whether they run or not, volumes, snapshots and images; also what is just coming."""
    layout = context.images.layout
    coming = sum((amounts() for amounts in context.coming), NOTHING)
    return context.state.sold() + coming + Amounts(disk=layout.space() + layout.shares.coming())


def problems(context: Context, wanted: Amounts) -> list[Problem]:
    """Why there is no room for so much more; for all that is wrong with a request to be told at once."""
    return limits.room_problems(wanted, capacity(context), sold(context))


def require_room(context: Context, wanted: Amounts) -> None:
    """In the transaction that records it: raise NoRoom where so much more cannot be sold."""
    if found := problems(context, wanted):
        raise NoRoom(found)


def admit(context: Context, spec: Spec) -> None:
    """In the transaction that records a new instance: what the host has, and what its tenant may have."""
    quotas.admit_instance(context, spec)
    require_room(context, context.scales.weigh(spec))


def admit_start(context: Context, instance: Instance) -> None:
    """In the transaction that begins a start. What exists can be started, with one exception: where the host has come
    to have less, or its configuration to sell less, than is sold, those that start first have it.
    """
    has = capacity(context)
    if not _oversold(has, sold(context)):
        return
    # Disks are there whether it runs or not.
    own = _of_a_run(context.scales.weigh(instance.spec))
    others = [each.spec for each in context.state.instances() if each.state in _HOLDING]
    running = sum((_of_a_run(context.scales.weigh(spec)) for spec in others if spec.id != instance.spec.id), NOTHING)
    if found := limits.room_problems(own, has, running):
        raise NoRoom(found)


def _oversold(has: Capacity, sold: Amounts) -> bool:
    return any(amount < 0 for amount in has.free(sold).as_dict().values())


def _of_a_run(amounts: Amounts) -> Amounts:
    return amounts - Amounts(disk=amounts.disk)


def growth(context: Context, instance: Instance, after: Spec) -> Amounts:
    """What an instance would take on top of what it takes now; never below nothing."""
    return (context.scales.weigh(after) - context.state.counted(instance)).at_least(NOTHING)


def judge_import(context: Context, size: int) -> None:
    """Raise NoRoom where an import has no room, which is among what is sold already: so no two get the same."""
    with context.state.atomic():
        others = sold(context) - Amounts(disk=size)
        if found := limits.room_problems(Amounts(disk=size), capacity(context), others):
            raise NoRoom(found)


@contextmanager
def growing(context: Context, instance: Instance, after: Spec) -> Iterator[None]:
    """While an instance changes: it has what it is about to have, and keeps what it may go back to.

    Raises NoRoom before anything is changed. After a crash the claim stands until `recovery` is through.
    """
    state = context.state
    with state.atomic():
        require_room(context, growth(context, instance, after))
        state.claim(instance, context.scales.weigh(after).at_least(state.counted(instance)))
        quotas.claim(context, instance, after.plan)
    try:
        yield
    finally:
        with state.atomic():
            state.drop_claim(instance.spec.id)
            quotas.drop_claim(context, instance.spec.id)


def to_be_made(context: Context, specs: Sequence[Spec], *, volumes: int = 0) -> Amounts:
    """What several new instances, and bytes of new volumes, would take together."""
    return sum((context.scales.weigh(spec) for spec in specs), Amounts(disk=volumes))
