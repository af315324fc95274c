"""bulkhead move"""

from __future__ import annotations

import sys

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.output import printable, talk, write, write_json
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.quantities import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEVELS = ("chroot", "container", "vm")


def arguments(parser: Parser) -> None:
    """Where to, and which one."""
    add = parser.add_argument
    add("--isolation", metavar="LEVEL", help="the new wall: chroot, container or vm")
    add(
        "--host",
        metavar="HOST",
        help="another host of the fleet. A VM that runs goes there while it runs; all else is stopped, its disk is "
        "sent, and it is started there",
    )
    add("--stop", action="store_true", help="with --host: stop a VM as well, and start it there")
    add("--downtime", metavar="S", help="with --host: for how long a VM may stand still for its last changes (0.05)")
    add("--patience", metavar="S", help="with --host: in which a VM's changes must have become that small (300)")
    add(
        "--dry-run",
        action="store_true",
        help="with --host: only say what stands in the way, and how long it would take",
    )
    add("--rate", metavar="SIZE", help="with --host: send at most so much a second, such as 50M")
    add("--plan", metavar="NAME", help="another named plan")
    options.add_plan(parser)
    add("--network", metavar="NAME", help="another network, none, or host (a chroot has the host's, a vm never)")
    add("--within", metavar="S", help="seconds within which its health check must pass there (120)")
    add("--format", choices=("text", "json"), default="text", help="json: how it went, with the downtime in seconds")
    add("instance", metavar="NAME", help="name, id, or the beginning of an id")


def main(args: Namespace, app: App) -> int:
    """Move it; where it is not well behind the new wall, it is behind the old one again."""
    problems = options.Problems("see bulkhead move --help")
    if args.host is not None:
        return _to_host(args, app, problems)
    if args.dry_run or args.rate or args.stop or args.downtime or args.patience:
        problems.add("--dry-run, --rate, --stop, --downtime and --patience are of moves to a host: --host is missing")
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
    moved = _moved(args, app, body)
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


def _moved(args: Namespace, app: App, body: dict[str, object]) -> dict[str, Any]:
    if sys.stderr.isatty():
        from bulkhead.cli.progress import show
    else:
        from bulkhead.cli.steps import show
    with app.client.stream("POST", instance_path(args.instance, "move"), body=body) as response:
        found: dict[str, Any] = show(response.json_lines())
    return found


def _to_host(args: Namespace, app: App, problems: options.Problems) -> int:
    """Let it be on another host; where that comes to nothing, it is where it was."""
    given = {"--isolation": args.isolation, "--network": args.network, "--within": args.within}
    flags = [flag for flag, value in given.items() if value is not None]
    if args.plan is not None or options.plan(args, problems):
        flags.append("a plan")
    if flags:
        problems.add(f"--host together with {', '.join(flags)}: do one after the other")
    body: dict[str, object] = {"host": args.host, "dry_run": args.dry_run}
    rate = options.quantity("--rate", args.rate, parse_size, problems)
    if rate is not None:
        body["rate"] = int(rate)
    if args.stop:
        body["way"] = "stop"
    for flag in ("downtime", "patience"):
        given_seconds = options.seconds(f"--{flag}", getattr(args, flag), problems)
        if given_seconds is not None:
            body[flag] = given_seconds
    problems.check()
    moved = _moved(args, app, body)
    if args.format == "json":
        write_json(moved)
    else:
        _tell(moved)
    return 0


def _tell(moved: dict[str, Any]) -> None:
    passage, name = moved["hosts"], moved["instance"]["spec"]["name"]
    way, live = f"{name}: {passage['source']} -> {passage['target']}", passage["way"] == "live"
    if not passage["done"]:
        size, rate = format_size(passage["size"]), format_size(int(passage["rate"]))
        down = (
            f"down for about {passage['predicted']:.2f} s and its own end"
            if passage["predicted"]
            else "it does not run"
        )
        if live:
            down = f"while it runs, still for about {passage['predicted']:.2f} s and what the hosts have to say"
        write(printable(f"{way}, nothing stands in the way: {size} at {rate}/s, {down}"))
        return
    for what in moved["dropped"]:
        talk(printable(f"warning: {what}"))
    down = "it does not run"
    if moved["downtime"]:
        verb, more = ("stood still for", "") if live else ("down", " and its own end")
        down = f"{verb} {moved['downtime']:.2f} s (foreseen {passage['predicted']:.2f} s{more})"
    phases = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in passage["phases"].items())
    talk(printable(f"{way}, {down}, {format_size(passage['sent'])} sent"))
    talk(printable(f"  {phases}"))
    write(name)
