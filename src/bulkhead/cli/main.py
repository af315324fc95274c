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

USAGE = "bulkhead [--config FILE | --url URL] COMMAND ..."
GLOBALS = (
    ("--config FILE", "the daemon's configuration ($BULKHEAD_CONFIG, /etc/bulkhead/config.toml)"),
    ("--url URL", "a daemon elsewhere: https://HOST:PORT, unix:///PATH ($BULKHEAD_HOST)"),
    ("--tlscacert FILE", "the CA that its certificate is of ($BULKHEAD_TLSCACERT)"),
    ("--tlscert FILE", "a client certificate ($BULKHEAD_TLSCERT)"),
    ("--tlskey FILE", "its key ($BULKHEAD_TLSKEY)"),
    ("--version", "print the version"),
    ("-h, --help", "print this, or with a command its help"),
)


VALUED = {
    "--config": "a file",
    "--url": "an address",
    **dict.fromkeys(("--tlscacert", "--tlscert", "--tlskey"), "a file"),
}


def main(words: list[str]) -> int:
    """Run a command line; its exit code. Raises the error tree's errors."""
    config, options, rest = _global_options(words)
    if not rest:
        sys.stdout.write(overview())
        return 0
    name = rest[0]
    if name not in COMMANDS:
        _refuse(f"unknown command {name!r}")
    return run(load(name), name, rest[1:], App(config, options))


def load(name: str) -> ModuleType:
    """A command's module: SUBCOMMANDS, or arguments() and main()."""
    return import_module(f"bulkhead.cli.{name.replace('-', '_')}")


def run(module: ModuleType, name: str, words: list[str], app: App) -> int:
    """Parse a command's arguments and run it."""
    from bulkhead.cli.parsing import Subcommand, run_group, subcommand_parser

    prog = f"bulkhead {name}"
    with app:
        if hasattr(module, "SUBCOMMANDS"):
            words = module.rearranged(words) if hasattr(module, "rearranged") else words
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


def _global_options(words: list[str]) -> tuple[str | None, dict[str, str], list[str]]:
    """The options before the command. By hand: only one parser is built for a command line."""
    config, position = None, 0
    options: dict[str, str] = {}
    while position < len(words) and words[position].startswith("-"):
        flag, equals, value = words[position].partition("=")
        position += 1
        if flag in VALUED:
            if not equals:
                if position == len(words):
                    _refuse(f"{flag} needs {VALUED[flag]}")
                value = words[position]
                position += 1
            options[flag] = value
        elif flag in ("-h", "--help") and not equals:
            return config, options, []
        elif flag == "--version" and not equals:
            from importlib.metadata import version

            sys.stdout.write(f"bulkhead {version('bulkhead')}\n")
            raise SystemExit(0)
        else:
            _refuse(f"unknown option {words[position - 1]!r}")
    config = options.pop("--config", None)
    if config is not None and "--url" in options:
        _refuse("--config and --url name two daemons")
    return config, options, words[position:]


def _refuse(what: str) -> NoReturn:
    from bulkhead.errors import Refused

    raise Refused(what, hint="see bulkhead --help")
