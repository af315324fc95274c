"""bulkhead host"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.hosts import HEADER, host_row
from bulkhead.cli.output import table, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_format, add_listing
from bulkhead.client import quote
from bulkhead.quantities import format_rate, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RESOURCES = ("RESOURCE", "HOST", "RESERVE", "RATIO", "TO SELL", "SOLD", "FREE", "USED NOW")
PLANS = ("PLAN", "MORE CONTAINERS", "ENDED BY", "MORE VMS", "ENDED BY")
LEVELS = ("container", "vm")
MOST_NAMED = 10


def _info_arguments(parser: Parser) -> None:
    add_format(parser)


def _info(args: Namespace, app: App) -> int:
    host = app.client.call("GET", "/v1/host")
    if args.format == "json":
        write_json(host)
        return 0
    speed = f" at {host['ghz']:g} GHz" if host["ghz"] else ""
    if host["factor"] != 1:
        speed += f" (clock {host['ghz'] / host['factor']:.3g} GHz, factor {host['factor']:g}, {host['factor_source']})"
    cores, there = _count(host["cores"], "core"), _count(host["instances"], "instance")
    write(f"{cores}{speed}, {there}, {host['running']} running\n")
    write(table(RESOURCES, [resource_row(row) for row in host["resources"]]))
    write(table(PLANS, [plan_row(plan) for plan in host["plans"]]).rstrip("\n"))
    if host["cpu_models"]:
        write(f"\nprocessors that virtual machines can have by name: {', '.join(host['cpu_models'])}")
    if host["merged"] is not None:
        write(f"\n{format_size(host['merged'])} of memory saved by merging equal pages of virtual machines")
    for warning in host["warnings"]:
        talk(f"warning: {warning}")
    return 0


def resource_row(row: dict[str, Any]) -> tuple[str, ...]:
    """A resource's line."""
    form = _form(row["unit"])
    percent = f" ({row['sold'] / row['sellable'] * 100:.0f}%)" if row["sellable"] else ""
    return (
        row["resource"].replace("disk_bps", "disk B/s"),
        form(row["host"]),
        form(row["reserve"]),
        f"{row['ratio']:g}",
        form(row["sellable"]),
        form(row["sold"]) + percent,
        form(row["free"]) if row["free"] >= 0 else f"-{form(-row['free'])}",
        "-" if row["used"] is None else form(row["used"]),
    )


def plan_row(plan: dict[str, Any]) -> tuple[str, ...]:
    """A plan's line."""
    cells = [plan["name"]]
    for level in LEVELS:
        fits = plan["fits"][level]
        cells += [str(fits["more"]), fits["reason"] or fits["ends"]]
    return tuple(cells)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _form(unit: str) -> Callable[[float], str]:
    """How an amount of a unit is written."""
    forms: dict[str, Callable[[float], str]] = {
        "bytes": lambda amount: format_size(int(amount)),
        "bytes/s": lambda amount: format_size(int(amount)),
        "bits/s": lambda amount: format_rate(int(amount)),
        "GHz": lambda amount: f"{amount:.4g} GHz",
    }
    return forms.get(unit, lambda amount: f"{amount:g}")


def _listing(parser: Parser) -> None:
    add_listing(parser)


def _ls(args: Namespace, app: App) -> int:
    found = app.client.call("GET", "/v1/hosts")
    if args.quiet:
        for host in found:
            write(host["name"])
    elif args.format == "json":
        write_json(found)
    else:
        write_table(HEADER, [host_row(host) for host in found])
    return 0


def _host_argument(parser: Parser) -> None:
    parser.add_argument("host", metavar="HOST", help="its name, or its id")


def _label_arguments(parser: Parser) -> None:
    _host_argument(parser)
    parser.add_argument("label", metavar="KEY[=VALUE]", nargs="+", help="a label to set; KEY- removes one")


def _label(args: Namespace, app: App) -> int:
    labels: dict[str, str | None] = {}
    for text in args.label:
        key, _, value = text.partition("=")
        if "=" not in text and key.endswith("-"):
            labels[key[:-1]] = None
        else:
            labels[key] = value
    changed = app.client.call("PATCH", f"/v1/hosts/{quote(args.host)}", body={"labels": labels})
    write(changed["name"])
    return 0


def _drain_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--deadline", metavar="TIME", default="10m", help="within which instances may be moved (10m)")
    add("--keep", action="store_true", help="let it take nothing new, and leave what is there")
    add("--dry-run", action="store_true", help="only say what would go where, and what would stay")
    add_format(parser)
    _host_argument(parser)


def _drain(args: Namespace, app: App) -> int:
    if args.keep:
        return _mark(args, app, "draining")
    from bulkhead.cli.emptying import drain

    return drain(args, app)


def _undrain(args: Namespace, app: App) -> int:
    return _mark(args, app, "ready")


def _mark(args: Namespace, app: App, state: str) -> int:
    changed = app.client.call("PATCH", f"/v1/hosts/{quote(args.host)}", body={"state": state})
    write(changed["name"])
    if state == "draining":
        listed = app.client.call("GET", "/v1/instances")
        there = [each["spec"]["name"] for each in listed if each["host"] == changed["name"]]
        names = ", ".join(sorted(there)[:MOST_NAMED]) + (", ..." if len(there) > MOST_NAMED else "")
        left = f"what is there stays: {_count(len(there), 'instance')}: {names}" if there else "nothing is there"
        talk(f"{changed['name']} takes nothing new; {left}")
        if there:
            talk("bulkhead move NAME --host HOST moves one to another host")
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="give up the instances that it had as well")
    _host_argument(parser)


def _rm(args: Namespace, app: App) -> int:
    app.client.call("DELETE", f"/v1/hosts/{quote(args.host)}", query={"force": "true"} if args.force else None)
    write(args.host)
    return 0


SUBCOMMANDS = {
    "ls": Subcommand("List the hosts of the fleet", _listing, _ls),
    "label": Subcommand("Set and remove labels of a host", _label_arguments, _label),
    "drain": Subcommand("Move everything off a host, which takes nothing new from then on", _drain_arguments, _drain),
    "undrain": Subcommand("Let a host take new instances again", _host_argument, _undrain),
    "rm": Subcommand("Take a host out of the fleet that is gone for good", _rm_arguments, _rm),
    "info": Subcommand(
        "Show what of this host is sold, used and free, and how many more of each plan would fit",
        _info_arguments,
        _info,
    ),
}
