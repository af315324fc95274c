"""bulkhead run"""

from __future__ import annotations

from bulkhead.cli import options, pulling
from bulkhead.cli.app import App
from bulkhead.cli.output import tell_choice, write, write_json, write_table
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.session import DETACH_KEYS, run_session
from bulkhead.cli.where import add_where, where
from bulkhead.client import target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: Parser) -> None:
    """How to run it, then what to run."""
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="do not attach: print the instance's id")
    add("--dry-run", action="store_true", help="print what a start would do, and do nothing")
    add("--explain", action="store_true", help="print which host of the fleet it would go to, and why; do nothing")
    add("--format", choices=("table", "json"), help="of --explain: table or json (table)")
    add_detach_keys(parser)
    pulling.add_pull(parser)
    add_where(parser)
    options.add_request(parser)


def add_detach_keys(parser: Parser) -> None:
    """The keys that leave a terminal."""
    parser.add_argument(
        "--detach-keys", default=DETACH_KEYS, metavar="KEYS", help=f"keys that detach a terminal ({DETACH_KEYS})"
    )


def main(args: Namespace, app: App) -> int:
    """Run it; the workload's exit code."""
    if args.format and not args.explain:
        raise _refused("--format is of --explain alone", "leave it out")
    if args.explain and args.dry_run:
        raise _refused("--explain and --dry-run exclude each other", "give only one")
    request = options.request(args, app)
    if args.explain:
        return _explain(args, app, request)
    if args.dry_run:
        write(app.client.call("POST", "/v1/dry-run", query=where(args), body=request)["text"].rstrip("\n"))
        return 0
    if "snapshot" in request:
        from bulkhead.cli.cloning import tell_copy

        tell_copy(app, request)
    return pulling.with_image(args, app, request, lambda: _run(args, app, request))


def _refused(what: str, hint: str) -> Exception:
    from bulkhead.errors import Refused

    return Refused(what, hint=hint)


def _explain(args: Namespace, app: App, request: dict[str, object]) -> int:
    """Which host it would go to; 1 where none would do."""
    found = app.client.call("POST", "/v1/fleet/explain", query=where(args), body=request)
    if args.format == "json":
        write_json(found)
    else:
        write_table(("HOST", "VERDICT", "SCORE", "REASON"), [_judged(line) for line in found["hosts"]])
    return 0 if found["feasible"] else 1


def _judged(line: dict[str, Any]) -> tuple[str, ...]:
    host = line["host"] if line["hosts"] == 1 else f"{line['hosts']} hosts"
    return host, line["verdict"], "-" if line["score"] is None else f"{line['score']:.3f}", line["reason"] or "-"


def _run(args: Namespace, app: App, request: dict[str, object]) -> int:
    if args.detach:
        spec = app.client.call("POST", "/v1/instances", query={"start": True, **where(args)}, body=request)["spec"]
        tell_choice(spec)
        write(spec["id"])
        return 0
    return run_session(app.client, target("/v1/run", where(args)), request, detach_keys=args.detach_keys)
