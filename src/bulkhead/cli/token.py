"""bulkhead token"""

from __future__ import annotations

import time

from bulkhead.cli.app import App
from bulkhead.cli.each import for_each
from bulkhead.cli.options import Problems
from bulkhead.cli.output import age, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_listing
from bulkhead.client import quote
from bulkhead.quantities import parse_seconds

DAY = 86400


def _ls(args: Namespace, app: App) -> int:
    tokens = app.client.call("GET", "/v1/tokens")
    if args.quiet:
        for token in tokens:
            write(token["id"])
    elif args.format == "json":
        write_json(tokens)
    else:
        write_table(("ID", "USER", "SCOPES", "CREATED", "EXPIRES", "LABEL"), [_row(token) for token in tokens])
    return 0


def _row(token: dict[str, object]) -> tuple[object, ...]:
    expires, scopes = token["expires"], token["scopes"]
    assert isinstance(scopes, list)
    end = "never" if expires is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(expires))))
    created = age(float(str(token["created"]))) + " ago"
    shown = f"{end} (over)" if token["expired"] else end
    return token["id"], token["user"], ",".join(scopes) or "all", created, shown, token["label"] or "-"


def _create_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--scope", action="append", default=[], metavar="SCOPE", help="limit it to this permission; may be repeated")
    add("--expires", metavar="TIME", help="for how long it is good, such as 12h or 30d; never: for good (90d)")
    add("--label", metavar="TEXT", default="", help="what it is for")
    add("user", metavar="USER", nargs="?", help="whose it is (one's own)")


def _create(args: Namespace, app: App) -> int:
    problems = Problems("see bulkhead token create --help")
    text = args.expires or "90d"
    seconds = None if text == "never" else problems.of(lambda: _seconds(text))
    problems.check()
    body = {
        "user": args.user,
        "scopes": args.scope,
        "label": args.label,
        "expires": None if seconds is None else time.time() + float(seconds),
    }
    made = app.client.call("POST", "/v1/tokens", body=body)
    talk(f"token {made['id']} of {made['user']}: it is not shown again")
    write(made["token"])
    return 0


def _seconds(text: str) -> float:
    if text.endswith("d") and text[:-1].isdigit():
        return int(text[:-1]) * DAY
    return parse_seconds(text)


def _rm_arguments(parser: Parser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+", help="the tokens' ids")


def _rm(args: Namespace, app: App) -> int:
    return for_each(args.ids, lambda name: app.client.call("DELETE", f"/v1/tokens/{quote(name)}"))


SUBCOMMANDS = {
    "ls": Subcommand("List tokens", add_listing, _ls),
    "create": Subcommand("Make a token, which is printed this once", _create_arguments, _create),
    "rm": Subcommand("Make tokens good for nothing", _rm_arguments, _rm),
}
