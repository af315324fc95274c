"""bulkhead down"""

from __future__ import annotations

from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser


def arguments(parser: Parser) -> None:
    """Which project, and how much of it."""
    from bulkhead.cli import projects

    projects.add_project(parser)
    add = parser.add_argument
    add("-v", "--volumes", action="store_true", help="remove the project's volumes too, with their data")
    add("--remove-orphans", action="store_true", help="as always here: nothing of the project is left")
    add("-t", "--timeout", metavar="S", help="seconds to wait before KILL (the service's own)")
    add("--quiet", "-q", action="store_true", help="show no progress")
    add("--dry-run", action="store_true", help="print what would be done, and do nothing")


def main(args: Namespace, app: App) -> int:
    """Stop and remove everything of the project."""
    from bulkhead.cli import upping

    return upping.down(args, app)
