"""bulkhead up"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """Which project, what to make anew, and whether to stay."""
    from bulkhead.cli import projects
    from bulkhead.cli.registry import add_access

    projects.add_project(parser)
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="leave them running: show no logs")
    add("--build", action="store_true", help="build the images first, also where they are there")
    add("--force-recreate", action="store_true", help="make instances anew, also where nothing has changed")
    add("--no-recreate", action="store_true", help="leave instances that are there as they are")
    add("--remove-orphans", action="store_true", help="remove instances of services that the files no longer have")
    add("--no-deps", action="store_true", help="leave alone what the named services depend on")
    add("--no-start", action="store_true", help="make everything and start nothing")
    add("--scale", action="append", default=[], metavar="SERVICE=N", help="how many instances of a service")
    add("--wait", action="store_true", help="return when all run, and are healthy where that is checked; with -d")
    add("--wait-timeout", metavar="S", help="how long to wait at most")
    add("-t", "--timeout", metavar="S", help="seconds to wait before KILL of what is stopped (the service's own)")
    add("--timestamps", action="store_true", help="show when each line of a log was written")
    add("--no-color", action="store_true", help="no colours in the logs")
    add("--no-log-prefix", action="store_true", help="no names before the lines of the logs")
    add("--quiet", "-q", action="store_true", help="show no progress")
    add("--dry-run", action="store_true", help="print what would be done, and do nothing")
    add_access(parser)
    add("services", metavar="SERVICE", nargs="*", help="these services alone, and what they depend on (all)")


def main(args: Namespace, app: App) -> int:
    """Make the project what its files say, and stay with its logs."""
    from bulkhead.cli import upping

    return upping.up(args, app)
