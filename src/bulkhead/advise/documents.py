"""An estate as JSON: read by json and pydantic; where a value stands is looked up once something is wrong with it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bulkhead.advise.entries import Entries, EstateEntry, Told
from bulkhead.advise.troubles import Place, Troubles

Path = tuple[str | int, ...]
MOST_VALUES = 50_000_000
"""Of all series: each takes some 60 bytes while it is read."""
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def read(text: str, file: str, troubles: Troubles) -> Entries:
    """What the document says; nothing where it is none."""
    try:
        return _read(text, file, troubles)
    except RecursionError:  # what is just not too deep to be read may be so when its places are looked for
        troubles.add(Place(file, 1), "this is no JSON that can be read: it is nested too deeply")
        return Entries((), ())


def _read(text: str, file: str, troubles: Troubles) -> Entries:
    nothing = Entries((), ())
    if text.count(",") > MOST_VALUES:
        what = f"it has more than {MOST_VALUES} values"
        troubles.add(Place(file, 1), what, "give means over longer steps, or the use as CSV (--use)")
        return nothing
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        troubles.add(Place(file, error.lineno, error.colno), f"this is no JSON: {error.msg}")
        return nothing
    except ValueError as error:
        troubles.add(Place(file, 1), f"this is no JSON that can be read: {error}")
        return nothing
    try:
        estate = EstateEntry.model_validate(value)
    except ValidationError as error:
        _tell(text, value, file, error, troubles)
        return nothing
    paths: list[Path] = [("servers", at) for at in range(len(estate.servers))]
    paths += [("workloads", at) for at in range(len(estate.workloads))]
    begins = _places(text, file, locate(text, paths))
    spots = [Spot(text, file, path, begins[path]) for path in paths]
    servers = [Told(entry, spot) for entry, spot in zip(estate.servers, spots, strict=False)]
    workloads = [Told(entry, spot) for entry, spot in zip(estate.workloads, spots[len(servers) :], strict=True)]
    return Entries(tuple(servers), tuple(workloads), estate.start, estate.step)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an entry stands in the text."""

    text: str
    file: str
    path: Path
    begin: Place

    def at(self, name: str) -> Place:
        """Where a field stands, or where it would."""
        if not name:
            return self.begin
        path = (*self.path, *name.split("."))
        return place(self.text, self.file, path, locate(self.text, [path]))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"a key is there twice: {twice[:40]!r}")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _tell(text: str, value: Any, file: str, error: ValidationError, troubles: Troubles) -> None:
    """Every problem once, with its place: of a value that may be several things the first thing's words."""
    found: dict[Path, str] = {}
    for each in error.errors(include_url=False, include_input=False):
        path = _real(value, each["loc"])
        if each["type"] == "missing":
            path = (*path, str(each["loc"][-1]))
        message = str(each["msg"]).removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "there is no such key"
        elif each["type"] == "missing":
            message = "is missing"
        found.setdefault(path, message)
    # Of a list that might have been one number it is enough to tell which of its values is wrong.
    inner = {path[:-1] for path in found if path and isinstance(path[-1], int)}
    found = {path: message for path, message in found.items() if path not in inner}
    offsets = locate(text, found)
    for path, message in found.items():
        troubles.add(place(text, file, path, offsets), f"{_dotted(path)}: {message}")


def _real(value: Any, loc: Iterable[str | int]) -> Path:
    """As much of an error's place as is one in the document: pydantic adds names of alternatives."""
    path: list[str | int] = []
    for key in loc:
        if isinstance(value, list) and isinstance(key, str):
            continue
        known = key in value if isinstance(value, dict) else isinstance(value, list) and int(key) < len(value)
        if not known:
            break
        value = value[key]
        path.append(key)
    return tuple(path)


def _dotted(path: Path) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".") or "the document"


def place(text: str, file: str, path: Path, offsets: dict[Path, int]) -> Place:
    """Line and column of a path, or of the nearest that there is above it."""
    while path and path not in offsets:
        path = path[:-1]
    offset = offsets.get(path, 0)
    return Place(file, text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _places(text: str, file: str, offsets: dict[Path, int]) -> dict[Path, Place]:
    """All of them in one pass: the text may have tens of megabytes."""
    found, line, last = {}, 1, 0
    for path, offset in sorted(offsets.items(), key=lambda item: item[1]):
        line += text.count("\n", last, offset)
        last = offset
        found[path] = Place(file, line, offset - text.rfind("\n", 0, offset))
    return found


def locate(text: str, paths: Iterable[Path]) -> dict[Path, int]:
    """Offset of each value that there is at these paths or above them. The text is valid JSON."""
    wanted = {path[:length] for path in paths for length in range(len(path) + 1)}
    found: dict[Path, int] = {}
    _walk(text, _skip(text, 0), (), wanted, found)
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match
    return match.end()


def _walk(text: str, at: int, path: Path, wanted: set[Path], found: dict[Path, int]) -> int:
    """Go over one value; where it ends. Only what leads to a wanted path is looked into."""
    if path not in wanted:
        return int(_DECODER.raw_decode(text, at)[1])
    found[path] = at
    opening = text[at]
    if opening not in "{[":
        return int(_DECODER.raw_decode(text, at)[1])
    at = _skip(text, at + 1)
    number = 0
    while text[at] not in "}]":
        key: str | int = number
        if opening == "{":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        at = _skip(text, _walk(text, at, (*path, key), wanted, found))
        number += 1
        if text[at] == ",":
            at = _skip(text, at + 1)
    return at + 1
