"""Steps and progress as events. Code says what happens; sinks decide how it is shown.

`Progress` is handed down to whatever takes longer than a second (imports, bootstraps). Lifecycle events of
instances go through an `EventSink` that the engine is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """One report of progress. `done` and `total` are in `unit` ("bytes", "files", ""), total 0 when unknown."""

    label: str
    done: int = 0
    total: int = 0
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object: `when` in seconds since the epoch, action such as "start", "oom"."""

    when: float
    kind: str
    id: str
    action: str
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    number: int = 0
    """Its place among all that were kept; 0 until it has one."""
    tenant: str = "default"
    """Whose it is."""
    by: str = ""
    """The user whose request it was; "" where nobody asked for it."""


Progress = Callable[[Step], None]
EventSink = Callable[[Event], None]


def quiet(step: Step) -> None:
    """Show nothing: the progress sink of callers that nobody watches."""
