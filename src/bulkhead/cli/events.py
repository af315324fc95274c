"""bulkhead events"""

from __future__ import annotations

import json
import sys

from bulkhead.cli.app import App
from bulkhead.cli.logs import stamp, times
from bulkhead.cli.output import printable, short_id
from bulkhead.cli.parsing import Namespace, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: Parser) -> None:
    """Which ones, and how."""
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with what happens")
    add("--since", metavar="TIME", help="only from then on: 10m ago, or 2026-01-02T03:04:05")
    add("--until", metavar="TIME", help="only up to then")
    add("--format", choices=("table", "json"), default="table", help="how to print it: json is a line each (table)")


def main(args: Namespace, app: App) -> int:
    """Print them, the oldest first."""
    query = {**times(args, "see bulkhead events --help"), "follow": args.follow or None}
    with app.client.stream("GET", "/v1/events", query=query) as response:
        for event in response.json_lines():
            sys.stdout.write((json.dumps(event) if args.format == "json" else line(event)) + "\n")
            if args.follow:
                sys.stdout.flush()
    return 0


def line(event: dict[str, Any]) -> str:
    """An event in words."""
    attributes = " ".join(f"{key}={value}" for key, value in event["attributes"].items())
    who = f"{event['name']} ({short_id(event['id'])})" if event["name"] else event["id"]
    return printable(f"{stamp(event['when'])} {event['kind']} {event['action']} {who} {attributes}".rstrip())
