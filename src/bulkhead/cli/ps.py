"""bulkhead ps"""

from __future__ import annotations

import time

from bulkhead.cli.app import App
from bulkhead.cli.output import age, short_id, talk, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, add_listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "LEVEL")
ALIVE = ("starting", "running", "paused", "stopping")
AWAY = {
    "unheard": "Host does not answer",
    "lost": "Lost with its host",
    "waiting": "Waits for a place",
    "recovering": "Recovering",
}
"""States of what cannot be asked for, in words: whether it runs is not known."""
MOST_REASONS = 10
COMMAND_WIDTH, IMAGE_WIDTH = 24, 40
FILTERS = ("name", "id", "state", "label", "isolation", "image", "health", "inside")
FILTER_HELP = f"K is {', '.join(FILTERS)}; or a compose file: those of its project"
NESTED = "└─ "
YAML = (".yaml", ".yml")
"""How a compose file's name ends."""


def arguments(parser: Parser) -> None:
    """Which ones, and how."""
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="K=V", help=FILTER_HELP)
    parser.add_argument(
        "--tree", action="store_true", help="show instances within VMs below these, and VMs of one instance alone"
    )
    parser.add_argument("--no-trunc", action="store_true", help="show ids, images and commands whole")
    add_listing(parser, "ids")


def main(args: Namespace, app: App) -> int:
    """List them."""
    if files := [text for text in args.filter if "=" not in text and text.endswith(YAML)]:
        return _of_project(args, app, files)
    filters = [_filter(text) for text in args.filter]
    everything = args.all or any(key == "state" for key, _ in filters)
    known = app.client.call("GET", "/v1/instances")
    names = {instance["spec"]["id"]: instance["spec"]["name"] for instance in known}
    instances = [
        instance
        for instance in known
        if (everything or instance["state"] in ALIVE or instance["state"] in AWAY)
        and all(_matches(instance, *wanted, names) for wanted in filters)
    ]
    if args.tree:
        instances = _nested(instances)
    elif args.format != "json":
        # A VM that is there for one instance alone comes and goes with that: its name is none to give a command.
        instances = [instance for instance in instances if not instance["spec"]["only_for"]]
    if args.quiet:
        for instance in instances:
            write(short_id(instance["spec"]["id"], whole=args.no_trunc))
    elif args.format == "json":
        write_json(instances)
    else:
        now = time.time()
        shown = {instance["spec"]["id"] for instance in instances}
        rows = []
        for instance in instances:
            below = args.tree and instance["spec"]["inside"] in shown
            rows.append(_row(instance, now, names, whole=args.no_trunc, below=below))
        if any("host" in instance for instance in instances):  # of a fleet
            hosts = (instance.get("host", "-") for instance in instances)
            write_table((*HEADER, "HOST"), [(*row, host) for row, host in zip(rows, hosts, strict=True)])
        else:
            write_table(HEADER, rows)
        _tell_away([instance for instance in instances if instance["state"] in AWAY])
    return 0


def _tell_away(instances: list[dict[str, Any]]) -> None:
    """Why these cannot be asked for."""
    for instance in instances[:MOST_REASONS]:
        talk(f"{instance['spec']['name']}: {instance['reason']}")
    if len(instances) > MOST_REASONS:
        talk(f"and {len(instances) - MOST_REASONS} more: bulkhead cluster status")


def _of_project(args: Namespace, app: App, files: list[str]) -> int:
    """`ps -f compose.yaml`: the instances of a project."""
    from bulkhead.cli import composing
    from bulkhead.errors import Refused

    if len(files) < len(args.filter) or args.tree or args.no_trunc:
        raise Refused(f"{files[0]} is a compose file: no other filter, --tree or --no-trunc goes with it")
    of = {"file": files, "project_name": None, "project_directory": None, "env_file": [], "profile": [], "services": []}
    return composing.ps(Namespace(**{**vars(args), **of}), app)


def _nested(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is within a VM behind it; where that is not among them, in its own place."""
    shown = {instance["spec"]["id"] for instance in instances}
    within: dict[str, list[dict[str, Any]]] = {}
    for instance in instances:
        home = instance["spec"]["inside"]
        within.setdefault(home if home in shown else "", []).append(instance)
    return [each for top in within.get("", []) for each in (top, *within.get(top["spec"]["id"], []))]


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        from bulkhead.errors import Refused

        raise Refused(f"--filter {text!r} is not K=V", hint=f"K is one of {', '.join(FILTERS)}")
    return key, value


def _matches(instance: dict[str, Any], key: str, value: str, names: dict[str, str]) -> bool:
    spec = instance["spec"]
    match key:
        case "name":
            return value in spec["name"]
        case "id":
            return bool(spec["id"].startswith(value))
        case "state" | "health":
            return bool(instance[key] == value)
        case "label":
            name, equals, wanted = value.partition("=")
            return name in spec["labels"] and (not equals or spec["labels"][name] == wanted)
        case "inside":
            return bool(spec["inside"]) and (names.get(spec["inside"]) == value or spec["inside"].startswith(value))
    return bool(spec[key] == value)


def _row(instance: dict[str, Any], now: float, names: dict[str, str], *, whole: bool, below: bool) -> tuple[str, ...]:
    spec = instance["spec"]
    home = names.get(spec["inside"], "") if spec["inside"] else ""
    return (
        short_id(spec["id"], whole=whole),
        f"{NESTED if below else ''}{spec['name']}",
        _cut(spec["image"], IMAGE_WIDTH, whole=whole),
        _cut(" ".join(spec["argv"]), COMMAND_WIDTH, whole=whole),
        age(spec["created"], now) + " ago" if spec["created"] else "-",
        status(instance, now),
        ", ".join(port_text(port) for port in spec["ports"]),
        f"{spec['isolation']} in {home}" if home else spec["isolation"],
    )


def _cut(text: str, width: int, *, whole: bool) -> str:
    return text if whole or len(text) <= width else text[: width - 3] + "..."


def port_text(port: dict[str, Any]) -> str:
    """A published port, as docker shows it."""
    ip = port["host_ip"] or "0.0.0.0"  # noqa: S104 - that is what it means
    shown = f"[{ip}]" if ":" in ip else ip
    return f"{shown}:{port['host_port']}->{port['port']}/{port['protocol']}"


def status(instance: dict[str, Any], now: float) -> str:
    """The state in words: "Up 5 minutes (healthy)", "Exited (1) 2 hours ago"."""
    state, end = instance["state"], instance["exit"]
    if state == "running":
        health = f" ({instance['health']})" if instance["health"] else ""
        return f"Up {age(instance['started'], now)}{health}"
    if state == "paused":
        return f"Up {age(instance['started'], now)} (paused)"
    if state == "exited" and end:
        reason = ", out of memory" if end["oom"] else ""
        return f"Exited ({end['code']}{reason}) {age(end['ended'], now)} ago"
    return AWAY.get(state) or str(state).capitalize()
