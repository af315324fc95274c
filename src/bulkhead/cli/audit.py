"""bulkhead audit"""

from __future__ import annotations

import sys

from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.output import talk, write_json
from bulkhead.cli.parsing import Namespace, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEVELS = ("chroot", "container", "vm", "unikernel")


def arguments(parser: Parser) -> None:
    """What to look at, and how to tell it."""
    add = parser.add_argument
    add("--level", metavar="LEVEL", help="an instance of this level, made for it and thrown away")
    add("--all-levels", action="store_true", help="one of each level that works here, side by side")
    add("--image", metavar="IMAGE", help="what that is made of (the smallest image that fits)")
    add("--format", choices=("table", "json", "markdown"), default="table", help="how to print it (table)")
    add("instance", metavar="INSTANCE", nargs="?", help="a running instance: name, id, or the beginning of an id")


def main(args: Namespace, app: App) -> int:
    """Look, and print what was found. The score changes no exit code."""
    _check(args)
    if args.instance:
        found = _ask(app, instance_path(args.instance, "audit"), None)
        reports, one = [found], True
    elif args.level:
        reports, one = [_ask(app, "/v1/audit", {"level": args.level, "image": args.image})], True
    else:
        reports, one = _all_levels(app, args.image), False
    if args.format == "json":
        write_json(reports[0] if one else reports)
        return 0
    from bulkhead.cli import audited

    text = audited.markdown(reports) if args.format == "markdown" else audited.table(reports)
    sys.stdout.write(text)
    return 0


def _check(args: Namespace) -> None:
    from bulkhead.errors import Problem, Refused

    problems = []
    given = [bool(args.instance), args.level is not None, args.all_levels]
    if sum(given) != 1:
        what = "say one of an instance, --level LEVEL and --all-levels" if not any(given) else "one thing at a time"
        problems.append(Problem(what, "bulkhead audit web; bulkhead audit --level container"))
    if args.level is not None and args.level not in LEVELS:
        problems.append(Problem(f"--level {args.level!r} is no such level", ", ".join(LEVELS)))
    if args.image and args.instance:
        problems.append(Problem(f"--image {args.image} says nothing of an instance that is there", "leave it out"))
    if problems:
        raise Refused(problems)


def _all_levels(app: App, image: str | None) -> list[dict[str, Any]]:
    """A report for each level that works and that there is an image for; the others are told on stderr."""
    from bulkhead.errors import NotFound, Refused

    reports = []
    for level in app.client.call("GET", "/v1/isolation")["levels"]:
        name = level["level"]
        if not level["works"]:
            talk(f"{name}: does not work here: {level['reason']}")
            continue
        try:
            # A unikernel is made of an image of its own kind.
            given = None if name == "unikernel" else image
            reports.append(_ask(app, "/v1/audit", {"level": name, "image": given}))
        except (Refused, NotFound) as error:
            talk(f"{name}: {error}")
    if not reports:
        raise Refused("no level could be audited", hint="bulkhead image ls, bulkhead isolation ls")
    return reports


def _ask(app: App, path: str, body: dict[str, object] | None) -> dict[str, Any]:
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    with app.client.stream("POST", path, body=body) as response:
        return show(response.json_lines())
