"""The fleet's records for the loss of a host: what is to become of its instances, and who has taken them. See design
0032. Each function is one transaction.

`will` (instance id) says what to start elsewhere; `life` (host id) changes with each lease that a host lives by, and
stays when the lease has ended; `loss` (host id) says who takes over, under that one's own lease; `remains` (HOST/ID)
says that a host may have a copy of what is another's by now.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.errors import Conflict, HostError
from bulkhead.fleet import Host, Phase, Place, Will
from bulkhead.model import Spec
from bulkhead.store.abilities import Lease, Leases
from bulkhead.store.base import Reader, Transaction
from bulkhead.store.fleet import FleetState, Stale, add_sold, read_sold
from bulkhead.store.records import Records
from bulkhead.store.seen import ALIVE

LIFE, LOSS, REMAINS = "life", "loss", "remains"
_PLACES = Records("place", Place, lambda place: place.id)
_HOSTS = Records("host", Host, lambda host: host.id)
_WILLS = Records("will", Will, lambda will: will.spec.id)
RUNNABLE = (Phase.RESERVED, Phase.PLACED, Phase.RECOVERING)
"""Phases of a place whose host may run the instance."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A host that is not heard of, and the life that it led last."""

    host: Host
    life: str


# --- a host that lives


def appear(state: FleetState, host: str, value: str, lease: Lease) -> None:
    """A host lives, by a new lease. Raises HostError where the store has none, Unavailable."""
    store, life = state.store, json.dumps(secrets.token_hex(16))
    if not isinstance(store, Leases):
        raise HostError("this store has no leases")
    leases = store

    def body(transaction: Transaction) -> None:
        leases.put_leased(transaction, ALIVE, host, value, lease=lease)
        transaction.put(LIFE, host, life)

    store.attempt(body)


def begin_run(state: FleetState, spec: Spec, *, host: str) -> None:
    """An instance of `host` is about to run there, and to be started elsewhere when that is lost.

    Raises Conflict where it is not that host's (any more).
    """

    def body(transaction: Transaction) -> None:
        place = _PLACES.get(transaction, spec.id)
        if place is None or place.host != host or place.phase not in RUNNABLE:
            where = "nowhere" if place is None else _name(transaction, place.host)
            what = f"{spec.name} is not this host's any more: the fleet has it {where}"
            raise Conflict(what, hint="see bulkhead ps")
        _write(transaction, spec, runs=True)

    state.store.attempt(body)


def note(state: FleetState, spec: Spec, *, host: str, runs: bool) -> bool:
    """What becomes of an instance of `host` is changed; False where it is not settled there, or has no will."""

    def body(transaction: Transaction) -> bool:
        place, will = _PLACES.get(transaction, spec.id), _WILLS.get(transaction, spec.id)
        if will is None or place is None or (place.host, place.phase) != (host, Phase.PLACED):
            return False
        _write(transaction, spec, runs=runs)
        return True

    return state.store.attempt(body)


def _write(transaction: Transaction, spec: Spec, *, runs: bool) -> None:
    before = _WILLS.get(transaction, spec.id)
    after = (before or Will(spec=spec)).model_copy(update={"spec": spec, "runs": runs, "problem": ""})
    if after != before:
        _WILLS.put(transaction, after)


def _name(reader: Reader, host_id: str) -> str:
    host = _HOSTS.get(reader, host_id)
    return f"on host {host.name}" if host else "on a host that has left"


# --- a host that is lost


def absent(state: FleetState, *, but: str) -> list[Absent]:
    """The hosts that are not heard of."""
    with state.store.read() as reader:
        alive, lives = {key for key, _ in reader.list(ALIVE)}, dict(reader.list(LIFE))
        hosts = [host for host in _HOSTS.all(reader) if host.id not in alive and host.id != but]
        return [Absent(host, lives[host.id]) for host in hosts if host.id in lives]


def all_of(state: FleetState) -> dict[str, Will]:
    """Every will, by the instance's id."""
    with state.store.read() as reader:
        return {will.spec.id: will for will in _WILLS.all(reader)}


def of(state: FleetState, instance_id: str) -> Will | None:
    """What is to become of an instance; None where nothing is."""
    with state.store.read() as reader:
        return _WILLS.get(reader, instance_id)


def claim(state: FleetState, lost: str, *, by: str, lease: Lease) -> bool:
    """Be the one that sees to a lost host; False where another does, which lives."""
    store = state.store
    if not isinstance(store, Leases):
        raise HostError("this store has no leases")
    leases = store

    def body(transaction: Transaction) -> bool:
        there = transaction.get(LOSS, lost)
        if there is None:
            leases.put_leased(transaction, LOSS, lost, json.dumps(by), lease=lease)
        return there in (None, json.dumps(by))

    return store.attempt(body)


@dataclass(frozen=True, slots=True)
class Taking:
    """What is decided of an instance of a lost host."""

    lost: Absent
    target: str
    scored: int
    """The version of what is sold on the target that it was judged by."""
    amounts: Amounts
    """What it takes there."""
    unheard: float
    """Seconds for which the lost host had not been heard of."""


