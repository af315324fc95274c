"""Variables in values: $NAME, ${NAME}, ${NAME:-default}, ${NAME:?message}, ${NAME:+other}, and $$ for a dollar."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bulkhead.compose import nodes
from bulkhead.compose.nodes import Node, Scalar, Troubles

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
MOST_DEPTH = 20
MOST_TEXT = 1 << 20
Warn = Callable[[str], None]


def expand(text: str, variables: Mapping[str, str], warn: Warn = lambda _: None) -> str:
    """The text with variables put in. `warn` is told of names that are not set. Raises ValueError with the reason."""
    made, end = _expand(text, 0, variables, warn, nested=0)
    assert end == len(text)
    return made


def _expand(text: str, start: int, variables: Mapping[str, str], warn: Warn, *, nested: int) -> tuple[str, int]:
    """From `start` on, within `nested` braces up to the closing one; the text and where it ended."""
    if nested > MOST_DEPTH:
        raise ValueError(f"variables are nested more than {MOST_DEPTH} deep")
    parts: list[str] = []
    position = start
    while position < len(text):
        if nested and text[position] == "}":
            break
        if text[position] != "$":
            following = min(
                (at for at in (text.find("$", position), _brace(text, position, nested)) if at >= 0), default=-1
            )
            stop = len(text) if following < 0 else following
            parts.append(text[position:stop])
            position = stop
            continue
        if text.startswith("$$", position):
            parts.append("$")
            position += 2
        elif text.startswith("${", position):
            value, position = _braced(text, position, variables, warn, nested=nested + 1)
            parts.append(value)
        elif found := _NAME.match(text, position + 1):
            parts.append(_value(found[0], variables, warn))
            position = found.end()
        else:
            raise ValueError(f"{text!r} has a $ that begins no variable: write $$ for a dollar")
    made = "".join(parts)
    if len(made) > MOST_TEXT:
        raise ValueError(f"variables make it longer than {MOST_TEXT} characters")
    return made, position


def _brace(text: str, position: int, nested: int) -> int:
    return text.find("}", position) if nested else -1


def _braced(text: str, start: int, variables: Mapping[str, str], warn: Warn, *, nested: int) -> tuple[str, int]:
    found = _NAME.match(text, start + 2)
    if not found:
        raise ValueError(f"{text[start : start + 20]!r} names no variable: write $$ for a dollar")
    name, position = found[0], found.end()
    operator = next((each for each in _OPERATORS if text.startswith(each, position)), "")
    said: list[str] = []
    other, end = _expand(text, position + len(operator), variables, said.append, nested=nested)
    if end >= len(text):
        raise ValueError(f"{text[start : start + 40]!r} has no closing brace")
    if not operator and end > position:
        raise ValueError(f"{text[start : end + 1]!r}: after a variable's name come }} or one of {' '.join(_OPERATORS)}")
    value = variables.get(name)
    there = value is not None and not (operator.startswith(":") and value == "")
    kind = operator[-1:]
    if kind == "?" and not there:
        raise ValueError(f"the variable {name} is {'empty' if value == '' else 'not set'}: {other or 'it is required'}")
    if kind == "+":
        value = other if there else ""
    elif kind == "-" and not there:
        value = other
    else:
        said = []
        value = _value(name, variables, warn)
    for missing in said:
        warn(missing)
    return value, end + 1


def _value(name: str, variables: Mapping[str, str], warn: Warn) -> str:
    if name not in variables:
        warn(name)
    return variables.get(name, "")


def interpolate(node: Node, variables: Mapping[str, str], troubles: Troubles, warn: Warn, path: str = "") -> Node:
    """The tree with every value expanded; keys stay as they are."""
    if isinstance(node, Scalar):
        if "$" not in node.text:
            return node
        try:
            return replace(node, text=expand(node.text, variables, warn))
        except ValueError as error:
            troubles.add(node.place, path, str(error))
            return node
    if isinstance(node, nodes.Sequence):
        return replace(
            node,
            items=tuple(
                interpolate(each, variables, troubles, warn, f"{path}[{number}]")
                for number, each in enumerate(node.items)
            ),
        )
    assert isinstance(node, nodes.Mapping)
    inner = {
        key: interpolate(each, variables, troubles, warn, f"{path}.{key}" if path else key)
        for key, each in node.items.items()
    }
    return nodes.with_items(node, inner)
