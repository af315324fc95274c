"""bulkhead create"""

from __future__ import annotations

from bulkhead.cli import options, pulling
from bulkhead.cli.app import App
from bulkhead.cli.output import tell_choice, write
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.where import add_where, where


def arguments(parser: Parser) -> None:
    """What to create."""
    pulling.add_pull(parser)
    add_where(parser)
    options.add_request(parser)


def main(args: Namespace, app: App) -> int:
    """Create it; prints the id."""
    request = options.request(args, app)
    if "snapshot" in request:
        from bulkhead.cli.cloning import tell_copy

        tell_copy(app, request)
    return pulling.with_image(args, app, request, lambda: _create(args, app, request))


def _create(args: Namespace, app: App, request: dict[str, object]) -> int:
    spec = app.client.call("POST", "/v1/instances", query=where(args), body=request)["spec"]
    tell_choice(spec)
    write(spec["id"])
    return 0
