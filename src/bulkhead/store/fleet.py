"""A fleet's records over its store: itself, hosts, places, invitations. Each method is one transaction.

The names of kinds and keys are listed in docs/design/0027-fleet.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.errors import Conflict, NotFound, Unauthorized
from bulkhead.fleet import Fleet, Host, Invitation, Phase, Place, Replica
from bulkhead.store import overlays
from bulkhead.store.base import Reader, Store, Transaction
from bulkhead.store.following import Following
from bulkhead.store.records import Records, near
from bulkhead.store.seen import ALIVE, SELF, SOLD, Seen, Sold, parse_sold
from bulkhead.store.state import within

NAME, WILL = "place-name", "will"
NOT_GOOD = "this token to join is not good: it was used, it has expired, or it never was one"


class FleetState:
    """The records over a store that all hosts share."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.following: Following | None = None
        """The records as a watch keeps them, where somebody has begun one."""
        self._fleet = Records("fleet", Fleet, lambda _: SELF)
        self._hosts = Records("host", Host, lambda host: host.id)
        self._places = Records("place", Place, lambda place: place.id)
        self._invitations: Records[Invitation] = Records("invitation", Invitation, lambda _: "")

    # --- the fleet and its hosts

    def found(self, fleet: Fleet, host: Host) -> None:
        """The first host makes the fleet. Raises Conflict where there is one."""

        def body(transaction: Transaction) -> None:
            if not self._fleet.insert(transaction, fleet):
                there = self.fleet_in(transaction)
                raise Conflict(
                    f"there is a fleet already: {there.name}",
                    hint="join it: bulkhead cluster invite on one of its hosts, or give another --prefix",
                )
            self._hosts.put(transaction, host)

        self.store.attempt(body)

    def fleet(self) -> Fleet:
        """Raises NotFound where there is none (any more)."""
        with self.store.read() as reader:
            return self.fleet_in(reader)

    def fleet_in(self, reader: Reader) -> Fleet:
        """The same within a view."""
        found = self._fleet.get(reader, SELF)
        if found is None:
            raise NotFound("there is no such fleet in this store", hint="bulkhead cluster init makes one")
        return found

    def invite(self, secret_hash: str, invitation: Invitation) -> None:
        """Keep an invitation."""
        text = invitation.model_dump_json()
        self.store.attempt(lambda transaction: transaction.put(self._invitations.kind, secret_hash, text))

    def join(self, secret_hash: str, host: Host, *, now: float) -> None:
        """Take a host in, and its invitation out. Raises Unauthorized, Conflict where its name or address is taken."""

        def body(transaction: Transaction) -> None:
            invitation = self._invitations.get(transaction, secret_hash)
            if invitation is None or invitation.until <= now:
                raise Unauthorized(NOT_GOOD, hint="make another: bulkhead cluster invite")
            for other in self._hosts.all(transaction):
                if other.name == host.name:
                    raise Conflict(f"there is a host {host.name} already", hint="give another --name")
                if other.address == host.address:
                    raise Conflict(f"host {other.name} has the address {host.address}", hint="give another --address")
            if not self._hosts.insert(transaction, host):  # its certificate would be another host's
                raise Conflict(f"there is a host with id {host.id} already", hint="try again")
            transaction.delete(self._invitations.kind, secret_hash)

        self.store.attempt(body)

    def leave(self, host_id: str, *, hint: str = "move or remove them") -> None:
        """Forget a host. Idempotent. Raises Conflict, with this hint, where something is placed there."""

        def body(transaction: Transaction) -> None:
            there = [place for place in self._places.all(transaction) if place.host == host_id]
            if there:
                names = ", ".join(sorted(place.name for place in there)[:5])
                raise Conflict(f"{len(there)} instances are placed on this host: {names}", hint=hint)
            self._hosts.delete(transaction, host_id)
            transaction.delete(SOLD, host_id)
            transaction.delete(ALIVE, host_id)
            overlays.withdraw(transaction, host_id)
            transaction.delete("life", host_id)
            for key, _ in transaction.list("remains", f"{host_id}/"):
                transaction.delete("remains", key)
            if not self._hosts.all(transaction):  # the last one takes the fleet with it
                self._fleet.delete(transaction, SELF)

        self.store.attempt(body)

    def hosts(self) -> list[Host]:
        """Every host, by name."""
        with self.store.read() as reader:
            return sorted(self._hosts.all(reader), key=lambda host: host.name)

    def host(self, reference: str) -> Host:
        """By name, id, or the beginning of an id. Raises NotFound with names that look alike, Conflict."""
        return pick_host(self.hosts(), reference)

    def change_host(self, host_id: str, change: Callable[[Host], Host]) -> Host:
        """Write a host anew. Raises NotFound where it has left."""

        def body(transaction: Transaction) -> Host:
            host = self._hosts.get(transaction, host_id)
            if host is None:
                raise NotFound(f"host {host_id} is not in the fleet any more")
            changed = change(host)
            if changed != host:
                self._hosts.put(transaction, changed)
                add_sold(transaction, host_id, NOTHING, 0)  # what was judged by the host as it was is stale
            return changed

        return self.store.attempt(body)

    def change_fleet(self, **changes: object) -> Fleet:
        """Write the fleet's own record anew. Raises NotFound."""

        def body(transaction: Transaction) -> Fleet:
            changed = self.fleet_in(transaction).model_copy(update=changes)
            self._fleet.put(transaction, changed)
            return changed

        return self.store.attempt(body)

    def seen(self, *, stale: bool = False) -> Seen:
        """All of it as of one moment, as it is now; `stale`: as one member of the store knows it."""
        if self.following is not None and not stale and (found := self.following.seen()) is not None:
            return found
        return self.read_all(stale=stale)

    def read_all(self, *, stale: bool = False) -> Seen:
        """The same, of the store."""
        with self.store.read(stale=stale) as reader:
            return Seen(
                hosts=tuple(sorted(self._hosts.all(reader), key=lambda host: host.name)),
                alive=frozenset(key for key, _ in reader.list(ALIVE)),
                sold={key: parse_sold(text) for key, text in reader.list(SOLD)},
                places=tuple(self._places.all(reader)),
                fleet=self._fleet.get(reader, SELF),
            )

    # --- places

    def seen_sold(self, host_id: str) -> Sold:
        """What is sold on a host."""
        with self.store.read() as reader:
            return parse_sold(reader.get(SOLD, host_id))

    def reserve(self, place: Place, *, scored: int, whole: Mapping[str, int] | None = None) -> Place:
        """Take a place on a host whose sum has the version that was scored; with `whole` where those of all hosts
        (by id) are what they were. It has its address then, where it is on a network of the fleet. Raises Stale where
        something has changed, Conflict where the name is taken, Occupied, NotFound where the host has left.
        """

        def body(transaction: Transaction) -> Place:
            before = parse_sold(transaction.get(SOLD, place.host))
            if before.version != scored:
                raise Stale(f"host {place.host} has sold something else meanwhile")
            if whole is not None and whole != {key: parse_sold(text).version for key, text in transaction.list(SOLD)}:
                raise Stale("other hosts have sold something else meanwhile")
            if self._hosts.get(transaction, place.host) is None:
                raise NotFound(f"host {place.host} is not in the fleet any more")
            if not transaction.insert(NAME, place.key, f'"{place.id}"'):
                raise Conflict(f"the name {place.name} is taken by another instance", hint="choose another --name")
            made = overlays.take(transaction, place)
            if not self._places.insert(transaction, made):
                raise Conflict(f"there is an instance with id {place.id} already")
            add_sold(transaction, place.host, Amounts(**place.amounts), 1)
            return made

        return self.store.attempt(body)

    def confirm(self, instance_id: str) -> None:
        """What was reserved is there. Raises NotFound where the reservation has been dropped."""

        def body(transaction: Transaction) -> None:
            place = self._place(transaction, instance_id)
            self._places.put(transaction, place.model_copy(update={"phase": Phase.PLACED, "until": 0.0}))

        self.store.attempt(body)

    def release(self, instance_id: str, *, host: str | None = None) -> bool:
        """Forget a place; with `host` only where it is that host's. False where there was none. Idempotent."""

        def body(transaction: Transaction) -> bool:
            place = self._places.get(transaction, instance_id)
            if place is None or host not in (None, place.host):
                return False
            self._places.delete(transaction, instance_id)
            overlays.free(transaction, place)
            transaction.delete(NAME, place.key)
            if transaction.get(WILL, instance_id) is not None:
                transaction.delete(WILL, instance_id)
            drop_replica(transaction, instance_id)
            add_sold(transaction, place.host, NOTHING - Amounts(**place.amounts), -1)
            return True

        return self.store.attempt(body)

    def resize(self, instance_id: str, amounts: Amounts) -> None:
        """An instance has another plan. Fine where it has no place."""

        def body(transaction: Transaction) -> None:
            place = self._places.get(transaction, instance_id)
            if place is not None and (was := Amounts(**place.amounts)) != amounts:
                self._places.put(transaction, place.model_copy(update={"amounts": amounts.as_dict()}))
                add_sold(transaction, place.host, amounts - was, 0)

        self.store.attempt(body)

    def adopt(self, place: Place) -> bool:
        """Record what a host has made without the fleet; False where the name is another's. Idempotent."""

        def body(transaction: Transaction) -> bool:
            there = self._places.get(transaction, place.id)
            if there is not None:
                return there.host == place.host
            if not transaction.insert(NAME, place.key, f'"{place.id}"'):
                return False
            self._places.put(transaction, overlays.take(transaction, place))
            add_sold(transaction, place.host, Amounts(**place.amounts), 1)
            return True

        return self.store.attempt(body)

    def find(self, reference: str, *, tenant: str | None) -> Place | None:
        """The place of an instance by name, id, or the beginning of an id; None where there is none.

        With `tenant` one of that tenant's alone; without, names are the default tenant's, or TENANT@NAME. Raises
        Conflict where several ids begin so.
        """
        with self.store.read() as reader:
            named = reader.get(NAME, within(tenant, reference))
            if named is not None:
                return self._places.get(reader, named.strip('"'))
            if len(reference) < 4 or not set(reference) <= set("0123456789abcdef"):
                return None
            keys = [key for key, _ in reader.list("place", reference)]
            found = [place for key in keys if (place := self._places.get(reader, key))]
        found = [place for place in found if tenant in (None, place.tenant)]
        if len(found) > 1:
            raise Conflict(f"{reference} is the beginning of {len(found)} ids", hint="give more of it")
        return found[0] if found else None

    def _place(self, reader: Reader, instance_id: str) -> Place:
        found = self._places.get(reader, instance_id)
        if found is None:
            raise NotFound(f"instance {instance_id} has no place in the fleet (any more)")
        return found


