"""Argument parsers that complain as the rest of Bulkhead does: an error with a hint, exit code 125."""

from __future__ import annotations

import argparse
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from bulkhead.cli.app import App

Namespace = argparse.Namespace
Arguments = Callable[["Parser"], None]
Main = Callable[[Namespace, "App"], int]


class Parser(argparse.ArgumentParser):
    """One command's parser."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, allow_abbrev=False, formatter_class=Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        from bulkhead.errors import Refused

        raise Refused(f"{self.prog}: {message}", hint=f"see {self.prog} --help")


class Formatter(argparse.HelpFormatter):
    """Options with room for their names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


Subcommand = namedtuple("Subcommand", ("help", "arguments", "main"))
"""One line of help, what adds the arguments to a parser, what runs it."""


def add_rest(parser: Parser, dest: str, metavar: str, help_line: str) -> None:
    """All words that are left, if any: argparse takes them for required (Python 3.11)."""
    parser.add_argument(dest, metavar=metavar, nargs=argparse.REMAINDER, help=help_line).required = False


def add_format(parser: Parser) -> None:
    """`--format table|json`, for listings."""
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how to print it (table)")


def add_listing(parser: Parser, ids: str = "names") -> None:
    """The flags of every listing."""
    add_format(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help=f"print {ids} only")


def group_parser(prog: str, help_line: str, subcommands: Mapping[str, Subcommand]) -> Parser:
    """The parser of a command with subcommands, for its help; the subcommands have parsers of their own."""
    lines = "\n".join(f"  {name:<12}{subcommand.help}" for name, subcommand in subcommands.items())
    parser = Parser(prog, usage=f"{prog} COMMAND ...", description=help_line, epilog=f"commands:\n{lines}")
    parser.formatter_class = RawFormatter
    return parser


class RawFormatter(Formatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the list of commands as it is."""


def subcommand_parser(prog: str, subcommand: Subcommand) -> Parser:
    """The parser of one command."""
    parser = Parser(prog, description=subcommand.help)
    subcommand.arguments(parser)
    return parser


def run_group(prog: str, help_line: str, subcommands: Mapping[str, Subcommand], words: list[str], app: App) -> int:
    """Choose the subcommand and run it."""
    parser = group_parser(prog, help_line, subcommands)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(parser.format_help())
        return 0
    subcommand = subcommands.get(words[0])
    if subcommand is None:
        parser.error(f"unknown command {words[0]!r}: {', '.join(subcommands)}")
    parser = subcommand_parser(f"{prog} {words[0]}", subcommand)
    # What takes all that is left cannot be mixed with options.
    rest = any(action.nargs == argparse.REMAINDER for action in parser._actions)
    args = parser.parse_args(words[1:]) if rest else parser.parse_intermixed_args(words[1:])
    return int(subcommand.main(args, app))
