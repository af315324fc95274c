"""The fleet's records of replicas: where the copy of an instance's disk is, and of when. Each function is one
transaction. A replica's disk counts as sold on its host. See design 0032.
"""

from __future__ import annotations

from bulkhead.amounts import Amounts
from bulkhead.errors import Conflict
from bulkhead.fleet import Phase, Place, Replica
from bulkhead.store.base import Transaction
from bulkhead.store.fleet import FleetState, Stale, add_sold, drop_replica, read_sold
from bulkhead.store.records import Records

_PLACES = Records("place", Place, lambda place: place.id)
_REPLICAS = Records("replica", Replica, lambda replica: replica.id)


def of(state: FleetState, instance_id: str) -> Replica | None:
    """That of an instance; None where it has none."""
    with state.store.read() as reader:
        return _REPLICAS.get(reader, instance_id)


def all_of(state: FleetState) -> dict[str, Replica]:
    """Every one, by the instance's id."""
    with state.store.read() as reader:
        return {replica.id: replica for replica in _REPLICAS.all(reader)}


def choose(state: FleetState, replica: Replica, *, source: str, scored: int) -> None:
    """A replica of an instance of `source` is to be there, in place of an earlier one.

    Raises Stale where its host has sold something else than was judged by, Conflict where the instance is not there.
    """

    def body(transaction: Transaction) -> None:
        place = _PLACES.get(transaction, replica.id)
        if place is None or (place.host, place.phase) != (source, Phase.PLACED):
            raise Conflict(f"{replica.name} is not on that host any more")
        if read_sold(transaction, replica.host).version != scored:
            raise Stale(f"host {replica.host} has sold something else meanwhile")
        drop_replica(transaction, replica.id)
        add_sold(transaction, replica.host, Amounts(**replica.amounts), 0)
        _REPLICAS.put(transaction, replica)

    state.store.attempt(body)


def tell(state: FleetState, replica: Replica, *, at: float | None = None, problem: str = "") -> bool:
    """It is of that time (seconds since the epoch) now, or cannot be made anew; False where it has gone elsewhere."""

    def body(transaction: Transaction) -> bool:
        there = _REPLICAS.get(transaction, replica.id)
        if there is None or there.host != replica.host:
            return False
        changed = there.model_copy(update={"problem": problem, "at": there.at if at is None else at})
        if changed != there:
            _REPLICAS.put(transaction, changed)
        return True

    return state.store.attempt(body)


def drop(state: FleetState, instance_id: str) -> None:
    """There is none any more. Idempotent."""
    state.store.attempt(lambda transaction: drop_replica(transaction, instance_id))
