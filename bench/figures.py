"""What the bench finds: figures with their series and goals, and how they are written to and read from JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.statistics import Summary, summarize

FORMAT = 1
"""Version of results.json."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one contender. Times are in ms, memory in MB (10^6 bytes)."""

    peer: str
    label: str
    unit: str
    summary: Summary
    values: tuple[float, ...] = ()
    """In the order they were taken; empty where a peer tells a summary alone."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What was wanted (`value` at most `limit`) and what came out. `value` None: not measured, `reason` says why."""

    text: str
    limit: float
    unit: str
    value: float | None
    ours: str = ""
    """What was compared, in words with numbers: `8.1 ms`."""
    theirs: str = ""
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None when it was not measured."""
        return None if self.value is None else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Missing:
    """A contender that could not be measured, and why."""

    label: str
    reason: str


@dataclass(slots=True)
class Figure:
    """One question and its answer."""

    key: str
    title: str
    how: str
    """What exactly was timed or counted."""
    series: list[Series] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, label: str) -> Series | None:
        """The series of this label."""
        return next((series for series in self.series if series.label == label), None)

    def reason(self, label: str) -> str:
        """Why there is no series of this label; "" when nobody said."""
        return next((missing.reason for missing in self.missing if missing.label == label), "")

    def add(self, peer: str, label: str, values: list[float], *, unit: str = "ms") -> None:
        """Add what one contender gave; nothing when it gave nothing."""
        if values:
            self.series.append(Series(peer, label, unit, summarize(values), tuple(values)))

    def want_ratio(self, text: str, ours: str, theirs: str, limit: float) -> None:
        """Set a goal for the median of one series over that of another."""
        mine, other = self.find(ours), self.find(theirs)
        if mine and other:
            ratio = mine.summary.median / other.summary.median
            said = (show(mine.summary.median, mine.unit), show(other.summary.median, other.unit))
            self.goals.append(Goal(text, limit, "x", ratio, said[0], f"{theirs}: {said[1]}"))
        else:
            gone = theirs if mine else ours
            self.goals.append(Goal(text, limit, "x", None, reason=f"no figure of {gone}"))

    def want(self, text: str, limit: float, unit: str, value: float | None) -> None:
        """Set a goal for a value; None where it could not be measured."""
        said, reason = ("", "no figure of bulkhead") if value is None else (show(value, unit), "")
        self.goals.append(Goal(text, limit, unit, value, said, reason=reason))


@dataclass(slots=True)
class Results:
    """Everything that one run of the bench found."""

    when: float
    """Seconds since the epoch."""
    host: dict[str, str]
    options: dict[str, str]
    peers: dict[str, str] = field(default_factory=dict)
    """Version of each peer that worked."""
    figures: list[Figure] = field(default_factory=list)


def show(value: float, unit: str) -> str:
    """A value with its unit, three digits at least."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def dump(results: Results) -> str:
    """As JSON, with what follows from the values (medians, whether goals are met) written out."""
    data = asdict(results)
    for figure, plain in zip(results.figures, data["figures"], strict=True):
        for goal, entry in zip(figure.goals, plain["goals"], strict=True):
            entry["met"] = goal.met
    text = json.dumps(_rounded({"format": FORMAT, **data}), indent=1)
    return re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _rounded(value: Any) -> Any:
    """Floats with four decimals: a tenth of a microsecond is less than any clock here tells."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def load(path: Path) -> Results:
    """Read what `dump` wrote. Raises ValueError when it is of another format."""
    data = json.loads(path.read_text())
    if data.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not a result of this bench (format {FORMAT})")
    data["figures"] = [_figure(plain) for plain in data["figures"]]
    return Results(**data)


def _figure(plain: dict[str, Any]) -> Figure:
    series = [
        Series(**{**entry, "summary": Summary(**entry["summary"]), "values": tuple(entry["values"])})
        for entry in plain["series"]
    ]
    goals = [Goal(**{key: value for key, value in entry.items() if key != "met"}) for entry in plain["goals"]]
    missing = [Missing(**entry) for entry in plain["missing"]]
    return Figure(**{**plain, "series": series, "goals": goals, "missing": missing})
