"""Logs of several instances as one, each line with whose it is."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence

from bulkhead.cli.app import App
from bulkhead.cli.logs import stamp
from bulkhead.cli.output import printable
from bulkhead.cli.parsing import Namespace
from bulkhead.client import quote
from bulkhead.compose.steps import Existing
from bulkhead.errors import BulkheadError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
LOOK_SECONDS = 0.5
LONGEST_LINE = 1 << 16
Query = dict[str, "float | int | bool | None"]


class Interleaved:
    """Prints the entries of several logs. A line is written whole, whoever else writes."""

    def __init__(self, names: Sequence[str], args: Namespace) -> None:
        self._width = max(map(len, names), default=0)
        self._args = args
        self._colours = dict(zip(names, (COLOURS[number % len(COLOURS)] for number in range(len(names))), strict=True))
        coloured = sys.stdout.isatty() and not getattr(args, "no_color", False)
        self._paint = coloured
        self._guard = threading.Lock()
        self._partial: dict[tuple[str, str], str] = {}

    def take(self, name: str, entry: dict[str, Any]) -> None:
        """One entry of an instance's log."""
        key = (name, entry["stream"])
        text = self._partial.pop(key, "") + entry["text"]
        if entry["partial"] and len(text) < LONGEST_LINE:
            self._partial[key] = text
            return
        if getattr(self._args, "format", "text") == "json":
            line = json.dumps({"instance": name, **entry, "text": text, "partial": False})
        else:
            when = f"{stamp(entry['when'])} " if self._args.timestamps else ""
            line = f"{self._prefix(name)}{when}{_shown(text)}"
        self.say(line)

    def say(self, line: str) -> None:
        """A line as it is."""
        with self._guard:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def _prefix(self, name: str) -> str:
        if getattr(self._args, "no_log_prefix", False):
            return ""
        shown = f"{name:<{self._width}} | "
        return f"\x1b[{self._colours.get(name, 37)}m{shown}\x1b[0m" if self._paint else shown


def _shown(text: str) -> str:
    """Bytes that are not UTF-8 as what stands for them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def print_logs(app: App, instances: Sequence[Existing], args: Namespace, query: Query) -> None:
    """What is in the logs, by the time of each entry."""
    printer = Interleaved([each.name for each in instances], args)
    entries: list[tuple[float, int, str, dict[str, Any]]] = []
    for each in instances:
        with app.client.stream("GET", f"/v1/instances/{quote(each.name)}/logs", query=query) as response:
            entries += [
                (entry["when"], len(entries) + at, each.name, entry) for at, entry in enumerate(response.json_lines())
            ]
    for _, _, name, entry in sorted(entries, key=lambda each: (each[0], each[1])):
        printer.take(name, entry)


class Follower:
    """Follows the logs of instances, each in a thread, until all of them have ended for good."""

    def __init__(self, app: App, instances: Sequence[Existing], args: Namespace, query: Query) -> None:
        self._app, self._query = app, {**query, "follow": True}
        self._printer = Interleaved([each.name for each in instances], args)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._follow, args=(each,), daemon=True) for each in instances]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Return when all have ended. A signal gets through."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(LOOK_SECONDS)

    def end(self) -> None:
        """Look at no more beginnings: what runs is read to its end."""
        self._ended.set()

    def _follow(self, each: Existing) -> None:
        client, query = self._app.another_client(), dict(self._query)
        path = f"/v1/instances/{quote(each.id)}"
        try:
            while True:
                last = 0.0
                with client.stream("GET", f"{path}/logs", query=query) as response:
                    for entry in response.json_lines():
                        last = max(last, entry["when"])
                        self._printer.take(each.name, entry)
                if last:
                    # Not the same entry again: times are exact to the microsecond.
                    query |= {"since": last + 1e-6, "tail": None}
                if not self._goes_on(lambda: client.call("GET", path), each):
                    return
        except NotFound:
            return
        except BulkheadError as error:
            self._printer.say(f"{each.name}: {printable(str(error))}")
        finally:
            client.close()

    def _goes_on(self, record: Callable[[], Any], each: Existing) -> bool:
        """Whether it will run again by itself; returns when it does."""
        while True:
            found = record()
            if found["state"] in ("running", "starting", "paused"):
                return True
            end = found["exit"]
            if found["state"] == "exited":
                policy, code = found["spec"]["restart"], end["code"] if end else 0
                done = policy["kind"] == "on-failure" and (code == 0 or 0 < policy["retries"] <= found["restarts"])
                if policy["kind"] == "no" or found["stop_requested"] or done:
                    self._printer.say(f"{each.name} has ended with {code}")
                    return False
            elif found["state"] == "created":
                return False
            if self._ended.wait(LOOK_SECONDS):
                return False
