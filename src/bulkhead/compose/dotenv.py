"""Files of variables, as docker compose reads them: K=V, quotes, comments, `export`, variables in values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bulkhead.compose.interpolation import expand

_KEY = re.compile(r"\s*(?:export\s+)?([a-zA-Z_][a-zA-Z0-9_.-]*)\s*(?:[=:]|$)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}


def parse(text: str, known: Mapping[str, str]) -> dict[str, str | None]:
    """What a file sets, in its order; None for a name alone: as the environment has it. `known` comes before what the
    file itself has set where a value names a variable. Raises ValueError with the line and the reason.
    """
    found: dict[str, str | None] = {}
    lines = text.lstrip("\ufeff").splitlines()
    number = 0
    while number < len(lines):
        begun, line = number + 1, lines[number]
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key, rest = _key(line)
            if rest is None:
                found[key] = None
                continue
            quote = rest[:1]
            if quote in ("'", '"'):
                while _closing(rest, quote) < 0:
                    if number == len(lines):
                        raise ValueError(f"the quote of {key} does not end")
                    rest += "\n" + lines[number]
                    number += 1
                value = _quoted(rest, quote)
            else:
                value = re.split(r"(?:^|\s)#", rest, maxsplit=1)[0].strip()
            if quote != "'":
                value = expand(value, {**{k: v or "" for k, v in found.items()}, **known})
            found[key] = value
        except ValueError as error:
            raise ValueError(f"line {begun}: {error}") from None
    return found


def _key(line: str) -> tuple[str, str | None]:
    match = _KEY.match(line)
    if not match:
        raise ValueError(f"{line.strip()[:40]!r} is not K=V")
    if match.end() == len(line) and line[-1:] not in "=:":
        return match[1], None
    return match[1], line[match.end() :].strip() if line[match.end() :].lstrip()[:1] not in "'\"" else line[
        match.end() :
    ].lstrip()


def _closing(text: str, quote: str) -> int:
    position = 1
    while position < len(text):
        if text[position] == "\\" and quote == '"':
            position += 2
            continue
        if text[position] == quote:
            return position
        position += 1
    return -1


def _quoted(text: str, quote: str) -> str:
    end = _closing(text, quote)
    after = text[end + 1 :].strip()
    if after and not after.startswith("#"):
        raise ValueError(f"{after[:20]!r} stands behind a quote")
    inner = text[1:end]
    if quote == "'":
        return inner
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), inner, flags=re.DOTALL)
