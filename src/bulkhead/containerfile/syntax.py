"""From lines to instructions: flags, forms, everything that is wrong at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from bulkhead.containerfile import flags, words
from bulkhead.containerfile.instructions import (
    Command,
    Copy,
    From,
    Health,
    Instruction,
    Onbuild,
    Pairs,
    Run,
    Words,
)
from bulkhead.containerfile.lines import Line
from bulkhead.errors import Problem, Refused

STAGE = re.compile(r"[a-z][a-z0-9_.-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NEVER_TRIGGERED = ("FROM", "MAINTAINER", "ONBUILD")


def parse(line: Line, escape: str) -> Instruction:
    """One instruction. Raises ValueError with the reason."""
    reader = _READERS.get(line.keyword)
    if reader is None:
        raise ValueError(f"instruction {line.keyword[:40]!r} is not known")
    if not line.rest:
        raise ValueError(f"{line.keyword} needs at least one argument")
    return reader(line, escape)


def parse_all(lines: tuple[Line, ...], escape: str) -> list[Instruction]:
    """Every instruction. Raises Refused with every line that is wrong."""
    found, problems = [], []
    for line in lines:
        try:
            found.append(parse(line, escape))
        except ValueError as error:
            problems.append(Problem(f"line {line.number}: {error}"))
    if problems:
        raise Refused(problems)
    return found


def array(text: str) -> tuple[str, ...] | None:
    """The exec form: a JSON array of strings; None where it is none."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        return None
    if any("\0" in item for item in found):
        raise ValueError("a NUL byte is in it")
    return tuple(found)


def _from(line: Line, escape: str) -> From:
    given, rest = flags.take(line.rest, {"platform"}, escape)
    found = rest.split()
    name = ""
    if len(found) == 3 and found[1].upper() == "AS":
        name = found[2].lower()
        if not STAGE.fullmatch(name):
            raise ValueError(f"stage {found[2]!r}: a stage's name has letters, digits, _ . - and begins with a letter")
    elif len(found) != 1:
        raise ValueError("FROM is followed by IMAGE or IMAGE AS NAME")
    return From(line, found[0], name, flags.one(given, "platform"))


def _run(line: Line, escape: str) -> Run:
    given, rest = flags.take(line.rest, {"mount", "network", "security"}, escape)
    if (security := flags.one(given, "security")) not in ("", "sandbox"):
        raise ValueError(f"--security={security}: RUN has no more rights than its wall gives")
    network = flags.one(given, "network")
    if network not in ("", "default", "none", "host"):
        raise ValueError(f"--network={network} is not default, none or host")
    mounts = tuple(flags.mount(text) for text in given.get("mount", ()))
    if not rest:
        raise ValueError("RUN needs a command")
    text = line.verbatim[len(line.rest) - len(rest) :] if line.heredocs else rest
    return Run(line, array(rest), text, line.heredocs, mounts, network)


def _copy(line: Line, escape: str) -> Copy:
    adds = line.keyword == "ADD"
    known = {"chown", "chmod", "link", "exclude"} | (set() if adds else {"from"})
    given, rest = flags.take(line.rest, known, escape)
    listed = array(rest)
    places = list(listed) if listed is not None else words.split(rest, escape)
    if len(places) < 2:
        raise ValueError(f"{line.keyword} needs at least a source and a destination")
    remote = [place for place in places[:-1] if re.match(r"(https?://|git@|git://|ssh://)", place)]
    if remote:
        raise ValueError(f"{remote[0][:80]!r} is not in the context: what comes over the network is got by a RUN")
    return Copy(
        line,
        tuple(places[:-1]),
        places[-1],
        line.heredocs,
        origin=flags.one(given, "from"),
        chown=flags.one(given, "chown"),
        chmod=flags.one(given, "chmod"),
        link=flags.switch(given, "link"),
        exclude=tuple(given.get("exclude", ())),
        unpack=adds,
    )


def _pairs(line: Line, escape: str) -> Pairs:
    """`A=1 B="two words"`, or the old `A value`."""
    found = words.split(line.rest, escape)
    if "=" not in found[0]:
        name, _, value = line.rest.partition(" ")
        if not value.strip():
            raise ValueError(f"{line.keyword} {name} has no value")
        return Pairs(line, ((_unquoted(name, line), value.strip()),))
    pairs = []
    for word in found:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{word[:60]!r} is not NAME=value")
        pairs.append((_unquoted(name, line), value))
    return Pairs(line, tuple(pairs))


def _unquoted(name: str, line: Line) -> str:
    if line.keyword == "LABEL":
        return name
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name[:60]!r} is not a variable's name")
    return name


def _arg(line: Line, escape: str) -> Pairs:
    pairs: list[tuple[str, str | None]] = []
    for word in words.split(line.rest, escape):
        name, equals, value = word.partition("=")
        pairs.append((_unquoted(name, line), value if equals else None))
    return Pairs(line, tuple(pairs))


def _one_word(line: Line, escape: str) -> Words:  # noqa: ARG001 - one signature for all
    return Words(line, (line.rest,))


def _list(line: Line, escape: str) -> Words:
    listed = array(line.rest) if line.keyword == "VOLUME" else None
    if listed is not None:
        if not all(listed):
            raise ValueError("a volume has no path")
        return Words(line, listed, literal=True)
    return Words(line, tuple(words.split(line.rest, escape)))


def _command(line: Line, escape: str) -> Command:  # noqa: ARG001 - one signature for all
    return Command(line, array(line.rest), line.rest)


def _shell(line: Line, escape: str) -> Command:  # noqa: ARG001 - one signature for all
    listed = array(line.rest)
    if not listed:
        raise ValueError('SHELL is followed by a JSON array such as ["/bin/sh", "-c"]')
    return Command(line, listed, line.rest)


def _health(line: Line, escape: str) -> Health:
    known = {"interval", "timeout", "start-period", "start-interval", "retries"}
    given, rest = flags.take(line.rest, known, escape)
    kind, _, command = rest.partition(" ")
    options = tuple(flags.health(name, flags.one(given, name)) for name in sorted(given))
    if kind.upper() == "NONE":
        if command.strip() or options:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return Health(line, ("NONE",))
    command = command.strip()
    if kind.upper() != "CMD" or not command:
        raise ValueError("HEALTHCHECK is followed by CMD and a command, or by NONE")
    listed = array(command)
    return Health(line, ("CMD", *listed) if listed is not None else ("CMD-SHELL", command), options)


def _onbuild(line: Line, escape: str) -> Onbuild:
    keyword, _, rest = line.rest.partition(" ")
    if keyword.upper() in _NEVER_TRIGGERED:
        raise ValueError(f"ONBUILD {keyword.upper()} is not allowed")
    inner = Line(line.number, keyword.upper(), rest.strip(), line.heredocs, line.verbatim[len(keyword) + 1 :].strip())
    parse(inner, escape)
    return Onbuild(line, line.verbatim)


_READERS: Mapping[str, Callable[[Line, str], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _copy,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _list,
    "FROM": _from,
    "HEALTHCHECK": _health,
    "LABEL": _pairs,
    "MAINTAINER": _one_word,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _one_word,
    "USER": _one_word,
    "VOLUME": _list,
    "WORKDIR": _one_word,
}
