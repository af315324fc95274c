"""Copies of other hosts' disks, kept here: each a whole disk as it was at one moment, or none.

`state_dir/replicas/ID` has `disk.N.img`, `blocks.N` (a SHA-256 per block of BLOCK bytes, zeros for one of zeros) and
`replica.json`, which says which N counts and is written last: what is not of that number is what a crash has left.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import struct
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bulkhead.amounts import NOTHING, Amounts
from bulkhead.engine import bundles, selling
from bulkhead.engine.context import Context
from bulkhead.engine.faults import checkpoint
from bulkhead.engine.fleet.arriving import Bring
from bulkhead.engine.fleet.identity import Opened
from bulkhead.engine.fleet.parcels import exactly
from bulkhead.errors import Conflict, Refused
from bulkhead.host import sparse
from bulkhead.moves import Held, Kept, Receipt, Shipment
from bulkhead.storage import foreign
from bulkhead.store import handing, replicas

BLOCK = 1 << 20
DIGEST = 32
ZERO = bytes(DIGEST)
FRAME = struct.Struct(">II")
END = 0xFFFFFFFF


def count(size: int) -> int:
    """Blocks of a disk of so many bytes."""
    return -(-size // BLOCK)


@dataclass(slots=True)
class Copies:
    """All of them. Thread-safe."""

    context: Context
    bring: Bring
    _sizes: dict[str, int] = field(default_factory=dict)
    """Bytes that each can come to hold."""
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def amounts(self) -> Amounts:
        """What they take of the host."""
        with self._guard:
            return sum((Amounts(disk=size) for size in self._sizes.values()), NOTHING)

    def recover(self) -> None:
        """Know again what is there, and drop what a crash has left. Idempotent."""
        for directory in self._directories():
            kept = bundles.read_kept(directory)
            if kept is None:
                shutil.rmtree(directory)
                continue
            _sweep(directory, kept.number)
            with self._guard:
                self._sizes[directory.name] = kept.shipment.spec.plan.disk

    def held(self, instance_id: str) -> tuple[Kept, Path] | None:
        """The copy of an instance's disk, and the file; None where there is none."""
        directory = self._directory(instance_id)
        kept = bundles.read_kept(directory)
        return None if kept is None else (kept, directory / f"disk.{kept.number}.img")

    def consume(self, instance_id: str) -> None:
        """It becomes the instance's own: it takes nothing on top."""
        with self._guard:
            self._sizes.pop(instance_id, None)

    def clean(self, member: Opened) -> list[str]:
        """Drop what the fleet does not have here (any more). Says what."""
        there, told = self._directories(), []  # before the fleet is asked: it says so before anything is sent
        records = replicas.all_of(member.state) if there else {}
        for directory in there:
            record = records.get(directory.name)
            if record is not None and record.host == member.identity.id:
                continue
            with self.context.locks.hold(directory.name):
                shutil.rmtree(directory, ignore_errors=True)
                self.consume(directory.name)
            told.append(f"the replica of {directory.name[:12]} is not this host's any more")
        return told

    # --- what another host sends

    def ask(self, member: Opened, instance_id: str, *, source: str) -> Held:
        """What is here of an instance of the host `source`. Raises Conflict."""
        self._require(member, instance_id, source)
        held = self.held(instance_id)
        if held is None:
            return Held()
        kept, path = held
        blocks = path.with_name(f"blocks.{kept.number}").read_bytes()
        return Held(number=kept.number, digests=base64.b64encode(blocks).decode())

    def receive(
        self, member: Opened, instance_id: str, shipment: Shipment, stream: BinaryIO, *, source: str
    ) -> Receipt:
        """Take in what has changed; what is here is as it was until all of it is on the disk.

        Raises Conflict where the fleet knows of no such replica, Refused for what is not as it should be, NoRoom,
        NoImage.
        """
        if shipment.spec.id != instance_id or shipment.size > shipment.spec.plan.disk:
            raise Refused("what is sent is no replica of this instance")
        self._require(member, instance_id, source)
        self.bring(shipment.spec)  # an image that only the lost host has would be lost with it
        with self.context.locks.hold(instance_id), ExitStack() as undo:
            held = self.held(instance_id)
            if (held[0].number if held else 0) != shipment.base:
                raise Conflict(f"what is here of {shipment.spec.name} is not what the difference was made to")
            self._reserve(instance_id, shipment, undo)
            directory = self._directory(instance_id)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = shipment.base + 1
            _sweep(directory, shipment.base)
            undo.callback(_sweep, directory, shipment.base)
            checkpoint("replica.begun")
            target = directory / f"disk.{number}.img"
            blocks = exactly(stream, count(shipment.size) * DIGEST)
            received = _apply(held[1] if held else None, target, shipment.size, blocks, stream)
            if shipment.foreign:
                foreign.mark(target)
            bundles.write_bytes(directory / f"blocks.{number}", blocks)
            checkpoint("replica.received")
            bundles.write_kept(directory, Kept(number=number, shipment=shipment))
            undo.pop_all()
            checkpoint("replica.kept")
            _sweep(directory, number)
        return Receipt(received=received, digest=hashlib.sha256(blocks).hexdigest())

    def _reserve(self, instance_id: str, shipment: Shipment, undo: ExitStack) -> None:
        size = shipment.spec.plan.disk
        with self.context.state.atomic():
            with self._guard:
                before = self._sizes.get(instance_id)
            if size > (before or 0):
                selling.require_room(self.context, Amounts(disk=size - (before or 0)))
            with self._guard:
                self._sizes[instance_id] = max(size, before or 0)
        if before is None:
            undo.callback(self.consume, instance_id)

    def _require(self, member: Opened, instance_id: str, source: str) -> None:
        record, place = replicas.of(member.state, instance_id), handing.place_of(member.state, instance_id)
        if record is None or place is None or (record.host, place.host) != (member.identity.id, source):
            raise Conflict("the fleet knows of no replica of that host's instance on this one")

    def _directory(self, instance_id: str) -> Path:
        return self.context.config.state_dir / "replicas" / instance_id

    def _directories(self) -> list[Path]:
        top = self.context.config.state_dir / "replicas"
        return sorted(top.iterdir()) if top.exists() else []


