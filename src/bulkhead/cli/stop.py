"""bulkhead stop"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.options import Problems, seconds
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """How, and which ones."""
    parser.add_argument("-t", "--time", metavar="S", help="seconds to wait before KILL (the instance's own)")
    parser.add_argument("-s", "--signal", metavar="SIGNAL", help="what to send first (the instance's own)")
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Stop them."""
    problems = Problems("see bulkhead stop --help")
    body = {"timeout": seconds("--time", args.time, problems), "signal": args.signal}
    problems.check()
    return for_each(args.instances, lambda name: app.client.call("POST", instance_path(name, "stop"), body=body))
