"""Results as a picture: a bar for each median, a line from the least value to the 90th percentile."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.figures import Figure, Results, show

OURS, THEIRS, FLOOR = "#1f6f8b", "#b8b8b8", "#e0c070"
BAR = 0.27
"""Inches of height for a bar."""


def draw(results: Results, path: Path) -> None:
    """Write the picture; the file's name says the format."""
    shown = [figure for figure in results.figures if figure.series]
    if not shown:
        return
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same data, the same file
    heights = [len(figure.series) + 2.4 for figure in shown]
    canvas = Canvas(figsize=(9, BAR * sum(heights)), layout="constrained")
    axes = canvas.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, figure in zip(axes, shown, strict=True):
        _bars(axis, figure)
    canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _bars(axis: Axes, figure: Figure) -> None:
    labels = [series.label for series in figure.series]
    medians = [series.summary.median for series in figure.series]
    below = [max(0.0, series.summary.median - series.summary.minimum) for series in figure.series]
    above = [max(0.0, series.summary.p90 - series.summary.median) for series in figure.series]
    colours = {"bulkhead": OURS, "floor": FLOOR}
    axis.barh(
        labels,
        medians,
        xerr=[below, above],
        color=[colours.get(series.peer, THEIRS) for series in figure.series],
        error_kw={"elinewidth": 1, "ecolor": "#404040"},
    )
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 2, max(series.summary.p90 for series in figure.series) * 3)
    for row, series in enumerate(figure.series):
        axis.text(series.summary.p90 * 1.08, row, show(series.summary.median, series.unit), va="center", fontsize=8)
    axis.set_title(f"{figure.title} ({figure.series[0].unit}, log scale)", loc="left", fontsize=10)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
