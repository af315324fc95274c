"""Progress of imports and bootstraps, with and without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from bulkhead.cli import progress, steps

ITEMS = [
    {"step": {"label": "reading [b]x\x1b[2J", "done": 0, "total": 2 << 20, "unit": "bytes"}},
    {"step": {"label": "reading [b]x\x1b[2J", "done": 2 << 20, "total": 2 << 20, "unit": "bytes"}},
    {"step": {"label": "layers", "done": 1, "total": 0, "unit": ""}},
    {"result": {"digest": "sha256:1", "references": []}},
]


@pytest.mark.parametrize("show", [steps.show, progress.show])
def test_the_result_comes_through(show: Callable[[Iterable[dict[str, Any]]], dict[str, Any]]) -> None:
    assert show(iter(ITEMS)) == {"digest": "sha256:1", "references": []}


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    steps.show(ITEMS)
    assert capsys.readouterr().err == "reading [b]x?[2J (2M)\nlayers\n"


def test_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    progress.show(ITEMS)
    said = capsys.readouterr()
    assert said.out == ""
    assert "[b]x?[2J" in said.err
    assert "2M / 2M" in said.err


@pytest.mark.parametrize("show", [steps.show, progress.show])
def test_errors_come_through(show: Callable[[Iterable[dict[str, Any]]], dict[str, Any]]) -> None:
    def items() -> Iterable[dict[str, Any]]:
        yield ITEMS[0]
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        show(items())
