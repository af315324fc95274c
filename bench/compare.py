"""Two results side by side: what has become faster or slower since."""

from __future__ import annotations

from collections.abc import Iterator

from bench.figures import Results, show

NOISE = 0.05
"""Changes of a median by less than this share are not called changes."""


def compare(old: Results, new: Results) -> Iterator[str]:
    """A line for each series that both have: medians before and after."""
    before = {(figure.key, series.label): series for figure in old.figures for series in figure.series}
    for figure in new.figures:
        for series in figure.series:
            was = before.get((figure.key, series.label))
            if was is None or was.unit != series.unit or not was.summary.median:
                continue
            ratio = series.summary.median / was.summary.median
            verdict = "same" if abs(ratio - 1) < NOISE else "better" if ratio < 1 else "worse"
            yield (
                f"{figure.key:8} {series.label:34} {show(was.summary.median, was.unit):>10} -> "
                f"{show(series.summary.median, series.unit):>10}  {ratio:5.2f} x  {verdict}"
            )
