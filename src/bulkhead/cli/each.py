"""Commands that do the same to several instances: all are tried, and what failed is told at the end."""

from __future__ import annotations

from collections.abc import Callable

from bulkhead.cli.output import write
from bulkhead.cli.parsing import Parser
from bulkhead.client import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bulkhead.errors import BulkheadError


def add_instances(parser: Parser) -> None:
    """One name or more."""
    parser.add_argument("instances", metavar="NAME", nargs="+", help="name, id, or the beginning of an id")


def instance_path(name: str, action: str = "") -> str:
    """The API's path of an instance."""
    return f"/v1/instances/{quote(name)}" + (f"/{action}" if action else "")


def for_each(names: list[str], act: Callable[[str], object], *, say: bool = True) -> int:
    """Do `act` with every name, print those it succeeded with. Raises what failed: one error, or all of them."""
    failed: list[BulkheadError] = []
    for name in names:
        try:
            act(name)
        except Exception as error:
            from bulkhead.errors import BulkheadError

            if not isinstance(error, BulkheadError):
                raise
            failed.append(error)
        else:
            if say:
                write(name)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        from bulkhead.errors import Refused

        raise Refused([problem for error in failed for problem in error.problems])
    return 0
