"""The disks of this host's instances, copied to other hosts again and again: as they were at one moment, only what has
changed, and whole there or not at all. See design 0032.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bulkhead.amounts import Amounts
from bulkhead.cluster.placing import place as judge
from bulkhead.cluster.snapshot import Need, Wanted
from bulkhead.engine import bundles, snapshotting
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet import views
from bulkhead.engine.fleet.asking import Peer
from bulkhead.engine.fleet.copies import BLOCK, DIGEST, END, FRAME, ZERO, count
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.losing import GRACE_SECONDS, refused
from bulkhead.errors import BulkheadError, NotFound
from bulkhead.events import quiet
from bulkhead.fleet import Host, Phase, Place, Replica
from bulkhead.host import sparse
from bulkhead.model import Instance, Spec
from bulkhead.moves import Shipment
from bulkhead.storage import foreign
from bulkhead.store import replicas
from bulkhead.store.fleet import Stale
from bulkhead.store.seen import Seen

log = logging.getLogger(__name__)
_TRIES = 20
_PAUSE = 0.2


@dataclass(slots=True)
class Replicator:
    """This host's. One thread uses it."""

    context: Context
    peer: Callable[[Host], Peer]
    _sent: dict[str, float] = field(default_factory=dict)
    """When (monotonic) the last copy of each was made, or tried."""
    _absent: dict[str, float] = field(default_factory=dict)
    """Since when (monotonic) hosts have not been heard of."""

    def look(self, member: Opened) -> list[str]:
        """Copy what is due. Says what could not be."""
        instances = {each.spec.id: each for each in self.context.state.instances() if each.spec.where.replicas}
        self._sent = {key: when for key, when in self._sent.items() if key in instances}
        if not instances:
            return []
        seen, records = member.state.seen(), replicas.all_of(member.state)
        lost = self._lost(seen) | ({each.host for each in records.values()} - {host.id for host in seen.hosts})
        told = []
        for place in seen.places:
            if place.id not in instances or (place.host, place.phase) != (member.identity.id, Phase.PLACED):
                continue
            record = records.get(place.id)
            if record is not None and (record.host == member.identity.id or record.host in lost):
                record = None  # it has moved to where its replica was, or that is gone
            last = self._sent.get(place.id)
            if last is not None and time.monotonic() - last < place.where.replica_interval:
                continue
            self._sent[place.id] = time.monotonic()
            try:
                record = record or self._choose(member, place, instances[place.id].spec)
                self._copy(member, instances[place.id].spec.id, record)
            except BulkheadError as error:
                told.append(f"{place.name} is not copied: {error}")
                if record is not None:
                    replicas.tell(member.state, record, problem=error.what)
        return told

    def _lost(self, seen: Seen) -> set[str]:
        now = time.monotonic()
        self._absent = {host.id: self._absent.get(host.id, now) for host in seen.hosts if host.id not in seen.alive}
        wait = (seen.fleet.lease if seen.fleet else 0.0) + GRACE_SECONDS
        return {host for host, since in self._absent.items() if now - since >= wait}

    # --- where to

    def _choose(self, member: Opened, place: Place, spec: Spec) -> Replica:
        """Another host that could run it, with room for its disk. Raises Stale, NotFound where there is none."""
        amounts = Amounts(disk=spec.plan.disk)
        for _ in range(_TRIES):
            seen = member.state.seen()
            wanted = Wanted(
                id=spec.id[::-1],
                name=spec.name,
                need=Need(amounts),
                level=spec.isolation,
                tenant=spec.tenant,
                trusted=place.trusted,
                labels=place.labels,
                requires=views.labels_of(place.where),
                avoid=frozenset({member.identity.id}),
            )
            snapshot = replace(views.snapshot(seen), spare=False)
            decision = judge(snapshot, wanted, "spread")
            if decision.chosen is None:
                raise NotFound(f"no host can hold a replica of {spec.name}: {refused(decision)}")
            made = Replica(
                id=spec.id,
                name=spec.name,
                tenant=spec.tenant,
                host=decision.chosen.id,
                amounts=amounts.as_dict(),
                interval=place.where.replica_interval,
            )
            with suppress(Stale):
                replicas.choose(member.state, made, source=member.identity.id, scored=decision.chosen.version)
                checkpoint("replicate.chosen")
                return made
            time.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - somebody else has got on
        raise Stale("the fleet changes faster than a host for a replica can be found")

    # --- what has changed

    def _copy(self, member: Opened, instance_id: str, record: Replica) -> None:
        context = self.context
        host = next((each for each in member.state.hosts() if each.id == record.host), None)
        if host is None:
            raise NotFound(f"the host of the replica of {record.name} has left the fleet")
        with ExitStack() as always:
            copy = context.config.state_dir / "shipping" / f"{instance_id}.img"
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            always.callback(copy.unlink, missing_ok=True)
            always.callback(foreign.forget, copy)
            with context.locks.hold(instance_id):
                instance = context.state.get(instance_id)
                layers, at = self._take(instance, copy), time.time()
            checkpoint("replicate.copied")
            peer = self.peer(host)
            held = peer.held(instance_id)
            shipment = Shipment(
                spec=instance.spec,
                layers=layers,
                foreign=foreign.is_marked(copy),
                size=copy.stat().st_size,
                base=held.number,
                at=at,
            )
            peer.ship(instance_id, differences(shipment, copy, base64.b64decode(held.digests)))
            checkpoint("replicate.sent")
        replicas.tell(member.state, record, at=at)

    def _take(self, instance: Instance, copy: Path) -> tuple[str, ...]:
        """Copy its disk as it is at one moment."""
        context, bundle = self.context, self.context.bundle_dir(instance)
        snapshotting.require_copyable(context, instance)
        context.disks.check_room(instance.spec.id, bundle / bundles.DISK, copy.parent)
        copy.unlink(missing_ok=True)
        with snapshotting.still(context, instance, None, quiet):
            context.disks.copy_out(instance.spec.id, bundle / bundles.DISK, copy, told=lambda *_: None)
        return tuple(bundles.read_layers(bundle))


def differences(shipment: Shipment, disk: Path, before: bytes) -> Iterator[bytes]:
    """What is sent: the head, the digest of each block, and those blocks whose digest was another."""
    with disk.open("rb") as file:
        blocks = digests(file.fileno(), shipment.size)
        yield shipment.model_dump_json().encode() + b"\n"
        yield blocks
        for index in range(count(shipment.size)):
            at = slice(index * DIGEST, (index + 1) * DIGEST)
            if blocks[at] not in (ZERO, before[at]):
                data = os.pread(file.fileno(), BLOCK, index * BLOCK)
                yield FRAME.pack(index, len(data)) + data
        yield FRAME.pack(END, 0)


def digests(descriptor: int, size: int) -> bytes:
    """The SHA-256 of each block, one after the other; zeros for a block of zeros."""
    found = bytearray(count(size) * DIGEST)
    last = -1
    for start, end in sparse.extents(descriptor):
        for index in range(max(start // BLOCK, last + 1), count(end)):
            data = os.pread(descriptor, BLOCK, index * BLOCK)
            if data.count(0) != len(data):
                found[index * DIGEST : (index + 1) * DIGEST] = hashlib.sha256(data).digest()
            last = index
    return bytes(found)
