"""bulkhead stats"""

from __future__ import annotations

import sys
import time

from bulkhead.cli.app import App
from bulkhead.cli.output import short_id, table, write_json
from bulkhead.cli.parsing import Namespace, Parser, add_format
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("ID", "NAME", "CPU %", "MEMORY / LIMIT", "MEM %", "DISK / SIZE", "DISK I/O", "NET I/O", "PIDS / LIMIT")
INTERVAL = 1.0
FIRST_INTERVAL = 0.25
"""Seconds between the two looks that the first figure for the cpu takes."""
CLEAR = "\x1b[H\x1b[J"


def arguments(parser: Parser) -> None:
    """Which ones, and how."""
    parser.add_argument("--no-stream", action="store_true", help="print it once")
    add_format(parser)
    parser.add_argument("instances", metavar="NAME", nargs="*", help="name, id, or the beginning of an id (all)")


def main(args: Namespace, app: App) -> int:
    """Print what they use, every second until interrupted."""
    query = {"ref": args.instances}
    before = app.client.call("GET", "/v1/stats", query=query)
    wait = FIRST_INTERVAL
    while True:
        time.sleep(wait)
        now = app.client.call("GET", "/v1/stats", query=query)
        rows = with_cpu(now, before)
        if args.format == "json":
            write_json(rows)
        else:
            clear = CLEAR if sys.stdout.isatty() and not args.no_stream else ""
            sys.stdout.write(clear + table(HEADER, [_row(usage) for usage in rows]))
        if args.no_stream:
            return 0
        sys.stdout.flush()
        before, wait = now, INTERVAL


def with_cpu(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Usages with `cpu_percent`: of one core, between the two looks."""
    earlier = {usage["id"]: usage for usage in before}
    rows = []
    for usage in now:
        first = earlier.get(usage["id"], usage)
        seconds = usage["when"] - first["when"]
        used = usage["cpu_seconds"] - first["cpu_seconds"]
        rows.append({**usage, "cpu_percent": round(max(0.0, used) / seconds * 100, 2) if seconds > 0 else 0.0})
    return rows


def _row(usage: dict[str, Any]) -> tuple[str, ...]:
    return (
        short_id(usage["id"]),
        usage["name"],
        f"{usage['cpu_percent']:.1f}%",
        f"{_size(usage['memory'])} / {_size(usage['memory_limit'])}",
        f"{usage['memory'] / usage['memory_limit'] * 100:.1f}%",
        f"{_size(usage['disk_used'])} / {_size(usage['disk_size'])}",
        f"{_size(usage['disk_read'])} / {_size(usage['disk_written'])}",
        f"{_size(usage['received'])} / {_size(usage['sent'])}",
        f"{usage['pids']} / {usage['pids_limit']}",
    )


def _size(count: float) -> str:
    return format_size(int(count))
