from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.compare import compare
from bench.contest import Contender, compete
from bench.figures import Figure, Missing, Results, dump, load
from bench.plot import draw
from bench.report import markdown, terminal
from bench.timing import Unusable


def _results(ours: float = 10.0) -> Results:
    figure = Figure("starts", "Start", "How it was done.")
    figure.add("bulkhead", "bulkhead", [ours, ours + 1, ours + 2])
    figure.add("runc", "runc", [100.0, 110.0, 120.0])
    figure.add("nobody", "nobody", [])
    figure.missing.append(Missing("bwrap", "not | installed"))
    figure.want_ratio("ours / runc", "bulkhead", "runc", 0.2)
    figure.want_ratio("ours / bwrap", "bulkhead", "bwrap", 0.2)
    figure.want("memory", 0.3, "MB", 0.5)
    figure.want("nothing", 0.3, "MB", None)
    return Results(1e9, {"kernel": "6"}, {"runs": "3"}, {"runc": "1.1"}, [figure])


def test_goals_are_met_missed_or_not_measured() -> None:
    goals = _results().figures[0].goals
    assert [goal.met for goal in goals] == [True, None, False, None]
    assert goals[0].value == pytest.approx(0.1)
    assert "bwrap" in goals[1].reason


def test_results_survive_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(dump(_results()))
    assert load(path) == _results()
    assert json.loads(path.read_text())["figures"][0]["goals"][0]["met"] is True


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"format": 0}')
    with pytest.raises(ValueError, match="format 1"):
        load(path)


def test_the_report_names_what_is_missing_and_missed() -> None:
    text = markdown(_results())
    assert "| bwrap | not measured: not \\| installed |" in text
    assert "**missed**" in text
    assert any("median" in line for line in terminal(_results().figures[0]))


def test_the_plot_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(_results(), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.svg").stat().st_size > 1000


def test_compare_says_what_changed() -> None:
    lines = list(compare(_results(), _results(ours=20.0)))
    assert "worse" in lines[0]
    assert "same" in lines[1]


def test_turns_alternate_and_a_failure_is_told() -> None:
    order: list[str] = []

    def once(name: str) -> float:
        order.append(name)
        if name == "c" and len(order) > 5:
            raise Unusable("broke")
        return 1.0

    figure = Figure("f", "F", "")
    names = [Contender(name, name, lambda name=name: once(name)) for name in "abc"]  # type: ignore[misc]
    compete(figure, names, 3)
    assert order[:6] == ["a", "b", "c", "c", "b", "a"]
    assert [series.label for series in figure.series] == ["a", "b"]
    assert figure.missing == [Missing("c", "broke")]
