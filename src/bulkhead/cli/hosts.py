"""Hosts of a fleet as lines of a table."""

from __future__ import annotations

from bulkhead.cli.output import age
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("HOST", "STATE", "ADDRESS", "SPEED", "INSTANCES", "CPU SOLD", "MEMORY SOLD", "DISK SOLD", "LEVELS", "LABELS")


def host_row(host: dict[str, Any]) -> tuple[str, ...]:
    """A host's line."""
    state = host["state"] if host["alive"] else _silence(host)
    labels = ", ".join(f"{key}={value}" if value else key for key, value in sorted(host["labels"].items()))
    return (
        host["name"] + (" *" if host["here"] else ""),
        state,
        host["address"],
        _speed(host),
        str(host["instances"]),
        *(_part(host, name) for name in ("cpu", "memory", "disk")),
        " ".join(level for level, found in host["levels"].items() if found["works"]) or "-",
        labels or "-",
    )


def _silence(host: dict[str, Any]) -> str:
    """How long it has not been heard of, as far as the host that answers knows."""
    what = "lost" if host["lost"] else "not heard of"
    return f"{what} for {age(0.0, host['unheard'])}" if host["unheard"] >= 1 else what


def _speed(host: dict[str, Any]) -> str:
    """Cores, and what each is sold as: with its factor where it has one."""
    cores, ghz, factor = host["machine"]["cores"], host["machine"]["ghz"], host["factor"]
    if not ghz:
        return f"{cores} cores"
    return f"{cores} x {ghz:.3g} GHz" + (f" (x{factor:g})" if factor != 1 else "")


def _part(host: dict[str, Any], name: str) -> str:
    sold, most = host["sold"].get(name, 0), host["sellable"].get(name)
    if most is None:
        return "-"
    if name == "cpu":
        return f"{sold / 1_000_000:.3g}/{most / 1_000_000:.3g} GHz"
    return f"{format_size(sold)}/{format_size(most)}"