def take(state: FleetState, instance_id: str, taking: Taking) -> Place:
    """An instance of a lost host is the target's from here on, which is to start it.

    Raises Stale where the lost host lives, the target does not, or either has changed; Conflict where there is nothing
    to take.
    """

    def body(transaction: Transaction) -> Place:
        lost = taking.lost
        if transaction.get(ALIVE, lost.host.id) is not None or transaction.get(LIFE, lost.host.id) != lost.life:
            raise Stale(f"host {lost.host.name} lives")
        if transaction.get(ALIVE, taking.target) is None or _HOSTS.get(transaction, taking.target) is None:
            raise Stale(f"host {taking.target} does not live")
        if read_sold(transaction, taking.target).version != taking.scored:
            raise Stale(f"host {taking.target} has sold something else meanwhile")
        place, will = _PLACES.get(transaction, instance_id), _WILLS.get(transaction, instance_id)
        if place is None or will is None or not will.runs or place.host != lost.host.id:
            raise Conflict(f"instance {instance_id} is not to be taken from host {lost.host.name}")
        taken = place.model_copy(
            update={
                "host": taking.target,
                "generation": place.generation + 1,
                "phase": Phase.RECOVERING,
                "amounts": taking.amounts.as_dict(),
                "target": None,
                "move": None,
                "until": 0.0,
                "by": None,
            }
        )
        add_sold(transaction, lost.host.id, NOTHING - Amounts(**place.amounts), -1)
        add_sold(transaction, taking.target, taking.amounts, 1)
        _PLACES.put(transaction, taken)
        _WILLS.put(transaction, will.model_copy(update=_told(taking)))
        transaction.put(REMAINS, f"{lost.host.id}/{instance_id}", json.dumps(taking.target))
        return taken

    return state.store.attempt(body)


@dataclass(frozen=True, slots=True)
class Passing:
    """Where an instance goes that its host cannot start in the lost one's place."""

    target: str
    scored: int
    """The version of what is sold on the target that it was judged by."""
    amounts: Amounts
    """What it takes there."""


def pass_on(
    state: FleetState, instance_id: str, passing: Passing | None, *, by: str, refused: Mapping[str, str]
) -> bool:
    """What `by` was to start in a lost host's place goes to another host; with None it stays where it is. `refused`:
    what hosts (names) have said so far. False where it is not to be started by that host any more.

    Raises Stale where what was judged by has changed.
    """

    def body(transaction: Transaction) -> bool:
        place, will = _PLACES.get(transaction, instance_id), _WILLS.get(transaction, instance_id)
        if place is None or will is None or (place.host, place.phase) != (by, Phase.RECOVERING):
            return False
        problem = "; ".join(f"host {name}: {why}" for name, why in refused.items())
        told = will.model_copy(update={"refused": dict(refused) if passing else {}, "problem": problem})
        if told != will:
            _WILLS.put(transaction, told)
        if passing is None:
            return True
        if transaction.get(ALIVE, passing.target) is None or _HOSTS.get(transaction, passing.target) is None:
            raise Stale(f"host {passing.target} does not live")
        if read_sold(transaction, passing.target).version != passing.scored:
            raise Stale(f"host {passing.target} has sold something else meanwhile")
        add_sold(transaction, by, NOTHING - Amounts(**place.amounts), -1)
        add_sold(transaction, passing.target, passing.amounts, 1)
        changes = {"host": passing.target, "generation": place.generation + 1, "amounts": passing.amounts.as_dict()}
        _PLACES.put(transaction, place.model_copy(update=changes))
        # What has come of it there, if anything, is erased as what a lost host has.
        transaction.put(REMAINS, f"{by}/{instance_id}", json.dumps(passing.target))
        return True

    return state.store.attempt(body)


def _told(taking: Taking) -> dict[str, object]:
    return {"lost": taking.lost.host.name, "unheard": taking.unheard, "problem": "", "refused": {}}


def tell(state: FleetState, instance_id: str, problem: str) -> bool:
    """Say why an instance is not started elsewhere (yet); False where that is said already, or it has no will."""

    def body(transaction: Transaction) -> bool:
        will = _WILLS.get(transaction, instance_id)
        if will is None or will.problem == problem:
            return False
        _WILLS.put(transaction, will.model_copy(update={"problem": problem}))
        return True

    return state.store.attempt(body)


# --- a host that returns


def remains(state: FleetState, host: str) -> Mapping[str, str]:
    """Ids of the instances that were taken from a host, which may still have copies, with the hosts that took them."""
    with state.store.read() as reader:
        return {key.partition("/")[2]: text.strip('"') for key, text in reader.list(REMAINS, f"{host}/")}


def all_remains(state: FleetState) -> dict[tuple[str, str], str]:
    """Of every host: by its id and the instance's, the id of the host that took that."""
    with state.store.read() as reader:
        found = [(key.partition("/"), text) for key, text in reader.list(REMAINS)]
    return {(host, instance): str(json.loads(text)) for (host, _, instance), text in found}


def forget_remains(state: FleetState, host: str, instance_id: str) -> None:
    """Its copy there is gone. Idempotent."""
    state.store.attempt(lambda transaction: transaction.delete(REMAINS, f"{host}/{instance_id}"))
