"""Amounts of use as people know them: what `usage` shows, and what is sold by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from bulkhead.metering.meters import Usage

_HOUR = 3600
_GIB_HOUR = (1 << 20) * _HOUR
"""Of KiB for a second."""
_GB = 10**9


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that is counted: `amount` of it, exactly."""

    name: str
    """As a price names it."""
    label: str
    """As an invoice says it, in the plural."""
    amount: Callable[[Usage], Fraction]
    planned: bool = True
    """Whether what uses it has a plan."""
    where: str = ""
    """Whose use it is, where it is not that of instances."""


UNITS = (
    Unit("hour", "hours", lambda use: Fraction(use.uptime, 1000 * _HOUR)),
    Unit("cpu-hour", "core hours used", lambda use: Fraction(use.cpu, 10**9 * _HOUR)),
    Unit("ghz-hour", "GHz core hours", lambda use: Fraction(use.cpu_sold, 10**6 * _HOUR)),
    Unit(
        "memory-gib-hour",
        "GiB hours of memory",
        lambda use: Fraction(use.memory_sold, _GIB_HOUR),
    ),
    Unit(
        "memory-used-gib-hour",
        "GiB hours of memory used",
        lambda use: Fraction(use.memory_used, _GIB_HOUR),
    ),
    Unit("disk-gib-hour", "GiB hours of disk", lambda use: Fraction(use.disk_sold, _GIB_HOUR)),
    Unit(
        "disk-used-gib-hour",
        "GiB hours of disk used",
        lambda use: Fraction(use.disk_used, _GIB_HOUR),
    ),
    Unit("gb-received", "GB received", lambda use: Fraction(use.received, _GB)),
    Unit("gb-sent", "GB sent", lambda use: Fraction(use.sent, _GB)),
    Unit("gb-read", "GB read from disk", lambda use: Fraction(use.read, _GB)),
    Unit("gb-written", "GB written to disk", lambda use: Fraction(use.written, _GB)),
    Unit(
        "million-io",
        "million disk operations",
        lambda use: Fraction(use.reads + use.writes, 10**6),
    ),
    Unit(
        "volume-gib-hour",
        "GiB hours of volumes",
        lambda use: Fraction(use.volume_sold, _GIB_HOUR),
        planned=False,
        where="Volumes",
    ),
    Unit(
        "volume-used-gib-hour",
        "GiB hours of volumes used",
        lambda use: Fraction(use.volume_used, _GIB_HOUR),
        planned=False,
        where="Volumes",
    ),
    Unit(
        "snapshot-gib-hour",
        "GiB hours of snapshots",
        lambda use: Fraction(use.snapshot_sold, _GIB_HOUR),
        planned=False,
        where="Snapshots",
    ),
)
BY_NAME = {unit.name: unit for unit in UNITS}
MONTH = "month"
"""The unit of a price that an instance costs in a whole month: of one that ran for a part of it that part."""


def told(use: Usage) -> dict[str, int | float | None]:
    """Use as the API tells it: seconds, GiB hours, bytes, operations; None where nobody counted these."""
    silent = use.uptime > 0 and use.uncounted >= use.uptime
    return {
        "uptime_seconds": use.uptime / 1000,
        "cpu_seconds": use.cpu / 1e9,
        "ghz_hours_sold": float(BY_NAME["ghz-hour"].amount(use)),
        "memory_gib_hours_sold": float(BY_NAME["memory-gib-hour"].amount(use)),
        "memory_gib_hours_used": float(BY_NAME["memory-used-gib-hour"].amount(use)),
        "disk_gib_hours_sold": float(BY_NAME["disk-gib-hour"].amount(use)),
        "disk_gib_hours_used": float(BY_NAME["disk-used-gib-hour"].amount(use)),
        "volume_gib_hours_sold": float(BY_NAME["volume-gib-hour"].amount(use)),
        "volume_gib_hours_used": float(BY_NAME["volume-used-gib-hour"].amount(use)),
        "snapshot_gib_hours": float(BY_NAME["snapshot-gib-hour"].amount(use)),
        "received": use.received,
        "sent": use.sent,
        "disk_read": use.read,
        "disk_written": use.written,
        "disk_reads": None if silent else use.reads,
        "disk_writes": None if silent else use.writes,
        "disk_operations_uncounted_seconds": use.uncounted / 1000,
    }
