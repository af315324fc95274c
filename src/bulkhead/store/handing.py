"""The fleet's record of a move: begun, handed over, or taken back. Each is one transaction. See design 0030.

A move has a name of its own. It can be handed over only while the place says that this very move is under way, so
once it is taken back, a hand-over that is still on its way to the store can never be made any more.
"""

from __future__ import annotations

import time

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.errors import Conflict, NotFound
from bulkhead.fleet import Host, Phase, Place
from bulkhead.moves import Leaving
from bulkhead.store.base import Reader, Transaction
from bulkhead.store.fleet import FleetState, add_sold
from bulkhead.store.records import Records

_PLACES = Records("place", Place, lambda place: place.id)
_HOSTS = Records("host", Host, lambda host: host.id)


def place_of(state: FleetState, instance_id: str) -> Place | None:
    """Where an instance is; None where it has no place."""
    with state.store.read() as reader:
        return _PLACES.get(reader, instance_id)


def begin(state: FleetState, instance_id: str, leaving: Leaving, *, host: str) -> Place:
    """An instance of `host` is about to leave. Raises Conflict where it is not to be moved now, NotFound."""

    def body(transaction: Transaction) -> Place:
        place = _place(transaction, instance_id)
        if place.host != host or place.phase is not Phase.PLACED:
            raise Conflict(f"{place.name} is {place.phase} in the fleet: it cannot be moved now", hint="try again")
        if _HOSTS.get(transaction, leaving.target) is None:
            raise NotFound(f"host {leaving.target} is not in the fleet any more")
        changed = {"phase": Phase.MOVING, "target": leaving.target, "move": leaving.move}
        return _put(transaction, place.model_copy(update=changed))

    return state.store.attempt(body)


def hand_over(state: FleetState, instance_id: str, leaving: Leaving, amounts: Amounts) -> Place:
    """From here on it is the target's, where it takes `amounts`. Raises Conflict where the move was taken back.

    Undecided says that it may have been handed over: `take_back` finds out.
    """

    def body(transaction: Transaction) -> Place:
        place = _place(transaction, instance_id)
        if not is_under_way(place, leaving):
            raise Conflict(f"the move of {place.name} has been taken back")
        if _HOSTS.get(transaction, leaving.target) is None:
            raise NotFound(f"host {leaving.target} is not in the fleet any more")
        add_sold(transaction, place.host, NOTHING - Amounts(**place.amounts), -1)
        add_sold(transaction, leaving.target, amounts, 1)
        changed = {"host": leaving.target, "generation": place.generation + 1, "amounts": amounts.as_dict()}
        return _put(transaction, place.model_copy(update={**changed, **_STILL, "moved": time.time()}))

    return state.store.attempt(body)


def take_back(state: FleetState, instance_id: str, leaving: Leaving, *, host: str) -> bool:
    """Let an instance of `host` stay; False where it is not that host's any more. For good, either way. Idempotent."""

    def body(transaction: Transaction) -> bool:
        place = _PLACES.get(transaction, instance_id)
        if place is None or place.host != host:
            return False
        if is_under_way(place, leaving):
            _put(transaction, place.model_copy(update=_STILL))
        return True

    return state.store.attempt(body)


def is_under_way(place: Place, leaving: Leaving) -> bool:
    """Whether the place says that it is this move which is carried out."""
    return (place.phase, place.target, place.move) == (Phase.MOVING, leaving.target, leaving.move)


_STILL = {"phase": Phase.PLACED, "target": None, "move": None}


def _put(transaction: Transaction, place: Place) -> Place:
    _PLACES.put(transaction, place)
    return place


def _place(reader: Reader, instance_id: str) -> Place:
    found = _PLACES.get(reader, instance_id)
    if found is None:
        raise NotFound(f"instance {instance_id} has no place in the fleet (any more)")
    return found
