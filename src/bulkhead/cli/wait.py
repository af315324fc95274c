"""bulkhead wait"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.each import add_instances, for_each, instance_path
from bulkhead.cli.output import write
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """Which ones."""
    add_instances(parser)


def main(args: Namespace, app: App) -> int:
    """Print the exit codes, in the order of the names."""

    def wait(name: str) -> None:
        write(str(app.client.call("GET", instance_path(name, "wait"))["code"]))

    return for_each(args.instances, wait, say=False)
