"""bulkhead create"""

from __future__ import annotations

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.output import tell_choice, write
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """What to create."""
    options.add_request(parser)


def main(args: Namespace, app: App) -> int:
    """Create it; prints the id."""
    spec = app.client.call("POST", "/v1/instances", body=options.request(args, app))["spec"]
    tell_choice(spec)
    write(spec["id"])
    return 0
