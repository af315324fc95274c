"""bulkhead host drain: everything off a host, with what went where and what stays."""

from __future__ import annotations

import sys

from bulkhead.cli.app import App
from bulkhead.cli.options import Problems, quantity
from bulkhead.cli.output import printable, table, talk, write, write_json
from bulkhead.cli.parsing import Namespace
from bulkhead.client import quote
from bulkhead.quantities import format_size, parse_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("NAME", "TO", "DOWN", "SIZE")


def drain(args: Namespace, app: App) -> int:
    """Empty it; 1 where something stays."""
    problems = Problems("see bulkhead host drain --help")
    deadline = quantity("--deadline", args.deadline, parse_seconds, problems)
    problems.check()
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    body = {"deadline": deadline, "dry_run": args.dry_run}
    with app.client.stream("POST", f"/v1/hosts/{quote(args.host)}/drain", body=body) as response:
        found: dict[str, Any] = show(response.json_lines())
    if args.format == "json":
        write_json(found)
    else:
        _tell(found)
    return 1 if found["stays"] else 0


def _tell(found: dict[str, Any]) -> None:
    if found["went"]:
        rows = [(each["name"], each["host"], _seconds(each), format_size(each["size"])) for each in found["went"]]
        write(table(HEADER, rows).rstrip("\n"))
    for each in found["went"]:
        if each["warning"]:
            talk(printable(f"warning: {each['name']}: {each['warning']}"))
    verb = "stays" if found["done"] else "would stay"
    for each in found["stays"]:
        talk(printable(f"{each['name']} {verb}: {each['reason']}"))
        if each["hint"]:
            talk(printable(f"hint: {each['hint']}"))
    if found["done"]:
        left = f"{len(found['stays'])} of its instances stay" if found["stays"] else "nothing is there any more"
        talk(f"{found['host']} takes nothing new; {left}")


def _seconds(went: dict[str, Any]) -> str:
    return f"{went['downtime']:.2f} s" if went["downtime"] else "-"
