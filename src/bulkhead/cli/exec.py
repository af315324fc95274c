"""bulkhead exec"""

from __future__ import annotations

from bulkhead.cli import terminal
from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser, add_rest
from bulkhead.cli.session import DETACH_KEYS, run_session
from bulkhead.client import quote


def arguments(parser: Parser) -> None:
    """How to run it, where, and what."""
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="leave it running and do not wait for it")
    add("-i", "--interactive", action="store_true", help="pass stdin on")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="K=V",
        help="set an environment variable; K alone passes it on",
    )
    add(
        "--env-file", action="append", default=[], metavar="FILE", help="environment variables from a file of K=V lines"
    )
    add("-w", "--workdir", metavar="DIR", help="working directory")
    add("-u", "--user", metavar="USER", help="user[:group], names or numbers of the image")
    add("--detach-keys", default=DETACH_KEYS, metavar="KEYS", help=f"keys that detach a terminal ({DETACH_KEYS})")
    add("instance", metavar="NAME", help="the instance")
    add("program", metavar="CMD", help="the command")
    add_rest(parser, "words", "ARG", "its arguments")


def main(args: Namespace, app: App) -> int:
    """Run it; its exit code."""
    request: dict[str, object] = {"command": [args.program, *args.words], "tty": args.tty, "stdin": args.interactive}
    if args.env or args.env_file:
        from bulkhead.cli.options import Problems, environment

        problems = Problems("see bulkhead exec --help")
        request["env"] = environment(args.env, args.env_file, problems)
        problems.check()
    if args.user is not None:
        request["user"] = args.user
    if args.workdir is not None:
        request["workdir"] = args.workdir
    path = f"/v1/instances/{quote(args.instance)}/exec"
    if args.detach:
        app.client.call("POST", path, body={**request, "stdin": False, "detach": True})
        return 0
    if args.tty:
        request["rows"], request["columns"] = terminal.size(0)
    return run_session(app.client, path, request, detach_keys=args.detach_keys)
