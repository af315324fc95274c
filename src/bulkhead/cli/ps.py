"""bulkhead ps"""

from __future__ import annotations

import time

from bulkhead.cli.app import App
from bulkhead.cli.output import age, short_id, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser, add_listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "LEVEL")
ALIVE = ("starting", "running", "paused", "stopping")
COMMAND_WIDTH, IMAGE_WIDTH = 24, 40
FILTERS = ("name", "id", "state", "label", "isolation", "image", "health")


def arguments(parser: Parser) -> None:
    """Which ones, and how."""
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="K=V", help=f"K is {', '.join(FILTERS)}")
    parser.add_argument("--no-trunc", action="store_true", help="show ids, images and commands whole")
    add_listing(parser, "ids")


def main(args: Namespace, app: App) -> int:
    """List them."""
    filters = [_filter(text) for text in args.filter]
    everything = args.all or any(key == "state" for key, _ in filters)
    instances = [
        instance
        for instance in app.client.call("GET", "/v1/instances")
        if (everything or instance["state"] in ALIVE) and all(_matches(instance, *wanted) for wanted in filters)
    ]
    if args.quiet:
        for instance in instances:
            write(short_id(instance["spec"]["id"], whole=args.no_trunc))
    elif args.format == "json":
        write_json(instances)
    else:
        now = time.time()
        write_table(HEADER, [_row(instance, now, whole=args.no_trunc) for instance in instances])
    return 0


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        from bulkhead.errors import Refused

        raise Refused(f"--filter {text!r} is not K=V", hint=f"K is one of {', '.join(FILTERS)}")
    return key, value


def _matches(instance: dict[str, Any], key: str, value: str) -> bool:
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
    return bool(spec[key] == value)


def _row(instance: dict[str, Any], now: float, *, whole: bool) -> tuple[str, ...]:
    spec = instance["spec"]
    return (
        short_id(spec["id"], whole=whole),
        spec["name"],
        _cut(spec["image"], IMAGE_WIDTH, whole=whole),
        _cut(" ".join(spec["argv"]), COMMAND_WIDTH, whole=whole),
        age(spec["created"], now) + " ago",
        status(instance, now),
        ", ".join(port_text(port) for port in spec["ports"]),
        spec["isolation"],
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
    return str(state).capitalize()
