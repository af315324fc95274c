"""Instances of vector bin packing in the format of the public `vbp` collections: sizes, capacities, and what is known
of the optimum.

A file: the number of dimensions; the capacities; the number of distinct items; then a line for each: its sizes and how
many of it. A collection: `NAME.tar.gz`, or a directory NAME, of `.vbp` files, and `NAME.csv` with
`instance_name,LB,OPT,best_overall` (-1: unknown).
"""

from __future__ import annotations

import csv
import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bulkhead.advise.packing import HostType, Item, Problem

LARGEST = 64_000_000
"""Bytes of a file that are read."""
MOST = 1_000_000
"""Items of an instance."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One question."""

    collection: str
    name: str
    capacity: tuple[float, ...]
    sizes: tuple[tuple[float, ...], ...]
    """Of each item, those that are alike one after the other."""
    optimum: int | None = None
    best: int | None = None
    """Bins of the best heuristic that its authors tried."""

    @property
    def group(self) -> str:
        """Its class within the collection: the name up to the first `_`."""
        return self.name.partition("_")[0]

    def problem(self) -> Problem:
        """One host type, as many hosts as are needed, each at the cost of 1."""
        items = tuple(Item(f"i{number}", size) for number, size in enumerate(self.sizes))
        return Problem(
            tuple(f"d{column}" for column in range(len(self.capacity))), (HostType("bin", self.capacity),), items
        )


def parse(text: str, collection: str, name: str) -> Instance:
    """Raises ValueError that says what is wrong, and in which line."""
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 3:
        raise ValueError(f"{name}: it has {len(lines)} lines; at least three are needed")
    dimensions, distinct = (_whole(lines[row][1][0], name, lines[row][0]) for row in (0, 2))
    if dimensions == 0:
        raise ValueError(f"{name}: line {lines[0][0]}: 0 dimensions; at least one is needed")
    capacity = tuple(_size(word, name, lines[1][0]) for word in lines[1][1])
    if len(capacity) != dimensions:
        raise ValueError(f"{name}: line {lines[1][0]}: {len(capacity)} capacities of {dimensions}")
    if len(lines) - 3 != distinct:
        raise ValueError(f"{name}: {len(lines) - 3} items, and {distinct} are told")
    sizes: list[tuple[float, ...]] = []
    for number, words in lines[3:]:
        if len(words) not in (dimensions, dimensions + 1):
            raise ValueError(f"{name}: line {number}: {len(words)} numbers of {dimensions + 1}")
        times = _whole(words[dimensions], name, number) if len(words) > dimensions else 1
        size = tuple(_size(word, name, number) for word in words[:dimensions])
        for part, room in zip(size, capacity, strict=True):
            if part > room:
                raise ValueError(f"{name}: line {number}: {part:g} is more than {room:g}, which a bin has")
        if len(sizes) + times > MOST:
            raise ValueError(f"{name}: line {number}: {times} of it are more items than {MOST}")
        sizes += [size] * times
    return Instance(collection, name, capacity, tuple(sizes))


def _whole(word: str, name: str, line: int) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 19):
        raise ValueError(f"{name}: line {line}: {word!r} is no whole number of 0 or more")
    return int(word)


def _size(word: str, name: str, line: int) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: line {line}: {word!r} is no finite number of 0 or more")
    return value


def collections(directory: Path) -> list[Instance]:
    """Every instance of every collection there, in the order of their names with numbers as numbers."""
    if not directory.is_dir():
        raise ValueError(f"there is no directory {directory}: name one with instances by --vbp")
    found = []
    for path in sorted(directory.iterdir()):
        name = path.name.removesuffix(".tar.gz")
        if path.is_dir() or name != path.name:
            known = _known(directory / f"{name}.csv")
            found += [_with(parse(text, name, stem), known.get(stem)) for stem, text in _texts(path)]
    found += [parse(path.read_text(), directory.name, path.stem) for path in directory.glob("*.vbp")]
    if not found:
        raise ValueError(f"{directory} has no .vbp files, in no directory and no .tar.gz")
    return sorted(
        found,
        key=lambda one: (one.collection, [int(word) if word.isdigit() else 0 for word in _words(one.name)], one.name),
    )


def _words(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        for file in path.rglob("*.vbp"):
            yield file.stem, file.read_text()
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".vbp") and member.size <= LARGEST:
                stream = archive.extractfile(member)
                if stream is not None:
                    yield PurePosixPath(member.name).stem, stream.read().decode()


def _known(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> optimum and best, -1 where unknown."""
    if not path.is_file():
        return {}
    with path.open(newline="") as stream:
        return {row["instance_name"]: (int(row["OPT"]), int(row["best_overall"])) for row in csv.DictReader(stream)}


def _with(instance: Instance, known: tuple[int, int] | None) -> Instance:
    if known is None:
        return instance
    optimum, best = (value if value > 0 else None for value in known)
    return Instance(instance.collection, instance.name, instance.capacity, instance.sizes, optimum, best)
