"""bulkhead completion: what bash and zsh know of the command line, made from its own parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from bulkhead.cli import main as command_line
from bulkhead.cli.app import App
from bulkhead.cli.output import write
from bulkhead.cli.parsing import Namespace, Parser, Subcommand, subcommand_parser
from bulkhead.cli.table import COMMANDS

SHELLS = ("bash", "zsh")
KINDS = {
    "--config": "files",
    "--env-file": "files",
    "--from": "snapshots",
    "--inside": "instances",
    "--isolation": "auto chroot container vm unikernel",
    "--image": "images",
    "--kernel": "images",
    "--level": "chroot container vm unikernel",
    "--net": "networks",
    "--network": "networks",
    "--plan": "plans",
    "--trust": "own partner public",
    "--restart": "no on-failure always",
    "FILE": "files",
    "IMAGE": "images",
    "INSTANCE": "instances",
    "CONTEXT": "files",
    "SOURCE": "files",
    "TARGET": "files",
}
"""What stands for an option's value or an argument: words, or a list that is asked for. Others are not known."""
NAMES = {group: f"{group}s" for group in ("plan", "network", "volume", "secret", "snapshot")}
"""What NAME is of the subcommands of these; of others, an instance."""
UNKNOWN, REST = "-", "rest"


def arguments(parser: Parser) -> None:
    """For which shell."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash or zsh")


def main(args: Namespace, app: App) -> int:  # noqa: ARG001 - as every command has it
    """Print the script."""
    write(script(args.shell).rstrip("\n"))
    return 0


def commands() -> Iterator[tuple[str, Parser]]:
    """Every command and subcommand ("image ls") with its parser."""
    for name, line in COMMANDS.items():
        module = command_line.load(name)
        if not hasattr(module, "SUBCOMMANDS"):
            yield name, subcommand_parser(f"bulkhead {name}", Subcommand(line, module.arguments, module.main))
            continue
        for word, subcommand in module.SUBCOMMANDS.items():
            yield f"{name} {word}", subcommand_parser(f"bulkhead {name} {word}", subcommand)


def script(shell: str) -> str:
    """A completion script: the template beside this file, filled in."""
    case = _bash_case if shell == "bash" else _zsh_case
    groups: dict[str, list[str]] = {}
    cases = []
    for name, parser in commands():
        group, _, word = name.partition(" ")
        if word:
            groups.setdefault(group, []).append(word)
        cases += [f"    '{name}')", *(f"        {line}" for line in case(name, parser)), "        ;;"]
    words = {
        "@COMMANDS@": " ".join(COMMANDS),
        "@DESCRIBED@": "\n".join(f"            {_quoted(f'{name}:{line}')}" for name, line in COMMANDS.items()),
        "@GROUPS@": "\n".join(f"    {name}) words='{' '.join(words)}' ;;" for name, words in groups.items()),
        "@CASES@": "\n".join(cases),
    }
    text = Path(__file__).with_suffix(f".{shell}").read_text()
    for mark, replacement in words.items():
        text = text.replace(mark, replacement)
    return text


def _kind(command: str, action: argparse.Action) -> str:
    """What completes an argument or an option's value."""
    if action.choices:
        return " ".join(map(str, action.choices))
    if action.nargs == argparse.REMAINDER:
        return REST
    for name in (*action.option_strings, str(action.metavar)):
        if name in KINDS:
            return KINDS[name]
    if (
        action.metavar == "NAME"
        and not action.option_strings
        and not command.endswith((" create", " import", " restore"))
    ):
        return NAMES.get(command.partition(" ")[0], "instances")
    return UNKNOWN


def _bash_case(command: str, parser: Parser) -> list[str]:
    flags: list[str] = []
    valued: list[str] = []
    positional: list[str] = []
    for action in parser._actions:
        kind = _kind(command, action)
        flags += action.option_strings
        if not action.option_strings:
            positional.append(_quoted(kind + ("+" if action.nargs in ("+", "*") else "")))
        elif action.nargs != 0:
            valued += [f"[{flag}]={_quoted(kind)}" for flag in action.option_strings]
    return [f"flags='{' '.join(flags)}'", f"valued=({' '.join(valued)})", f"positional=({' '.join(positional)})"]


def _zsh_case(command: str, parser: Parser) -> list[str]:
    specs = []
    for action in parser._actions:
        kind, told = _kind(command, action), _escaped(action.help or "")
        value = f":{_escaped(str(action.metavar or action.dest))}:{_zsh_action(kind)}"
        if not action.option_strings:
            many = "*" if action.nargs in ("+", "*") else "*:" if kind == REST else ""
            specs.append(many + value)
            continue
        again = "*" if isinstance(action, argparse._AppendAction) else f"({' '.join(action.option_strings)})"
        specs += [f"{again}{flag}[{told}]{value if action.nargs != 0 else ''}" for flag in action.option_strings]
    return ["_arguments -S -s \\", *(f"    {_quoted(spec)} \\" for spec in specs[:-1]), f"    {_quoted(specs[-1])}"]


def _zsh_action(kind: str) -> str:
    if kind in (UNKNOWN, REST):
        return " "
    if kind == "files":
        return "_files"
    return f"__bulkhead_names {kind}" if kind in _LISTS else f"({kind})"


_LISTS = ("instances", "images", "plans", "networks", "volumes", "secrets", "snapshots")


def _escaped(text: str) -> str:
    """Text in a specification of zsh's _arguments."""
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text


def _quoted(text: str) -> str:
    """A word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