def _apply(base: Path | None, target: Path, size: int, blocks: bytes, stream: BinaryIO) -> int:
    """Make a disk of an older one and what has changed; bytes that came. Refused unless it is as `blocks` say."""
    if base is not None and base.stat().st_size <= size:
        sparse.copy_sparse(base, target, size)
        before = base.with_name(base.name.replace("disk", "blocks").removesuffix(".img")).read_bytes()
    else:
        target.touch(mode=0o600)
        os.truncate(target, size)
        before = b""
    before = before.ljust(len(blocks), b"\0")
    wanted = {at for at in range(count(size)) if _at(blocks, at) != _at(before, at)}
    received, last = 0, -1
    with target.open("r+b") as file:
        while True:
            index, length = FRAME.unpack(exactly(stream, FRAME.size))
            if index == END:
                break
            if index <= last or index not in wanted or length != min(BLOCK, size - index * BLOCK):
                raise Refused(f"a replica has no such part: block {index} with {length} bytes")
            data = exactly(stream, length)
            if hashlib.sha256(data).digest() != _at(blocks, index):
                raise Refused(f"block {index} is not what was said to come")
            os.pwrite(file.fileno(), data, index * BLOCK)
            wanted.discard(index)
            received, last = received + length, index
        for index in [each for each in wanted if _at(blocks, each) == ZERO]:
            os.pwrite(file.fileno(), bytes(min(BLOCK, size - index * BLOCK)), index * BLOCK)
            wanted.discard(index)
        if wanted:
            raise Refused(f"{len(wanted)} blocks have not come")
        os.fsync(file.fileno())
    return received


def _at(blocks: bytes, index: int) -> bytes:
    return blocks[index * DIGEST : (index + 1) * DIGEST]


def _sweep(directory: Path, number: int) -> None:
    """Remove what is of another number."""
    if not directory.exists():
        return
    for path in directory.iterdir():
        if path.name != "replica.json" and path.name.split(".")[1] != str(number):
            path.unlink()
