"""bulkhead usage"""

from __future__ import annotations

import sys
import time
from datetime import UTC

from bulkhead.cli.app import App
from bulkhead.cli.output import short_id, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.values import parse_when

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TIMES = ("day", "hour", "minute")
BY = ("instance", "tenant", "plan", *TIMES)
_SOLD = ("disk_gib_hours_sold", "volume_gib_hours_sold", "snapshot_gib_hours")
_USED = ("disk_gib_hours_used", "volume_gib_hours_used", "snapshot_gib_hours")
"""Of disks, volumes and snapshots; JSON and CSV tell them apart."""
HEADER = ("UPTIME", "CPU", "GHZ-H", "MEM GIB-H SOLD/USED", "DISK GIB-H SOLD/USED", "IN / OUT", "DISK R / W", "DISK OPS")


def arguments(parser: Parser) -> None:
    """Whose, when, and how it is told."""
    parser.add_argument("--tenant", metavar="T", help="of this tenant alone")
    parser.add_argument("--plan", metavar="P", help="under this named plan alone")
    parser.add_argument("--from", dest="begin", metavar="WHEN", help="since a date or a time ago (this month's begin)")
    parser.add_argument("--to", dest="end", metavar="WHEN", help="until a date or a time ago (now)")
    parser.add_argument(
        "--by",
        choices=BY,
        action="append",
        metavar="WHAT",
        help=f"sum by: {', '.join(BY)}; may be repeated (instance)",
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="table, json or csv")
    whose = "name or id, volume:NAME, also of a removed one (all)"
    parser.add_argument("instances", metavar="INSTANCE", nargs="*", help=whose)


def main(args: Namespace, app: App) -> int:
    """Print it."""
    by = args.by or ["instance"]
    query: dict[str, Any] = {"ref": args.instances, "by": by}
    now = time.time()
    for key, given in (("from", args.begin), ("to", args.end)):
        if given is not None:
            query[key] = repr(when(given, f"--{key}", now))
    for key in ("tenant", "plan"):
        if getattr(args, key) is not None:
            query[key] = getattr(args, key)
    found = app.client.call("GET", "/v1/usage", query=query)
    if args.format == "json":
        write_json(found)
    elif args.format == "csv":
        write_csv(found["rows"])
    else:
        _write_table(found["rows"], by)
    return 0


def when(text: str, flag: str, now: float) -> float:
    """A date alone is its first moment in UTC, as bins of a day are; else as `logs --since` takes it."""
    from datetime import date, datetime
    from re import fullmatch

    from bulkhead.errors import Refused

    try:
        if fullmatch(r"\d{4}-\d\d(-\d\d)?", text):
            day = date.fromisoformat(text if len(text) > 7 else f"{text}-01")
            return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        return parse_when(text, flag, now)
    except ValueError as error:
        raise Refused(str(error), hint="say 2026-11-30, 2026-11-30T12:00:00Z or 12h") from None


def write_csv(rows: Sequence[dict[str, Any]]) -> None:
    """One line per row below a header; times in UTC."""
    import csv

    if not rows:
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        told = {key: safe(value) if isinstance(value, str) else value for key, value in row.items()}
        writer.writerow({**told, "from": moment(row["from"], "T"), "to": moment(row["to"], "T")})


def safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def moment(seconds: float, between: str = " ") -> str:
    """A time in UTC."""
    zone = "Z" if between == "T" else ""
    return time.strftime(f"%Y-%m-%d{between}%H:%M:%S{zone}", time.gmtime(seconds))


def _write_table(rows: Sequence[dict[str, Any]], by: Sequence[str]) -> None:
    header: list[str] = ["FROM"] if set(by) & set(TIMES) else []
    names = {"instance": ("ID", "NAME", "TENANT", "PLAN"), "tenant": ("TENANT",), "plan": ("PLAN",)}
    columns = list(dict.fromkeys(column for each in by for column in names.get(each, ())))
    if any("host" in row for row in rows):
        columns.append("HOST")
    write_table([*header, *columns, *HEADER], [_row(row, bool(header), columns) for row in rows])


def _row(row: dict[str, Any], timed: bool, columns: Sequence[str]) -> list[str]:
    told = {
        "ID": short_id(row["id"]) or "-",
        "NAME": f"volume:{row['name']}" if row["kind"] == "volume" else row["name"] or "(removed)",
        "TENANT": row["tenant"],
        "PLAN": row["plan"] or "-",
        "HOST": row.get("host", "-"),
    }
    return [
        *([moment(row["from"])] if timed else ()),
        *(told[column] for column in columns),
        duration(row["uptime_seconds"]),
        duration(row["cpu_seconds"], fine=True),
        f"{row['ghz_hours_sold']:.3f}",
        f"{row['memory_gib_hours_sold']:.3f} / {row['memory_gib_hours_used']:.3f}",
        " / ".join(f"{sum(row[key] for key in keys):.3f}" for keys in (_SOLD, _USED)),
        f"{decimal(row['received'])} / {decimal(row['sent'])}",
        f"{decimal(row['disk_read'])} / {decimal(row['disk_written'])}",
        "-" if row["disk_reads"] is None else str(row["disk_reads"] + row["disk_writes"]),
    ]


def duration(seconds: float, *, fine: bool = False) -> str:
    """Hours, minutes and seconds: "26h 03m"; below a minute seconds, `fine` with a digit after the point."""
    if seconds < 60:
        return f"{seconds:.1f}s" if fine else f"{int(seconds)}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def decimal(count: float) -> str:
    """Bytes in powers of 1,000, as traffic is sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f}{unit}" if unit == "B" else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.2f}TB"
