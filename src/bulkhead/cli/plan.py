"""bulkhead plan"""

from __future__ import annotations

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.output import write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote
from bulkhead.quantities import format_rate, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("NAME", "MEMORY", "SWAP", "CPUS", "GHZ", "BASELINE", "DISK", "IOPS", "DISK B/S", "BANDWIDTH", "PIDS")
USUAL = {"memory": 512 << 20, "cpus": 1, "disk": 5 << 30}
"""Of a plan that is created without them."""


def _ls(args: Namespace, app: App) -> int:
    plans = app.client.call("GET", "/v1/plans")
    if args.quiet:
        for plan in plans:
            write(plan["name"])
    elif args.format == "json":
        write_json(plans)
    else:
        write_table(HEADER, [_row(plan["name"], plan["plan"]) for plan in plans])
    return 0


def _row(name: str, plan: dict[str, Any]) -> tuple[str, ...]:
    def shown(key: str, form: Any = str) -> str:
        return "-" if plan[key] is None else str(form(plan[key]))

    return (
        name,
        shown("memory", format_size),
        shown("swap", format_size),
        shown("cpus", lambda cpus: f"{cpus:g}"),
        shown("ghz"),
        shown("baseline", lambda cores: f"{cores:g}"),
        shown("disk", format_size),
        shown("iops"),
        shown("disk_bps", format_size),
        shown("bandwidth", format_rate),
        shown("pids"),
    )


def _create_arguments(parser: Parser) -> None:
    options.add_plan(parser)
    parser.add_argument("name", metavar="NAME", help="what to call it")


def _create(args: Namespace, app: App) -> int:
    problems = options.Problems("see bulkhead plan create --help")
    fields = options.plan(args, problems)
    problems.check()
    write(app.client.call("POST", "/v1/plans", body={"name": args.name, "plan": {**USUAL, **fields}})["name"])
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the plans")


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.names, lambda name: app.client.call("DELETE", f"/v1/plans/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List the named plans", add_listing, _ls),
    "create": Subcommand(
        "Name a plan (512M of memory, 1 cpu and 5G of disk where not given)", _create_arguments, _create
    ),
    "rm": Subcommand("Forget plans; instances keep their limits", _rm_arguments, _rm),
}
