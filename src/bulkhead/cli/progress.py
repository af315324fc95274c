"""Progress as bars on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from bulkhead.cli.output import printable
from bulkhead.quantities import format_size


def show(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A bar for every step, of unknown length where the total is; the result. Raises what went wrong."""
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task: TaskID | None = None
        label = ""
        for item in items:
            step = item.get("step")
            if step is None:
                _finish(bars, task)
                return dict(item["result"])
            if task is None or step["label"] != label:
                _finish(bars, task)
                label = step["label"]
                task = bars.add_task(escape(printable(label)), total=None, amount="")
            bars.update(task, completed=step["done"], total=step["total"] or None, amount=_amount(step))
    return {}


def _finish(bars: Progress, task: TaskID | None) -> None:
    if task is not None:
        bars.update(task, total=1, completed=1)


def _amount(step: dict[str, Any]) -> str:
    form = format_size if step["unit"] == "bytes" else str
    if not step["total"]:
        return form(step["done"]) if step["done"] else ""
    return f"{form(step['done'])} / {form(step['total'])}"
