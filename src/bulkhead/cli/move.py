"""bulkhead move"""

from __future__ import annotations

import sys

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.output import printable, talk, write, write_json
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.quantities import format_size

LEVELS = ("chroot", "container", "vm")


def arguments(parser: Parser) -> None:
    """Where to, and which one."""
    add = parser.add_argument
    add("--isolation", metavar="LEVEL", help="the new wall: chroot, container or vm")
    add("--plan", metavar="NAME", help="another named plan")
    options.add_plan(parser)
    add("--network", metavar="NAME", help="another network, none, or host (a chroot has the host's, a vm never)")
    add("--within", metavar="S", help="seconds within which its health check must pass there (120)")
    add("--format", choices=("text", "json"), default="text", help="json: how it went, with the downtime in seconds")
    add("instance", metavar="NAME", help="name, id, or the beginning of an id")


def main(args: Namespace, app: App) -> int:
    """Move it; where it is not well behind the new wall, it is behind the old one again."""
    problems = options.Problems("see bulkhead move --help")
    plan = options.plan(args, problems)
    if args.plan is not None:
        plan["name"] = args.plan
    if args.isolation not in LEVELS:
        given = (
            "--isolation is missing" if args.isolation is None else f"--isolation {args.isolation!r} is no such wall"
        )
        problems.add(f"{given}: {', '.join(LEVELS)}")
    body: dict[str, object] = {"isolation": args.isolation, "plan": plan, "network": args.network}
    within = options.seconds("--within", args.within, problems)
    if within is not None:
        body["within"] = within
    problems.check()
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    with app.client.stream("POST", instance_path(args.instance, "move"), body=body) as response:
        moved = show(response.json_lines())
    if args.format == "json":
        write_json(moved)
        return 0
    spec = moved["instance"]["spec"]
    for what in moved["dropped"]:
        talk(printable(f"left behind: {what}"))
    copied = f", {format_size(moved['copied'])} copied" if moved["copied"] else ""
    down = (
        f"down {moved['downtime']:.2f} s, well after {moved['well']:.2f} s" if moved["downtime"] else "it does not run"
    )
    talk(printable(f"{spec['name']}: {moved['source']} -> {spec['isolation']}, {down}{copied}"))
    write(spec["name"])
    return 0
