"""The steps of a project as they are watched: a table that moves on a terminal, lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from bulkhead.cli.output import printable, talk
from bulkhead.compose.steps import Step

_WORDS = {
    "network": ("Network", "Creating", "Created"),
    "volume": ("Volume", "Creating", "Created"),
    "create": ("Instance", "Creating", "Created"),
    "start": ("Instance", "Starting", "Started"),
    "stop": ("Instance", "Stopping", "Stopped"),
    "remove": ("Instance", "Removing", "Removed"),
    "healthy": ("Service", "Waiting", "Healthy"),
    "running": ("Service", "Waiting", "Running"),
    "completed": ("Service", "Waiting", "Completed"),
    "drop-network": ("Network", "Removing", "Removed"),
    "drop-secret": ("Secret", "Removing", "Removed"),
    "drop-volume": ("Volume", "Removing", "Removed"),
}


class Drawing:
    """Shows steps from `with` to its end. `quiet`: nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._guard = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._live: Live | None = None
        if sys.stderr.isatty() and not quiet:
            self._live = Live(console=Console(stderr=True), get_renderable=self._table, refresh_per_second=10)

    def __enter__(self) -> Drawing:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def begin(self, step: Step) -> None:
        """A step is being carried out."""
        noun, going, _ = _WORDS[step.verb]
        self._say(noun, step.subject, going, "")

    def end(self, step: Step, error: str = "") -> None:
        """A step is done, or has failed."""
        noun, _, done = _WORDS[step.verb]
        self._say(noun, step.subject, "Error" if error else done, "failed" if error else "done")

    def _say(self, noun: str, subject: str, word: str, ended: str) -> None:
        title = f"{noun} {printable(subject)}"
        with self._guard:
            line = self._lines.setdefault(title, _Line(title))
            line.word, line.ended = word, ended
            line.until = time.monotonic() if ended else None
        if not (self._live or self._quiet):
            talk(f"{title}  {word}")

    def _table(self) -> RenderableType:
        with self._guard:
            lines = list(self._lines.values())
        table = Table.grid(padding=(0, 1))
        for line in lines:
            table.add_row(*line.cells())
        return table


class _Line:
    """One thing that steps are about."""

    def __init__(self, title: str) -> None:
        self.title, self.word, self.ended = title, "", ""
        self.since = time.monotonic()
        self.until: float | None = None
        self._spinner = Spinner("dots")

    def cells(self) -> tuple[RenderableType, ...]:
        """A row of the table."""
        mark: RenderableType = self._spinner
        colour = ""
        if self.ended:
            mark = Text("✔", style="green") if self.ended == "done" else Text("✘", style="red")
            colour = "green" if self.ended == "done" else "red"
        seconds = (self.until or time.monotonic()) - self.since
        return mark, Text(self.title), Text(self.word, style=colour), Text(f"{seconds:.1f}s", style="blue")
