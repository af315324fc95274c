"""From the words of a command line to the module that carries them out."""

from __future__ import annotations

import sys
from importlib import import_module

from bulkhead.cli.app import App
from bulkhead.cli.table import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

USAGE = "bulkhead [--config FILE] COMMAND ..."
GLOBALS = (
    ("--config FILE", "the daemon's configuration ($BULKHEAD_CONFIG, /etc/bulkhead/config.toml)"),
    ("--version", "print the version"),
    ("-h, --help", "print this, or with a command its help"),
)


def main(words: list[str]) -> int:
    """Run a command line; its exit code. Raises the error tree's errors."""
    config, rest = _global_options(words)
    if not rest:
        sys.stdout.write(overview())
        return 0
    name = rest[0]
    if name not in COMMANDS:
        _refuse(f"unknown command {name!r}")
    return run(load(name), name, rest[1:], App(config))


def load(name: str) -> ModuleType:
    """A command's module: SUBCOMMANDS, or arguments() and main()."""
    return import_module(f"bulkhead.cli.{name.replace('-', '_')}")


def run(module: ModuleType, name: str, words: list[str], app: App) -> int:
    """Parse a command's arguments and run it."""
    from bulkhead.cli.parsing import Subcommand, run_group, subcommand_parser

    prog = f"bulkhead {name}"
    with app:
        if hasattr(module, "SUBCOMMANDS"):
            return run_group(prog, COMMANDS[name], module.SUBCOMMANDS, words, app)
        command = Subcommand(COMMANDS[name], module.arguments, module.main)
        return int(command.main(subcommand_parser(prog, command).parse_args(words), app))


def overview() -> str:
    """What `bulkhead --help` prints."""
    commands = "".join(f"  {name:<12}{line}\n" for name, line in COMMANDS.items())
    options = "".join(f"  {flag:<16}{line}\n" for flag, line in GLOBALS)
    return (
        f"usage: {USAGE}\n\nOne image, one spec, one hard plan, behind the wall that the risk calls for.\n\n"
        f"commands:\n{commands}\noptions:\n{options}\n`bulkhead COMMAND --help` tells more about a command.\n"
    )


def _global_options(words: list[str]) -> tuple[str | None, list[str]]:
    """The options before the command. By hand: only one parser is built for a command line."""
    config, position = None, 0
    while position < len(words) and words[position].startswith("-"):
        flag, equals, value = words[position].partition("=")
        position += 1
        if flag == "--config":
            if not equals:
                if position == len(words):
                    _refuse("--config needs a file")
                value = words[position]
                position += 1
            config = value
        elif flag in ("-h", "--help") and not equals:
            return config, []
        elif flag == "--version" and not equals:
            from importlib.metadata import version

            sys.stdout.write(f"bulkhead {version('bulkhead')}\n")
            raise SystemExit(0)
        else:
            _refuse(f"unknown option {words[position - 1]!r}")
    return config, words[position:]


def _refuse(what: str) -> NoReturn:
    from bulkhead.errors import Refused

    raise Refused(what, hint="see bulkhead --help")
