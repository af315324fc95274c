"""bulkhead inspect"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.output import write_json
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """Which ones."""
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Print a JSON array of those that there are."""
    found: list[object] = []
    try:
        return for_each(
            args.instances,
            lambda name: found.append(app.client.call("GET", instance_path(name, "describe"))),
            say=False,
        )
    finally:
        write_json(found)
