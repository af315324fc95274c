"""bulkhead pause"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """Which ones."""
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Freeze them."""
    return for_each(args.instances, lambda name: app.client.call("POST", instance_path(name, "pause")))
