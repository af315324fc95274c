"""bulkhead tenant"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.options import Problems, quantity
from bulkhead.cli.output import write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote
from bulkhead.quantities import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIZES = ("memory", "disk", "images")
COUNTS = ("instances", "volumes", "networks", "addresses", "ports")
NO_LIMIT = "none"
LEVELS = ("container", "vm", "unikernel")


def _quota_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--memory", metavar="SIZE", help="of all plans, such as 8G; none: no limit")
    add("--cpus", metavar="N", help="of all plans")
    add("--disk", metavar="SIZE", help="of all plans, volumes and snapshots")
    add("--images", metavar="SIZE", help="of its own images")
    for name in COUNTS:
        add(f"--{name}", metavar="N", help=f"how many {name}")
    add("--level", action="append", metavar="LEVEL", help="a wall that it may run behind (container, vm, unikernel)")


def _quota(args: Namespace, problems: Problems) -> dict[str, object]:
    """The limits that were given; None where there is to be none."""
    found: dict[str, object] = {}
    for name in (*SIZES, "cpus", *COUNTS):
        text = getattr(args, name)
        if text == NO_LIMIT:
            found[name] = None
        elif text is not None:
            found[name] = quantity(f"--{name}", text, parse_size if name in SIZES else _number, problems)
    for level in args.level or []:
        if level not in LEVELS:
            problems.add(f"--level {level!r} is not one of {', '.join(LEVELS)}")
    return found


def _number(text: str) -> float:
    number = float(text)
    if number < 0:
        raise ValueError(f"{text!r} is less than nothing")
    return int(number) if number.is_integer() else number


def _ls(args: Namespace, app: App) -> int:
    tenants = app.client.call("GET", "/v1/tenants")
    if args.quiet:
        for each in tenants:
            write(each["tenant"]["name"])
    elif args.format == "json":
        write_json(tenants)
    else:
        header = ("NAME", "INSTANCES", "MEMORY", "CPUS", "DISK", "IMAGES", "USERS")
        write_table(header, [_row(each) for each in tenants])
    return 0


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    used, quota = each["used"], each["tenant"]["quota"]

    def of(name: str) -> str:
        show = format_size if name in SIZES else lambda number: f"{number:g}"
        most = quota.get(name)
        return show(used[name]) if most is None else f"{show(used[name])}/{show(most)}"

    names = ("instances", "memory", "cpus", "disk", "images")
    return (each["tenant"]["name"], *map(of, names), ", ".join(each["users"]) or "-")


def _create_arguments(parser: Parser) -> None:
    _quota_arguments(parser)
    parser.add_argument("name", metavar="TENANT", help="what to call it: small letters, digits, dashes")


def _create(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead tenant create --help")
    body = {"name": args.name, "quota": _quota(args, problems), "levels": args.level}
    problems.check()
    write(app.client.call("POST", "/v1/tenants", body=body)["tenant"]["name"])
    return 0


def _update(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead tenant update --help")
    quota = _quota(args, problems)
    problems.check()
    body = {"quota": quota or None, "levels": args.level}
    write(app.client.call("PATCH", f"/v1/tenants/{quote(args.name)}", body=body)["tenant"]["name"])
    return 0


def _names(parser: Parser) -> None:
    parser.add_argument("names", metavar="TENANT", nargs="+", help="the tenants")


def _inspect(args: Namespace, app: App) -> int:
    write_json([app.client.call("GET", f"/v1/tenants/{quote(name)}") for name in args.names])
    return 0


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.names, lambda name: app.client.call("DELETE", f"/v1/tenants/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List tenants with what they use and may use", add_listing, _ls),
    "create": Subcommand("Make a tenant", _create_arguments, _create),
    "inspect": Subcommand("Show everything about tenants, as a JSON array", _names, _inspect),
    "update": Subcommand("Change what a tenant may use", _create_arguments, _update),
    "rm": Subcommand("Remove tenants that have nothing any more", _names, _rm),
}
