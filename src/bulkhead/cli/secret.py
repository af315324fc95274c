"""bulkhead secret"""

# pathlib takes 4 ms to load.
# ruff: noqa: PTH123

from __future__ import annotations

import os
import sys

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.options import Problems
from bulkhead.cli.output import age, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.cli.values import parse_label
from bulkhead.client import quote

MOST = 512_000
"""Bytes of a secret; the daemon has the last word."""


def _ls(args: Namespace, app: App) -> int:
    secrets = app.client.call("GET", "/v1/secrets")
    if args.quiet:
        for secret in secrets:
            write(secret["name"])
    elif args.format == "json":
        write_json(secrets)
    else:
        rows = [
            (one["name"], str(one["size"]), f"{age(one['created'])} ago", f"{age(one['updated'])} ago")
            for one in secrets
        ]
        write_table(("NAME", "BYTES", "CREATED", "UPDATED"), rows)
    return 0


def _create_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--env", action="store_true", help="FILE is the name of a variable of this process, which holds the value")
    add("--label", action="append", default=[], metavar="K=V", help="a label, for listings")
    add("--replace", action="store_true", help="put the value in the place of the one that is there")
    add("name", metavar="NAME", help="what to call it")
    add("file", metavar="FILE", help="what is to be in it; - for stdin")


def _create(args: Namespace, app: App) -> int:
    from base64 import b64encode

    problems = Problems("see bulkhead secret create --help")
    value = problems.of(lambda: value_of(args.file, env=args.env))
    labels = dict(problems.each(parse_label, args.label))
    problems.check()
    body = {
        "name": args.name,
        "data": b64encode(value or b"").decode(),
        "labels": labels,
        "replace": args.replace,
    }
    write(app.client.call("POST", "/v1/secrets", body=body)["name"])
    return 0


def value_of(source: str, *, env: bool) -> bytes:
    """What is in a file, in a variable, or comes from stdin. ValueError names the source, never the value."""
    if env:
        if source not in os.environ:
            raise ValueError(f"there is no variable {source}")
        value = os.fsencode(os.environ[source])
    elif source == "-":
        value = sys.stdin.buffer.read(MOST + 1)
    else:
        try:
            with open(source, "rb") as file:
                value = file.read(MOST + 1)
        except OSError as error:
            raise ValueError(f"{source} cannot be read: {error.strerror}") from None
    if not value:
        raise ValueError(f"{source} is empty")
    if len(value) > MOST:
        raise ValueError(f"{source} has more than {MOST} bytes")
    return value


def _names(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="the secrets")


def _inspect(args: Namespace, app: App) -> int:
    found: list[object] = []
    try:
        return for_each(
            args.names, lambda name: found.append(app.client.call("GET", f"/v1/secrets/{quote(name)}")), say=False
        )
    finally:
        write_json(found)


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.names, lambda name: app.client.call("DELETE", f"/v1/secrets/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List secrets", add_listing, _ls),
    "create": Subcommand("Keep a value under a name", _create_arguments, _create),
    "inspect": Subcommand("Show everything about secrets but what is in them, as a JSON array", _names, _inspect),
    "rm": Subcommand("Remove secrets that no instance has", _names, _rm),
}
