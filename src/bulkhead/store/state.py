"""What the engine knows: instances with their names and leases, plans, networks, volumes, events.

Nothing is kept in memory that is not in the store. Each method is one transaction; `atomic` makes one of several.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.errors import Conflict, NoInstance, NotFound
from bulkhead.events import Event
from bulkhead.model import Instance, NamedPlan, Network, Snapshot, Spec, Volume
from bulkhead.operation import Operation
from bulkhead.store import leases, sold
from bulkhead.store.base import Reader, Store, Transaction
from bulkhead.store.records import Records, near
from bulkhead.tenancy.names import SEPARATOR, qualified

INSTANCE_NAME = "instance-name"
PUBLIC_IMAGE = "public-image"
_SHORT = re.compile(r"^[0-9a-f]{4,32}$")
"""The beginning of an id."""
Scale = Callable[[Spec], Amounts]
"""What an instance takes of the host, whether it runs or not."""
Named = TypeVar("Named", bound=BaseModel)


def weightless(_: Spec) -> Amounts:
    """The scale of those who sell nothing."""
    return NOTHING


class State:
    """The records over a Store. `uid_base` is where the uid ranges of instances begin (Config.uid_base).

    With every change of an instance, a volume or a snapshot the sum of what is sold changes, in the same transaction.
    """

    def __init__(self, store: Store, *, uid_base: int, scale: Scale = weightless) -> None:
        self._store = store
        self._uid_base = uid_base
        self._scale = scale
        self._open = threading.local()
        self._instances = Records("instance", Instance, lambda instance: instance.spec.id)
        self._plans = Records("plan", NamedPlan, lambda plan: plan.name)
        self._networks = Records("network", Network, lambda network: network.key)
        self._volumes = Records("volume", Volume, lambda volume: volume.key)
        self._operations = Records("operation", Operation, lambda operation: operation.id)
        self._snapshots = Records("snapshot", Snapshot, _key)

    @contextmanager
    def atomic(self) -> Iterator[Transaction]:
        """Several calls as one transaction: all of them, or with an exception none. May be nested."""
        opened: Transaction | None = getattr(self._open, "transaction", None)
        if opened is not None:
            yield opened
            return
        with self._store.transaction() as transaction:
            self._open.transaction = transaction
            try:
                yield transaction
            finally:
                del self._open.transaction

    # --- instances

    def reserve_instance(self, instance: Instance, *, uid_range: bool = False) -> Instance:
        """Record a new instance under its id and name, and with `uid_range` lease it a range of uids.

        Returns the instance as recorded (`uid_start` set). Raises Conflict where the name is taken.
        """
        spec = instance.spec
        with self.atomic() as transaction:
            if not transaction.insert(INSTANCE_NAME, spec.key, f'"{spec.id}"'):
                raise Conflict(
                    f"the name {spec.name} is taken by another instance",
                    hint=f"choose another --name, or: bulkhead rm {spec.name}",
                )
            if uid_range:
                start = leases.take_uid_range(transaction, spec.id, base=self._uid_base)
                instance = instance.model_copy(update={"uid_start": start})
            if not self._instances.insert(transaction, instance):
                raise Conflict(f"an instance with id {spec.id} exists")
            sold.add(transaction, self._scale(spec))
            return instance

    def save(self, instance: Instance) -> None:
        """Write an instance's record. Raises NotFound where it has been removed, so that nothing brings it back."""
        with self.atomic() as transaction:
            before = self._instances.get(transaction, instance.spec.id)
            if before is None:
                raise NotFound(f"instance {instance.spec.name} ({instance.spec.id[:12]}) has been removed")
            self._instances.put(transaction, instance)
            if before.spec is not instance.spec and (was := self._scale(before.spec)) != self._scale(instance.spec):
                claimed = sold.claimed(transaction, instance.spec.id)
                change = self._scale(instance.spec).at_least(claimed) - was.at_least(claimed)
                sold.add(transaction, change)

    def remove(self, instance_id: str) -> None:
        """Forget an instance with its name and its leases. Idempotent."""
        with self.atomic() as transaction:
            instance = self._instances.get(transaction, instance_id)
            if instance is not None:
                self.drop_claim(instance_id)
                sold.add(transaction, NOTHING - self._scale(instance.spec))
                transaction.delete(INSTANCE_NAME, instance.spec.key)
                self._instances.delete(transaction, instance_id)
            leases.drop(transaction, instance_id)

    def get(self, instance_id: str) -> Instance:
        """The instance with this whole id. Raises NotFound."""
        with self._reader() as reader:
            instance = self._instances.get(reader, instance_id)
        if instance is None:
            raise NoInstance(f"no instance has the id {instance_id}", hint="see: bulkhead ps -a")
        return instance

    def find(self, reference: str, *, tenant: str | None = None) -> Instance:
        """The instance that a user means by an id, a name, or the beginning of an id, tried in this order.

        With `tenant` it is one of that tenant's: any other is as if it were not there. Without, names are the default
        tenant's, or TENANT@NAME. Raises NotFound with names that look alike, Conflict where several ids begin so.
        """
        with self._reader() as reader:
            instance = self._instances.get(reader, reference) or self._by_name(reader, within(tenant, reference))
            if instance is not None and tenant in (None, instance.spec.tenant):
                return instance
            if _SHORT.match(reference):
                begun = [self._instances.get(reader, key) for key, _ in reader.list(self._instances.kind, reference)]
                found = [one for one in begun if one and tenant in (None, one.spec.tenant)]
                if len(found) == 1:
                    return found[0]
                if found:
                    ids = ", ".join(one.spec.id[:12] for one in found[:5])
                    raise Conflict(f"{reference} is the beginning of {len(found)} ids: {ids}", hint="give more of it")
            names = names_of([name for name, _ in reader.list(INSTANCE_NAME)], tenant)
        raise NoInstance(f"no such instance: {reference}", hint=near(reference, names) or "see: bulkhead ps -a")

    def instances(self) -> list[Instance]:
        """Every instance, the oldest first."""
        with self._reader() as reader:
            found = self._instances.all(reader)
        return sorted(found, key=lambda instance: (instance.spec.created, instance.spec.id))

    # --- leases

    def lease_uid_range(self, instance_id: str) -> int:
        """First uid of a range of 65,536 that is the instance's alone; the one it has already, where it has one."""
        with self.atomic() as transaction:
            return leases.take_uid_range(transaction, instance_id, base=self._uid_base)

    # --- what is sold

    def sold(self) -> Amounts:
        """What instances, volumes and snapshots take."""
        with self._reader() as reader:
            return sold.total(reader)

    def claim(self, instance: Instance, amounts: Amounts) -> None:
        """Let an instance count at least so much until `drop_claim`, whatever its record comes to say."""
        with self.atomic() as transaction:
            before = self._counted(transaction, instance)
            sold.claim(transaction, instance.spec.id, amounts)
            sold.add(transaction, self._counted(transaction, instance) - before)

    def drop_claim(self, instance_id: str) -> None:
        """Let an instance count what its record says. Idempotent."""
        with self.atomic() as transaction:
            instance = self._instances.get(transaction, instance_id)
            if instance is not None:
                before = self._counted(transaction, instance)
                sold.add(transaction, self._scale(instance.spec) - before)
            sold.drop_claim(transaction, instance_id)

    def drop_claims(self) -> None:
        """Let every instance count what its record says."""
        with self.atomic() as transaction:
            for instance_id in sold.claims(transaction):
                self.drop_claim(instance_id)

    def counted(self, instance: Instance) -> Amounts:
        """What an instance takes of the sum now."""
        with self._reader() as reader:
            return self._counted(reader, instance)

    def count_again(self) -> bool:
        """Make the sum anew of the records: a host that changed weighs them otherwise. Whether it was another."""
        with self.atomic() as transaction:
            files = sum(volume.size for volume in self._volumes.all(transaction))
            files += sum(snapshot.size for snapshot in self._snapshots.all(transaction))
            counted = (self._counted(transaction, instance) for instance in self._instances.all(transaction))
            return sold.replace(transaction, sum(counted, Amounts(disk=files)))

    # --- plans, networks, volumes

    def plans(self) -> list[NamedPlan]:
        """Every named plan, by name."""
        return self._all(self._plans)

    def plan(self, name: str) -> NamedPlan:
        """Raises NotFound with names that look alike."""
        return self._named(self._plans, name)

    def create_plan(self, plan: NamedPlan) -> None:
        """Raises Conflict where the name is taken."""
        self._create(self._plans, plan, plan.name)

    def save_plan(self, plan: NamedPlan) -> None:
        """Write a plan, in place of the one with that name."""
        with self.atomic() as transaction:
            self._plans.put(transaction, plan)

    def delete_plan(self, name: str) -> bool:
        """Forget a plan; False where there was none."""
        return self._delete(self._plans, name)

    def networks(self, tenant: str | None = None) -> list[Network]:
        """Every network, or those of a tenant, by name."""
        return [one for one in self._all(self._networks) if tenant in (None, one.tenant)]

    def network(self, key: str, *, tenant: str | None = None) -> Network:
        """The network with this name of the tenant; without one by `Network.key`. Raises NotFound with names that
        look alike."""
        return self._named(self._networks, key, tenant)

    def create_network(self, network: Network) -> None:
        """Raises Conflict where the name is taken."""
        self._create(self._networks, network, network.name)

    def delete_network(self, key: str) -> bool:
        """Forget a network, by `Network.key`; False where there was none."""
        return self._delete(self._networks, key)

    def volumes(self, tenant: str | None = None) -> list[Volume]:
        """Every volume, or those of a tenant, by name."""
        return [one for one in self._all(self._volumes) if tenant in (None, one.tenant)]

    def volume(self, key: str, *, tenant: str | None = None) -> Volume:
        """The volume with this name of the tenant; without one by `Volume.key`. Raises NotFound with names that look
        alike."""
        return self._named(self._volumes, key, tenant)

    def create_volume(self, volume: Volume) -> None:
        """Raises Conflict where the name is taken."""
        with self.atomic() as transaction:
            self._create(self._volumes, volume, volume.name)
            sold.add(transaction, Amounts(disk=volume.size))

    def delete_volume(self, key: str) -> bool:
        """Forget a volume, by `Volume.key`; False where there was none."""
        with self.atomic() as transaction:
            volume = self._volumes.get(transaction, key)
            if volume is not None:
                sold.add(transaction, NOTHING - Amounts(disk=volume.size))
            return self._delete(self._volumes, key)

    # --- snapshots

    def snapshots(self, instance_id: str = "") -> list[Snapshot]:
        """Every snapshot, or those of one instance, the oldest first; also those that are being made or removed."""
        found = [one for one in self._all(self._snapshots) if instance_id in ("", one.spec.id)]
        return sorted(found, key=lambda one: (one.created, one.id))

    def create_snapshot(self, snapshot: Snapshot) -> None:
        """Raises Conflict where its instance has one of that name."""
        with self.atomic() as transaction:
            if not self._snapshots.insert(transaction, snapshot):
                hint = f"choose another name, or: bulkhead snapshot rm {snapshot.reference}"
                raise Conflict(f"snapshot {snapshot.reference} exists", hint=hint)
            sold.add(transaction, Amounts(disk=snapshot.size))

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Write a snapshot's record, in place of the one with that name."""
        with self.atomic() as transaction:
            before = self._snapshots.get(transaction, _key(snapshot))
            self._snapshots.put(transaction, snapshot)
            change = Amounts(disk=snapshot.size) - Amounts(disk=before.size if before else 0)
            sold.add(transaction, change)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a snapshot. Idempotent."""
        with self.atomic() as transaction:
            before = self._snapshots.get(transaction, _key(snapshot))
            if before is not None:
                self._snapshots.delete(transaction, _key(snapshot))
                sold.add(transaction, NOTHING - Amounts(disk=before.size))

    # --- operations

    def operations(self) -> list[Operation]:
        """Every operation that is remembered, the oldest first."""
        return sorted(self._all(self._operations), key=lambda one: (one.created, one.id))

    def operation(self, operation_id: str) -> Operation | None:
        """One of them; None where nothing has that id."""
        with self._reader() as reader:
            return self._operations.get(reader, operation_id)

    def save_operation(self, operation: Operation) -> None:
        """Write an operation's record, in place of the one with that id."""
        with self.atomic() as transaction:
            self._operations.put(transaction, operation)

    def delete_operation(self, operation_id: str) -> bool:
        """Forget an operation; False where there was none."""
        return self._delete(self._operations, operation_id)

    # --- events and the store itself

    def append_event(self, event: Event) -> None:
        """Keep an event (an EventSink)."""
        self._store.append_event(event)

    def events(self, *, since: float = 0.0, until: float | None = None, after: int = 0) -> Iterator[Event]:
        """Kept events with since <= when < until and a number above `after`, the oldest first."""
        return self._store.events(since=since, until=until, after=after)

    def check(self) -> list[str]:
        """What is damaged in the store, in words."""
        return self._store.check()

    def close(self) -> None:
        """Let go of the store; idempotent."""
        self._store.close()

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Several reads as of one moment; within `atomic` of what it has changed so far."""
        with self._reader() as reader:
            yield reader

    def public_images(self) -> frozenset[str]:
        """Names of the default tenant's images that every tenant may see."""
        with self._reader() as reader:
            return frozenset(key for key, _ in reader.list(PUBLIC_IMAGE))

    def publish_image(self, name: str, *, public: bool) -> None:
        """Let every tenant see the image of this name, or no longer. Idempotent."""
        with self.atomic() as transaction:
            if public:
                transaction.put(PUBLIC_IMAGE, name, "true")
            else:
                transaction.delete(PUBLIC_IMAGE, name)

    # --- inside

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        opened: Transaction | None = getattr(self._open, "transaction", None)
        if opened is not None:
            yield opened
        else:
            with self._store.read() as reader:
                yield reader

    def _counted(self, reader: Reader, instance: Instance) -> Amounts:
        return self._scale(instance.spec).at_least(sold.claimed(reader, instance.spec.id))

    def _by_name(self, reader: Reader, name: str) -> Instance | None:
        text = reader.get(INSTANCE_NAME, name)
        return None if text is None else self._instances.get(reader, text.strip('"'))

    def _all(self, records: Records[Named]) -> list[Named]:
        with self._reader() as reader:
            return records.all(reader)

    def _named(self, records: Records[Named], name: str, tenant: str | None = None) -> Named:
        with self._reader() as reader:
            record = records.get(reader, within(tenant, name))
            if record is not None:
                return record
            names = names_of([key for key, _ in reader.list(records.kind)], tenant)
        hint = near(name, names) or f"see: bulkhead {records.kind} ls"
        raise NotFound(f"no such {records.kind}: {name}", hint=hint)

    def _create(self, records: Records[Named], record: Named, name: str) -> None:
        with self.atomic() as transaction:
            if not records.insert(transaction, record):
                raise Conflict(
                    f"{records.kind} {name} exists", hint=f"choose another name, or: bulkhead {records.kind} rm {name}"
                )

    def _delete(self, records: Records[Named], name: str) -> bool:
        with self.atomic() as transaction:
            return records.delete(transaction, name)


def within(tenant: str | None, name: str) -> str:
    """The key of what a user calls `name`. Who sees one tenant alone can name nothing of another's."""
    if tenant is None:
        return name
    own = name.removeprefix(f"{tenant}{SEPARATOR}")
    return qualified(tenant, own) if SEPARATOR not in own else ""


def names_of(keys: list[str], tenant: str | None) -> list[str]:
    """Of these keys those that a user may learn of, as that user says them."""
    if tenant is None:
        return keys
    return [key.rpartition(SEPARATOR)[2] for key in keys if key == qualified(tenant, key.rpartition(SEPARATOR)[2])]


def _key(snapshot: Snapshot) -> str:
    return f"{snapshot.spec.id}/{snapshot.name}"
