"""Results as Markdown, for people: the goals first, then every series."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.figures import Figure, Goal, Results, Series, show
from bench.statistics import Summary

_MARKS = {True: "met", False: "**missed**", None: "not measured"}


def markdown(results: Results) -> str:
    """The whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Results) -> Iterator[str]:
    yield "# Numbers"
    yield ""
    yield f"Made by `bench/run` on {time.strftime('%Y-%m-%d', time.gmtime(results.when))}; how to read and repeat it: "
    yield "`docs/reference/benchmarks.md`. The same as data: [results.json](results.json)."
    yield ""
    for key, value in results.host.items():
        yield f"- {key}: {value}"
    yield f"- measured: {', '.join(f'{name} {version}' for name, version in results.peers.items())}"
    yield f"- options: {', '.join(f'{key} {value}' for key, value in results.options.items())}"
    yield ""
    if any(figure.series for figure in results.figures):  # nothing is drawn else
        yield "![medians with their spread](plot.svg)"
        yield ""
    yield "## Goals"
    yield ""
    yield "| figure | what | ours | beside | value | goal | |"
    yield "|---|---|---|---|---|---|---|"
    for figure in results.figures:
        for goal in figure.goals:
            yield _goal(figure, goal)
    for figure in results.figures:
        yield from _figure(figure)


def _goal(figure: Figure, goal: Goal) -> str:
    value = f"({goal.reason})" if goal.value is None else show(goal.value, goal.unit)
    cells = [figure.title, goal.text, goal.ours, goal.theirs, value, f"≤ {goal.limit:g} {goal.unit}", _MARKS[goal.met]]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _figure(figure: Figure) -> Iterator[str]:
    yield ""
    yield f"## {figure.title}"
    yield ""
    yield figure.how
    yield ""
    yield "| | runs | min | median | p90 | max | of the first |"
    yield "|---|---|---|---|---|---|---|"
    first = figure.series[0] if figure.series else None
    for series in figure.series:
        same = first is not None and first.unit == series.unit
        ratio = series.summary.median / first.summary.median if first and same and first.summary.median else None
        yield _row(series, ratio)
    for missing in figure.missing:
        yield f"| {_cell(missing.label)} | not measured: {_cell(missing.reason)} | | | | | |"
    for note in figure.notes:
        yield ""
        yield note


def _row(series: Series, ratio: float | None) -> str:
    summary = series.summary
    cells = [f"{summary.count}", *(_value(value, series.unit) for value in _spread(summary))]
    cells.append("" if ratio is None else f"{ratio:.2f} x")
    return f"| {_cell(series.label)} | {' | '.join(cells)} |"


def _spread(summary: Summary) -> tuple[float | None, ...]:
    return summary.minimum, summary.median, summary.p90, summary.maximum


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else show(value, unit)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def terminal(figure: Figure) -> Iterator[str]:
    """One figure in a few lines, while the bench goes on."""
    for series in figure.series:
        spread = series.summary
        most = "" if spread.maximum is None else f", max {show(spread.maximum, series.unit)}"
        yield (
            f"  {series.label:32} median {show(spread.median, series.unit):>9}, min {show(spread.minimum, series.unit)}"
            f", p90 {show(spread.p90, series.unit)}{most} ({spread.count})"
        )
    for missing in figure.missing:
        yield f"  {missing.label:32} not measured: {missing.reason}"
    for goal in figure.goals:
        value = goal.reason if goal.value is None else show(goal.value, goal.unit)
        yield f"  goal: {goal.text}: {value}, at most {goal.limit:g} {goal.unit}: {_MARKS[goal.met].strip('*')}"
