"""What becomes of a reserved place: its host takes it over, knows better what it takes, or nothing comes of it.

Each is one transaction.
"""

from __future__ import annotations

from bulkhead.amounts import Amounts
from bulkhead.fleet import Phase, Place
from bulkhead.store import overlays
from bulkhead.store.base import Transaction
from bulkhead.store.fleet import NAME, FleetState, Stale, add_sold
from bulkhead.store.records import Records

_PLACES = Records("place", Place, lambda place: place.id)


def claim(state: FleetState, instance_id: str, *, host: str, until: float) -> Place:
    """`host` answers for a place that another has reserved there, until then. Raises Stale where there is none."""

    def body(transaction: Transaction) -> Place:
        place = _PLACES.get(transaction, instance_id)
        if place is None or place.host != host or place.phase is not Phase.RESERVED:
            raise Stale(f"nothing is reserved for instance {instance_id} on this host (any more)")
        claimed = place.model_copy(update={"by": host, "until": until})
        _PLACES.put(transaction, claimed)
        return claimed

    return state.store.attempt(body)


def restate(state: FleetState, reserved: Place, place: Place) -> Place:
    """What was reserved is this: it may have another id, and take something else. Raises Stale where it is gone."""

    def body(transaction: Transaction) -> Place:
        there = _PLACES.get(transaction, reserved.id)
        if there is None or (there.host, there.key, there.phase) != (place.host, place.key, Phase.RESERVED):
            raise Stale(f"nothing is reserved for {place.name} on this host (any more)")
        if reserved.id != place.id:
            _PLACES.delete(transaction, reserved.id)
            transaction.put(NAME, place.key, f'"{place.id}"')
        stated = overlays.rename(transaction, there, place)
        _PLACES.put(transaction, stated)
        add_sold(transaction, place.host, Amounts(**place.amounts) - Amounts(**there.amounts), 0)
        return stated

    return state.store.attempt(body)


def expire(state: FleetState, place: Place) -> bool:
    """Drop a reservation that is as it was seen; False where something has come of it."""

    def body(transaction: Transaction) -> bool:
        there = _PLACES.get(transaction, place.id)
        if there is None or there != place or there.phase is not Phase.RESERVED:
            return False
        _PLACES.delete(transaction, place.id)
        overlays.free(transaction, place)
        transaction.delete(NAME, place.key)
        add_sold(transaction, place.host, Amounts() - Amounts(**place.amounts), -1)
        return True

    return state.store.attempt(body)
