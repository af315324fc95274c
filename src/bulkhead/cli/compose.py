"""bulkhead compose: a project, with the commands that users of docker compose know."""

from __future__ import annotations

from bulkhead.cli import down, up
from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, add_format, add_listing, add_rest


def rearranged(words: list[str]) -> list[str]:
    """Options of the project may stand before the subcommand."""
    if not words or not words[0].startswith("-"):
        return words
    from bulkhead.cli import projects

    return projects.rearranged(words)


def _add_project(parser: Parser, *, short: bool = True) -> None:
    from bulkhead.cli import projects

    projects.add_project(parser, short=short)


def _add_services(parser: Parser) -> None:
    parser.add_argument("services", metavar="SERVICE", nargs="*", help="these services alone (all)")


def _ps_arguments(parser: Parser) -> None:
    _add_project(parser)
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    add_listing(parser, "ids")
    _add_services(parser)


def _logs_arguments(parser: Parser) -> None:
    _add_project(parser, short=False)
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with what is written, until all have ended")
    add("-n", "--tail", metavar="N", help="only the last N lines of each, or all (all)")
    add("--since", metavar="TIME", help="only from then on: 10m ago, or 2026-01-02T03:04:05")
    add("--until", metavar="TIME", help="only up to then")
    add("-t", "--timestamps", action="store_true", help="show when each line was written")
    add("--no-color", action="store_true", help="no colours")
    add("--no-log-prefix", action="store_true", help="no names before the lines")
    add("--format", choices=("text", "json"), default="text", help="how to print it (text)")
    _add_services(parser)


def _config_arguments(parser: Parser) -> None:
    _add_project(parser)
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="how to print it (yaml)")
    parser.add_argument("-q", "--quiet", action="store_true", help="only say whether it is in order")
    parser.add_argument("--services", action="store_true", help="print the names of the services")


def _stop_arguments(parser: Parser) -> None:
    _add_project(parser)
    parser.add_argument("-t", "--timeout", metavar="S", help="seconds to wait before KILL (the service's own)")
    _add_services(parser)


def _start_arguments(parser: Parser) -> None:
    _add_project(parser)
    _add_services(parser)


def _images_arguments(parser: Parser) -> None:
    from bulkhead.cli.registry import add_access

    _add_project(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_access(parser)
    _add_services(parser)


def _exec_arguments(parser: Parser) -> None:
    _add_project(parser)
    add = parser.add_argument
    add("-T", "--no-tty", action="store_true", help="no terminal (one, where stdin is one)")
    add("-e", "--env", action="append", default=[], metavar="K=V", help="set an environment variable")
    add("-w", "--workdir", metavar="DIR", help="working directory")
    add("-u", "--user", metavar="USER", help="user[:group], names or numbers of the image")
    add("--index", metavar="N", default="1", help="which instance of the service (1)")
    add("service", metavar="SERVICE", help="the service")
    add("program", metavar="CMD", help="the command")
    add_rest(parser, "words", "ARG", "its arguments")


def _ls_arguments(parser: Parser) -> None:
    add_format(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")


def _run(verb: str, args: Namespace, app: App) -> int:
    from bulkhead.cli import composing

    return int(getattr(composing, verb)(args, app))


SUBCOMMANDS = {
    "up": Subcommand("Make a project what its files say, and show its logs", up.arguments, up.main),
    "down": Subcommand("Stop and remove everything of a project", down.arguments, down.main),
    "ps": Subcommand("List a project's instances", _ps_arguments, lambda args, app: _run("ps", args, app)),
    "ls": Subcommand("List projects", _ls_arguments, lambda args, app: _run("ls", args, app)),
    "logs": Subcommand("Show the logs of a project", _logs_arguments, lambda args, app: _run("logs", args, app)),
    "config": Subcommand(
        "Judge the files, and print them merged, with variables put in",
        _config_arguments,
        lambda args, app: _run("config", args, app),
    ),
    "start": Subcommand("Start a project's instances", _start_arguments, lambda args, app: _run("start", args, app)),
    "stop": Subcommand("Stop a project's instances", _stop_arguments, lambda args, app: _run("stop", args, app)),
    "restart": Subcommand(
        "Stop a project's instances and start them again", _stop_arguments, lambda args, app: _run("restart", args, app)
    ),
    "exec": Subcommand(
        "Run a command in an instance of a service", _exec_arguments, lambda args, app: _run("execute", args, app)
    ),
    "pull": Subcommand("Pull the images of a project", _images_arguments, lambda args, app: _run("pull", args, app)),
    "build": Subcommand("Build the images of a project", _images_arguments, lambda args, app: _run("build", args, app)),
}
