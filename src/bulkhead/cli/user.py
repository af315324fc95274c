"""bulkhead user"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.output import age, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote

ROLES = ("admin", "operator", "tenant", "viewer")


def _ls(args: Namespace, app: App) -> int:
    users = app.client.call("GET", "/v1/users")
    if args.quiet:
        for user in users:
            write(user["name"])
    elif args.format == "json":
        write_json(users)
    else:
        rows = [(user["name"], user["role"], user["tenant"] or "-", age(user["created"]) + " ago") for user in users]
        write_table(("NAME", "ROLE", "TENANT", "CREATED"), rows)
    return 0


def _create_arguments(parser: Parser) -> None:
    parser.add_argument("--role", choices=ROLES, default="tenant", help="what it may do (tenant)")
    parser.add_argument("--tenant", metavar="TENANT", help="whose things it finds; admins and operators: everybody's")
    parser.add_argument("name", metavar="USER", help="what to call it; a client certificate's common name")


def _create(args: Namespace, app: App) -> int:
    body = {"name": args.name, "role": args.role, "tenant": args.tenant}
    write(app.client.call("POST", "/v1/users", body=body)["name"])
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="USER", nargs="+", help="the users")


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.names, lambda name: app.client.call("DELETE", f"/v1/users/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List users", add_listing, _ls),
    "create": Subcommand("Make a user", _create_arguments, _create),
    "rm": Subcommand("Remove users with all their tokens", _rm_arguments, _rm),
}
