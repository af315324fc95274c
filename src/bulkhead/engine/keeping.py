"""Volumes and snapshots are metered: space that is sold until it is removed, whatever becomes of instances.

A reading says how much of it is sold, and how much it takes on this host. What is removed is read before, so that
nothing is lost of one that came and went between two looks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from bulkhead.engine import readings
from bulkhead.engine.context import Context
from bulkhead.host import facts
from bulkhead.metering.ledger import Subject
from bulkhead.metering.meters import Kind, Reading, Sold
from bulkhead.model import Snapshot, Volume


def volume_id(volume: Volume) -> str:
    """No two volumes have the same, whatever they are called."""
    return hashlib.sha256(f"{volume.key}\0{volume.created!r}".encode()).hexdigest()[:32]


def of_volume(context: Context, volume: Volume) -> tuple[Subject, Reading]:
    """What a volume sells and takes now."""
    subject = Subject(volume_id(volume), volume.name, volume.tenant, "", "volume")
    used = _blocks(context.config.volumes_dir / f"{volume.key}.img")
    return subject, _reading("volume", volume.size, used, volume.created)


def of_snapshot(snapshot: Snapshot) -> tuple[Subject, Reading]:
    """What a snapshot sells now: what it took when it was made, since it does not change."""
    subject = Subject(snapshot.id, f"{snapshot.spec.name}/{snapshot.name}", snapshot.spec.tenant, "", "snapshot")
    return subject, _reading("snapshot", snapshot.size, None, snapshot.created)


def every(context: Context) -> list[tuple[Subject, Reading]]:
    """All volumes and snapshots of this host."""
    volumes = [of_volume(context, each) for each in context.state.volumes()]
    return volumes + [of_snapshot(each) for each in context.state.snapshots() if each.state == "ready"]


def _reading(kind: Kind, sold: int, used: int | None, created: float) -> Reading:
    clock = readings.Clock.now()
    return Reading(
        boot=facts.boot_id(),
        at=clock.at,
        wall=clock.wall,
        sold=Sold(disk=sold),
        kind=kind,
        disk=used,
        existed=int(created * 1000),
    )


def _blocks(file: Path) -> int | None:
    """Bytes that a file takes on this host; None where it is not there (yet)."""
    try:
        return file.stat().st_blocks * 512
    except OSError:
        return None
