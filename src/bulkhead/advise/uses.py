"""Use over time as CSV (`--use`): a row for each workload and moment, made into series over one common time.

Columns: time (ISO 8601, UTC where no zone is told, or seconds since the epoch), workload, cpu (cores that were busy),
memory and disk (bytes), network (bits per second; may be left out).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from bulkhead.advise.troubles import Place, Troubles

if TYPE_CHECKING:
    from bulkhead.advise.estate import Series

COLUMNS = ("time", "workload", "cpu", "memory", "disk", "network")
MOST_STEPS = 1_000_000
MOST_VALUES = 400_000_000
MOST_GAP = 0.1
"""The part of a workload's values that may be missing, to be filled with the ones before."""


@dataclass(frozen=True, slots=True)
class Uses:
    """Series of workloads, cpu in cores."""

    start: float
    step: float
    steps: int
    series: Mapping[str, Series]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Rows:
    """One workload's rows."""

    line: int
    times: list[float] = field(default_factory=list)
    cells: list[tuple[str, ...]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read(text: str, file: str, troubles: Troubles) -> Uses | None:
    """Every workload's series; None where something is wrong."""
    rows = _rows(text, file, troubles)
    if rows is None or troubles:
        return None
    times = sorted({time for each in rows.values() for time in each.times})
    if len(times) < 2:
        troubles.add(Place(file, 2), "there is only one moment: use over time takes two or more")
        return None
    apart = Counter(round(after - before, 3) for before, after in pairwise(times))
    step = apart.most_common(1)[0][0]
    if step <= 0:
        troubles.add(Place(file, 2), "its moments are less than a millisecond apart", "give means over longer steps")
        return None
    steps = round((times[-1] - times[0]) / step) + 1
    if steps > MOST_STEPS or steps * len(rows) * 4 > MOST_VALUES:
        what = f"{steps} steps of {step:g} s for {len(rows)} workloads are more than can be weighed"
        troubles.add(Place(file, 2), what, "give fewer days, or means over longer steps")
        return None
    series, filled = {}, 0
    for name, each in rows.items():
        made = _series(each, start=times[0], step=step, steps=steps, file=file, name=name, troubles=troubles)
        if made is not None:
            series[name], gaps = made
            filled += gaps
    notes = (f"{file}: {filled} values were missing and taken from the step before",) if filled else ()
    return None if troubles else Uses(times[0], step, steps, series, notes)


def _rows(text: str, file: str, troubles: Troubles) -> dict[str, _Rows] | None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, _Rows] = {}
    moments: dict[str, float] = {}
    order: list[int] | None = None
    try:
        for cells in reader:
            if not cells or not any(cells):
                continue
            line = reader.line_num
            if order is None:
                order = _header([cell.strip().lower().removeprefix("\ufeff") for cell in cells], file, line, troubles)
                if order is None:
                    return None
                continue
            if len(cells) < len(order):
                troubles.add(Place(file, line), f"there are {len(cells)} cells, and {len(order)} columns")
                continue
            picked = [cells[at].strip() for at in order]
            moment = moments.get(picked[0])
            if moment is None:
                try:
                    moment = moments[picked[0]] = _moment(picked[0])
                except ValueError as error:
                    troubles.add(Place(file, line, order[0] + 1), f"time: {error}")
                    continue
            rows = found.setdefault(picked[1], _Rows(line))
            rows.times.append(moment)
            rows.cells.append(tuple(picked[2:]))
            rows.lines.append(line)
    except csv.Error as error:
        troubles.add(Place(file, reader.line_num or 1), f"this is no CSV: {error}")
    if not found and not troubles:
        troubles.add(Place(file, 1), "there is no use in it")
    return found


def _header(names: list[str], file: str, line: int, troubles: Troubles) -> list[int] | None:
    wrong = [name for name in names if name not in COLUMNS]
    for name in wrong:
        troubles.add(Place(file, line, names.index(name) + 1), f"{name!r} is no column: {', '.join(COLUMNS)}")
    missing = [name for name in COLUMNS[:-1] if name not in names]
    for name in missing:
        troubles.add(Place(file, line), f"there is no column {name}")
    twice = len(set(names)) != len(names)
    if twice:
        troubles.add(Place(file, line), "a column is there twice")
    if wrong or missing or twice:
        return None
    return [names.index(name) for name in COLUMNS if name in names]


def _moment(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        if not 0 <= value < 1e11:
            raise ValueError(f"{text[:40]!r} is not a time in seconds since 1970")
        return value
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is neither a date and time (2026-01-02T03:04:05) nor seconds") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _series(
    rows: _Rows, *, start: float, step: float, steps: int, file: str, name: str, troubles: Troubles
) -> tuple[Series, int] | None:
    """A workload's (4, steps), and how many values had to be filled in."""
    import numpy as np

    columns = len(rows.cells[0])
    try:
        values = np.array(rows.cells, dtype=np.float64)
        good = bool(((values >= 0) & (values < 1e19)).all())
    except ValueError:
        good = False
    if not good:
        _wrong_cells(rows, file, name, troubles)
        return None
    at = np.rint((np.array(rows.times) - start) / step).astype(np.int64)
    there = np.bincount(at, minlength=steps)
    if (there > 1).any():
        first = int(np.flatnonzero(there > 1)[0])
        lines = [rows.lines[row] for row in np.flatnonzero(at == first)[:2]]
        troubles.add(Place(file, lines[1]), f"{name} has this moment already in line {lines[0]}")
        return None
    gaps = int((there == 0).sum())
    if gaps > steps * MOST_GAP:
        what = f"{name} has only {steps - gaps} of {steps} values (each {step:g} s from the first to the last moment)"
        troubles.add(Place(file, rows.line), what, "measure all workloads over the same time")
        return None
    # Row 0 of `filled` stands for what comes before the first value: that one itself.
    order = np.argsort(at)
    last = np.maximum(np.cumsum(there) - 1, 0)
    made = np.zeros((4, steps), dtype=np.float32)
    made[:columns] = values[order][last].T
    return made, gaps


def _wrong_cells(rows: _Rows, file: str, name: str, troubles: Troubles) -> None:
    for line, cells in zip(rows.lines, rows.cells, strict=True):
        for column, cell in zip(COLUMNS[2:], cells, strict=False):
            try:
                value = float(cell)
            except ValueError:
                value = -1.0
            if not 0 <= value < 1e19:
                troubles.add(
                    Place(file, line, COLUMNS.index(column) + 1), f"{column} of {name}: {cell[:40]!r} is no amount"
                )
