"""bulkhead run"""

from __future__ import annotations

from bulkhead.cli import options, pulling
from bulkhead.cli.app import App
from bulkhead.cli.output import tell_choice, write
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.session import DETACH_KEYS, run_session
from bulkhead.client import target


def arguments(parser: Parser) -> None:
    """How to run it, then what to run."""
    parser.add_argument("-d", "--detach", action="store_true", help="do not attach: print the instance's id")
    parser.add_argument("--dry-run", action="store_true", help="print what a start would do, and do nothing")
    add_detach_keys(parser)
    pulling.add_pull(parser)
    options.add_where(parser)
    options.add_request(parser)


def add_detach_keys(parser: Parser) -> None:
    """The keys that leave a terminal."""
    parser.add_argument(
        "--detach-keys", default=DETACH_KEYS, metavar="KEYS", help=f"keys that detach a terminal ({DETACH_KEYS})"
    )


def main(args: Namespace, app: App) -> int:
    """Run it; the workload's exit code."""
    request = options.request(args, app)
    if args.dry_run:
        write(app.client.call("POST", "/v1/dry-run", query=options.where(args), body=request)["text"].rstrip("\n"))
        return 0
    if "snapshot" in request:
        from bulkhead.cli.cloning import tell_copy

        tell_copy(app, request)
    return pulling.with_image(args, app, request, lambda: _run(args, app, request))


def _run(args: Namespace, app: App, request: dict[str, object]) -> int:
    if args.detach:
        spec = app.client.call("POST", "/v1/instances", query={"start": True, **options.where(args)}, body=request)[
            "spec"
        ]
        tell_choice(spec)
        write(spec["id"])
        return 0
    return run_session(app.client, target("/v1/run", options.where(args)), request, detach_keys=args.detach_keys)
