"""What is wrong with files that are read: each with its place, all of it told at once."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.errors import Problem, Refused

MOST_TOLD = 100


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands. Lines count from 1; columns are characters, in a CSV file the number of the cell."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Troubles:
    """Collects problems. At most MOST_TOLD are told, and how many more there are."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, str, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, what: str, hint: str = "") -> None:
        """One thing that is wrong."""
        self._found.append((place, what, hint))

    def check(self) -> None:
        """Raise Refused where anything was wrong, in the order of the file."""
        if not self._found:
            return
        found = sorted(self._found)
        problems = [Problem(printable(f"{place}: {what}"), hint) for place, what, hint in found[:MOST_TOLD]]
        if len(found) > MOST_TOLD:
            problems.append(Problem(f"and {len(found) - MOST_TOLD} more"))
        raise Refused(problems)


def printable(text: str) -> str:
    """Text of a file without what a terminal would act upon."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
