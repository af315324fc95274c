"""Where in a fleet an instance is to run: options of run and create."""

from __future__ import annotations

from bulkhead.cli.parsing import Namespace, Parser

PLACES = ("constraints", "affinity", "anti_affinity")


def add_where(parser: Parser) -> None:
    """On which host of a fleet."""
    add = parser.add_argument
    add("--host", metavar="HOST", help="the host of the fleet that it is to be on")
    add(
        "--constraint",
        dest="constraints",
        action="append",
        default=[],
        metavar="LABEL",
        help="what its host's labels must be: KEY=VALUE, KEY!=VALUE, KEY, !KEY",
    )
    add(
        "--affinity",
        action="append",
        default=[],
        metavar="[~]NAME|K=V",
        help="on the host of an instance with this name or label; ~: where that can be",
    )
    add(
        "--anti-affinity",
        action="append",
        default=[],
        metavar="[~]NAME|K=V",
        help="on another host than instances with this name or label; ~: where that can be",
    )


def where(args: Namespace) -> dict[str, str]:
    """The query that says on which host of a fleet something is to be made; nothing where that was not given."""
    return {"host": args.host} if args.host else {}


def wished(args: Namespace) -> dict[str, list[str]]:
    """What has to hold of the host, as the API takes it; nothing where nothing was said."""
    given = {name: list(getattr(args, name, None) or ()) for name in PLACES}
    return {name: each for name, each in given.items() if each}