__all__ = ["ALIVE", "SELF", "SOLD", "FleetState", "Seen", "Sold", "Stale", "add_sold", "pick_host"]


class Stale(Conflict):
    """What was judged by is not so any more: judge again."""

    kind = "stale"


def pick_host(hosts: list[Host], reference: str) -> Host:
    """The host that a user means. Raises NotFound with names that look alike, Conflict."""
    for host in hosts:
        if reference in (host.name, host.id):
            return host
    begun = [host for host in hosts if len(reference) >= 4 and host.id.startswith(reference)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise Conflict(f"{reference} is the beginning of {len(begun)} hosts' ids", hint="give more of it")
    hint = near(reference, [host.name for host in hosts]) or "see: bulkhead host ls"
    raise NotFound(f"no such host: {reference}", hint=hint)


def read_sold(reader: Reader, host: str) -> Sold:
    """What is sold on a host."""
    return parse_sold(reader.get(SOLD, host))


def add_sold(transaction: Transaction, host: str, change: Amounts, places: int) -> None:
    """In a transaction: a host has sold so much more, for so many more places; less where it is below zero."""
    before = parse_sold(transaction.get(SOLD, host))
    after = {"amounts": (before.amounts + change).as_dict(), "places": before.places + places}
    transaction.put(SOLD, host, json.dumps({**after, "version": before.version + 1}))


def drop_replica(transaction: Transaction, instance_id: str) -> None:
    """In a transaction: an instance has no replica any more, and its host not its room. Fine where it has none."""
    text = transaction.get("replica", instance_id)
    if text is None:
        return
    replica = Replica.model_validate_json(text)
    transaction.delete("replica", instance_id)
    if transaction.get("host", replica.host) is not None:
        add_sold(transaction, replica.host, NOTHING - Amounts(**replica.amounts), 0)
