"""bulkhead attach"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.session import DETACH_KEYS, run_session
from bulkhead.client import quote


def arguments(parser: Parser) -> None:
    """What to attach to, and how to leave."""
    parser.add_argument("--no-stdin", action="store_true", help="do not pass stdin on")
    parser.add_argument(
        "--detach-keys", default=DETACH_KEYS, metavar="KEYS", help=f"keys that detach a terminal ({DETACH_KEYS})"
    )
    parser.add_argument("instance", metavar="NAME", help="the instance")


def main(args: Namespace, app: App) -> int:
    """Be its terminal; the workload's exit code, 0 after detaching."""
    path = f"/v1/instances/{quote(args.instance)}/attach"
    return run_session(app.client, path, {"stdin": not args.no_stdin}, detach_keys=args.detach_keys)
