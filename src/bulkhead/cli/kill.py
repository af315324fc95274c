"""bulkhead kill"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """Which signal, and which ones."""
    parser.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL", help="name or number (KILL)")
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Signal them."""
    body = {"signal": args.signal}
    return for_each(args.instances, lambda name: app.client.call("POST", instance_path(name, "kill"), body=body))
