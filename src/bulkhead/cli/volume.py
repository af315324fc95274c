"""bulkhead volume"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.options import Problems, quantity
from bulkhead.cli.output import age, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote
from bulkhead.quantities import format_size, parse_size


def _ls(args: Namespace, app: App) -> int:
    volumes = app.client.call("GET", "/v1/volumes")
    if args.quiet:
        for volume in volumes:
            write(volume["name"])
    elif args.format == "json":
        write_json(volumes)
    else:
        rows = [(volume["name"], format_size(volume["size"]), age(volume["created"]) + " ago") for volume in volumes]
        write_table(("NAME", "SIZE", "CREATED"), rows)
    return 0


def _create_arguments(parser: Parser) -> None:
    parser.add_argument("--size", metavar="SIZE", help="such as 5G (5G)")
    parser.add_argument("name", metavar="NAME", help="what to call it")


def _create(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead volume create --help")
    size = quantity("--size", args.size, parse_size, problems)
    problems.check()
    write(app.client.call("POST", "/v1/volumes", body={"name": args.name, "size": size})["name"])
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the volumes")


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.names, lambda name: app.client.call("DELETE", f"/v1/volumes/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List volumes", add_listing, _ls),
    "create": Subcommand("Make a volume", _create_arguments, _create),
    "rm": Subcommand("Remove volumes that no instance names, with their data", _rm_arguments, _rm),
}
