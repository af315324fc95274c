"""Progress as plain lines on stderr, where nobody watches a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from bulkhead.cli.output import printable, talk
from bulkhead.quantities import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def show(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A line for every step that begins; the result. Raises what went wrong."""
    label, result = "", {}
    for item in items:
        step = item.get("step")
        if step is None:
            result = item["result"]
        elif step["label"] != label:
            label = step["label"]
            talk(printable(label + amount(step)))
    return dict(result)


def amount(step: dict[str, Any]) -> str:
    """How large a step is: " (150M)"; "" where that is not known."""
    if not step["total"]:
        return ""
    total = format_size(step["total"]) if step["unit"] == "bytes" else f"{step['total']} {step['unit']}".rstrip()
    return f" ({total})"
