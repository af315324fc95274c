"""YAML as a tree in which everything knows where it stands, so that an error can name its line and column.

Scalars are read as YAML 1.2 has them, and as docker does: `yes` and `22:22` are text. Anchors and merge keys are
expanded here, with a bound, since a few lines of them can stand for billions of nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import yaml

from bulkhead.errors import Problem, Refused

MOST_BYTES = 4 << 20
MOST_NODES = 200_000
MOST_DEPTH = 100
_NULL = ("", "~", "null", "Null", "NULL")
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MERGE = "tag:yaml.org,2002:merge"
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands; lines and columns from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Node:
    """Anything in the tree. `tag` is `!reset`, `!override` or ""."""

    place: Place
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Scalar(Node):
    """One value; `text` as it was written, `plain`: without quotes, so that it can be a number or nothing."""

    text: str = ""
    plain: bool = True

    @property
    def value(self) -> Value:
        """What it says."""
        return resolve(self.text) if self.plain else self.text


@dataclass(frozen=True, slots=True)
class Sequence(Node):
    """A list."""

    items: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Mapping(Node):
    """Keys with their values, in the order of the file."""

    items: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    """Where each key stands."""


class Troubles:
    """Collects everything that is wrong, each with its place."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, Problem]] = []

    def add(self, place: Place, path: str, what: str, hint: str = "") -> None:
        """One of them; `path` as in `services.web.ports`."""
        problem = Problem(f"{place}: {path}: {what}" if path else f"{place}: {what}", hint)
        if (place, problem) not in self.found:
            self.found.append((place, problem))

    def check(self) -> None:
        """Raise Refused where there is any, in the order of the files."""
        if self.found:
            files = list(dict.fromkeys(place.file for place, _ in self.found))
            ordered = sorted(self.found, key=lambda each: (files.index(each[0].file), each[0]))
            raise Refused([problem for _, problem in ordered])


def resolve(text: str) -> Value:
    """A plain scalar's value in YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse(text: str, file: str, troubles: Troubles) -> Mapping:
    """The one document of a file. Trifles that are wrong go to `troubles`; raises Refused where it cannot be read."""
    if len(text) > MOST_BYTES:
        raise Refused(f"{file} has more than {MOST_BYTES} bytes")
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise Refused(f"{where}: this is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise Refused(f"{file}: this is not YAML: {error}") from None
    if root is None:
        return Mapping(Place(file, 1, 1), items={}, keys={})
    tree = _Builder(file, troubles).build(root, 0)
    if not isinstance(tree, Mapping):
        raise Refused(f"{tree.place}: a compose file is a mapping, with services: in it")
    return tree


class _Builder:
    """From PyYAML's nodes to ours."""

    def __init__(self, file: str, troubles: Troubles) -> None:
        self._file, self._troubles, self._count = file, troubles, 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, depth: int) -> Node:
        """One node with all below it."""
        self._count += 1
        place = self._place(node)
        if self._count > MOST_NODES or depth > MOST_DEPTH:
            raise Refused(f"{place}: there are more than {MOST_NODES} values, or they are more than {MOST_DEPTH} deep")
        tag = node.tag if node.tag in ("!reset", "!override") else ""
        if node.tag and node.tag.startswith("!") and not tag and node.tag != "!":
            self._troubles.add(place, "", f"the tag {node.tag} means nothing here", "known are !reset and !override")
        if isinstance(node, yaml.ScalarNode):
            return Scalar(place, tag, text=node.value, plain=node.style in (None, "") and not node.tag.startswith("!"))
        if id(node) in self._open:
            raise Refused(f"{place}: an anchor contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return Sequence(place, tag, items=tuple(self.build(each, depth + 1) for each in node.value))
            return self._mapping(node, place, tag, depth)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, place: Place, tag: str, depth: int) -> Mapping:
        items: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        merged: dict[str, Node] = {}
        merged_keys: dict[str, Place] = {}
        for key, value in node.value:
            where = self._place(key)
            if key.tag == _MERGE:
                for source in self._merged(self.build(value, depth + 1), where):
                    for name, item in source.items.items():
                        if name not in merged:
                            merged[name], merged_keys[name] = item, source.keys[name]
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._troubles.add(where, "", "a key is text")
                continue
            if key.value in items:
                self._troubles.add(where, key.value, "this key is there twice", f"first at {keys[key.value]}")
                continue
            items[key.value], keys[key.value] = self.build(value, depth + 1), where
        both, where_both = {**merged, **items}, {**merged_keys, **keys}
        return Mapping(place, tag, items=both, keys=where_both)

    def _merged(self, node: Node, where: Place) -> Iterator[Mapping]:
        for each in node.items if isinstance(node, Sequence) else (node,):
            if isinstance(each, Mapping):
                yield each
            else:
                self._troubles.add(where, "<<", "what is merged is a mapping, or a list of them")

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)


def with_items(mapping: Mapping, items: dict[str, Node], keys: dict[str, Place] | None = None) -> Mapping:
    """The same mapping with other contents."""
    return replace(mapping, items=items, keys={**mapping.keys, **(keys or {})})
