"""bulkhead rm"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """How, and which ones."""
    parser.add_argument("-f", "--force", action="store_true", help="end running ones with KILL first")
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Remove them."""
    query = {"force": args.force}
    return for_each(args.instances, lambda name: app.client.call("DELETE", instance_path(name), query=query))
