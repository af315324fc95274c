"""bulkhead network"""

from __future__ import annotations

from typing import Any

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.output import age, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote


def _ls(args: Namespace, app: App) -> int:
    networks = app.client.call("GET", "/v1/networks")
    if args.quiet:
        for network in networks:
            write(network["name"])
    elif args.format == "json":
        write_json(networks)
    else:
        rows = [
            (network["name"], _kind(network), network["id"], network["subnet4"], network["subnet6"], _since(network))
            for network in networks
        ]
        write_table(("NAME", "SCOPE", "ID", "IPV4", "IPV6", "CREATED"), rows)
    return 0


def _kind(network: dict[str, Any]) -> str:
    if not network["overlay"]:
        return "host"
    return "fleet" if network["overlay"]["encrypted"] else "fleet, unencrypted"


def _since(network: dict[str, Any]) -> str:
    return age(network["created"]) + " ago"


def _create_arguments(parser: Parser) -> None:
    parser.add_argument("--subnet", metavar="CIDR", help="IPv4 subnet, such as 10.20.0.0/24 (one from the pool)")
    parser.add_argument("--subnet6", metavar="CIDR", help="IPv6 subnet (one from the pool)")
    parser.add_argument("--fleet", action="store_true", help="one network on all hosts of the fleet")
    unencrypted = "with --fleet: what goes from host to host can be read by whoever is on the way"
    parser.add_argument("--unencrypted", action="store_true", help=unencrypted)
    parser.add_argument("name", metavar="NAME", help="what to call it")


def _create(args: Namespace, app: App) -> int:
    body = {"name": args.name, "subnet4": args.subnet, "subnet6": args.subnet6}
    body |= {"fleet": args.fleet, "unencrypted": args.unencrypted}
    write(app.client.call("POST", "/v1/networks", body=body)["name"])
    return 0


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the networks")


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.names, lambda name: app.client.call("DELETE", f"/v1/networks/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List networks", add_listing, _ls),
    "create": Subcommand("Make a network", _create_arguments, _create),
    "rm": Subcommand("Remove networks that no instance is on", _rm_arguments, _rm),
}
