"""bulkhead snapshot"""

from __future__ import annotations

import sys

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each, instance_path
from bulkhead.cli.output import age, printable, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import Response, quote
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

HEADER = ("NAME", "INSTANCE", "LEVEL", "MEMORY", "SIZE", "CREATED")


def _create_arguments(parser: Parser) -> None:
    parser.add_argument("--memory", action="store_true", help="of a VM that runs: its memory too, to go on from there")
    parser.add_argument("instance", metavar="INSTANCE", help="name, id, or the beginning of an id")
    parser.add_argument("name", metavar="NAME", nargs="?", help="what to call it (snap0, snap1, ...)")


def _create(args: Namespace, app: App) -> int:
    instance, name = args.instance, args.name
    if name is None and "/" in instance:
        instance, name = _split(instance)
    body = {"name": name, "memory": args.memory}
    with app.client.stream("POST", instance_path(instance, "snapshots"), body=body) as response:
        made = _followed(response)
    write(f"{made['spec']['name']}/{made['name']}")
    return 0


def _ls_arguments(parser: Parser) -> None:
    add_listing(parser)
    parser.add_argument("instance", metavar="INSTANCE", nargs="?", help="only those of this instance")


def _ls(args: Namespace, app: App) -> int:
    snapshots = app.client.call("GET", "/v1/snapshots", query={"instance": args.instance})
    if args.quiet:
        for snapshot in snapshots:
            write(f"{snapshot['spec']['name']}/{snapshot['name']}")
    elif args.format == "json":
        write_json(snapshots)
    else:
        write_table(HEADER, [_row(snapshot) for snapshot in snapshots])
    return 0


def _row(snapshot: dict[str, Any]) -> tuple[str, ...]:
    spec, memory = snapshot["spec"], "yes" if snapshot["memory"] else "no"
    created = age(snapshot["created"]) + " ago"
    return snapshot["name"], spec["name"], spec["isolation"], memory, format_size(snapshot["size"]), created


def _restore_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("-f", "--force", action="store_true", help="end one that runs with KILL, and start it again")
    add("--no-memory", action="store_true", help="put the disk back alone, as after a power cut")
    add("instance", metavar="INSTANCE", help="name, id, or the beginning of an id")
    add("name", metavar="NAME", nargs="?", help="the snapshot; may also be said as INSTANCE/NAME")


def _restore(args: Namespace, app: App) -> int:
    instance, name = (args.instance, args.name) if args.name is not None else _split(args.instance)
    body = {"force": args.force, "memory": not args.no_memory}
    with app.client.stream("POST", _path(instance, name) + "/restore", body=body) as response:
        _followed(response)
    write(printable(f"{instance}/{name}"))
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("words", metavar="NAME", nargs="+", help="INSTANCE NAME..., or INSTANCE/NAME...")


def _rm(args: Namespace, app: App) -> int:
    first, *rest = args.words
    names = args.words if "/" in first else [f"{first}/{name}" for name in rest]
    if not names:
        _refuse(f"{first!r} is an instance: which of its snapshots?", f"see bulkhead snapshot ls {first}")
    return for_each(names, lambda name: app.client.call("DELETE", _path(*_split(name))))


def _path(instance: str, name: str) -> str:
    return f"{instance_path(instance)}/snapshots/{quote(name)}"


def _split(reference: str) -> tuple[str, str]:
    instance, slash, name = reference.partition("/")
    if not (instance and slash and name):
        _refuse(f"{reference!r} is no snapshot", "say INSTANCE/NAME; see bulkhead snapshot ls")
    return instance, name


def _refuse(what: str, hint: str) -> NoReturn:
    from bulkhead.errors import Refused

    raise Refused(what, hint=hint)


def _followed(response: Response) -> dict[str, Any]:
    """Show the steps on stderr; the result."""
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    return show(response.json_lines())


SUBCOMMANDS = {
    "ls": Subcommand("List snapshots", _ls_arguments, _ls),
    "create": Subcommand("Copy an instance's disk, and a VM's memory", _create_arguments, _create),
    "restore": Subcommand("Put a snapshot back: what has come since is lost", _restore_arguments, _restore),
    "rm": Subcommand("Remove snapshots", _rm_arguments, _rm),
}
