"""What commands print: aligned tables, JSON, sizes and ages. stdout is data, stderr is talk."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ID_LENGTH = 12
_AGES = ((60, 1, "second"), (3600, 60, "minute"), (86400, 3600, "hour"), (86400 * 14, 86400, "day"))
_WEEK, _MONTH, _YEAR = 86400 * 7, 86400 * 30, 86400 * 365


def write(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def talk(text: str) -> None:
    """Tell the user something that is not data."""
    sys.stderr.write(text + "\n")


def tell_choice(spec: Mapping[str, Any]) -> None:
    """Say which level `--isolation auto` has come to, and why; nothing where the level was given."""
    choice = spec.get("choice")
    if choice:
        talk(f"isolation: {spec['isolation']}, since {choice['reason']} (rule {choice['rule']})")


def write_json(value: object) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows below a header, columns two spaces apart; every line ends in a newline."""
    cells = [list(header), *[[printable(str(cell)) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)


def printable(text: str) -> str:
    """Text of an image's or a workload's without what a terminal would act upon."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    sys.stdout.write(table(header, rows))


def short_id(identifier: str, *, whole: bool = False) -> str:
    """An id as it is shown."""
    return identifier if whole else identifier.removeprefix("sha256:")[:ID_LENGTH]


def age(since: float, now: float | None = None) -> str:
    """How long ago in words: "5 minutes"."""
    seconds = max(0, int((time.time() if now is None else now) - since))
    for limit, unit, word in (*_AGES, (_MONTH * 2, _WEEK, "week"), (_YEAR * 2, _MONTH, "month")):
        if seconds < limit:
            return _count(seconds // unit, word)
    return _count(seconds // _YEAR, "year")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
