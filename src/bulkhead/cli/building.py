"""A build as it is watched: steps and times as lines on stderr, and the shell that a failed step can end in."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from bulkhead.cli.output import printable, talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bulkhead.cli.app import App
    from bulkhead.cli.parsing import Namespace

TAIL = 20
"""Lines of a failed step's output that are shown where its output was not."""
MOST_LINE = 4096
QUICK = 0.01
"""Seconds: what takes less is not worth a line."""


def build(app: App, order: dict[str, Any], context: Callable[[], Iterable[bytes]], args: Namespace) -> str:
    """Send the order and the context, show what happens; the image's digest. Raises what went wrong.

    Images that are not in the store are pulled, and the build begun again.
    """
    order["pulled"] = {}
    while True:
        watch = Watch(quiet=args.quiet)
        try:
            return _build(app, order, context(), watch, shell=args.on_failure == "shell")
        except Exception as error:
            # The error tree is loaded only now, where something went wrong.
            from bulkhead.errors import NoImage

            if not isinstance(error, NoImage) or not watch.missing or args.pull == "never":
                raise
            for name in watch.missing:
                if name in order["pulled"] or not _has_source(app, name):
                    raise
                order["pulled"][name] = _pulled(args, app, name)


def _has_source(app: App, name: str) -> bool:
    return bool(app.client.call("GET", "/v1/registries/sources", query={"reference": name}))


def _pulled(args: Namespace, app: App, name: str) -> str:
    """Pull an image; the name by which the store has it."""
    from bulkhead.cli.registry import name_of, pull

    return name_of(name, pull(args, app, name, policy=args.pull, platform=None, quiet=args.quiet))


def _build(app: App, order: dict[str, Any], context: Iterable[bytes], watch: Watch, *, shell: bool) -> str:
    try:
        with app.client.upload("POST", "/v1/build", _body(order, context)) as response:
            for item in response.json_lines():
                if "build" in item:
                    watch.take(item["build"])
                else:
                    return str(item["result"]["digest"])
    except Exception as error:
        if watch.failure:
            from bulkhead.errors import BulkheadError

            watch.failed()
            if isinstance(error, BulkheadError):
                error.exit_code = watch.failure["code"] or error.exit_code
            if shell:
                talk(f"Error: {printable(str(error))}")
                _shell(app, watch.failure)
                if isinstance(error, BulkheadError):
                    error.hint = ""
        raise
    from bulkhead.errors import Unavailable

    raise Unavailable("the daemon ended the build without a result", hint="daemon.log says why")


def _body(order: dict[str, Any], context: Iterable[bytes]) -> Iterator[bytes]:
    yield json.dumps(order).encode() + b"\n"
    yield from context


class Watch:
    """Shows events as they come."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._rests: dict[int, str] = {}
        self._tails: dict[int, deque[str]] = {}
        self._labels: dict[int, str] = {}
        self._colour = sys.stderr.isatty()
        self.failure: dict[str, Any] | None = None
        self.missing: list[str] = []
        """Images that the store does not have."""

    def take(self, told: dict[str, Any]) -> None:
        """Show one event."""
        kind, step = told["kind"], told["step"]
        if kind == "note":
            talk(f"note: {printable(told['text'])}")
        elif kind == "missing":
            self.missing.append(told["text"])
        elif kind == "begin":
            self._labels[step] = f"[{' '.join(filter(None, (told['stage'], told['place'])))}]"
            self._tails[step] = deque(maxlen=TAIL)
            self._say(f"{self._label(step)} {printable(' '.join(told['text'].split()))[:200]}")
        elif kind == "output":
            self._output(step, told["text"])
        else:
            self._end(step)
            if kind == "failed":
                self.failure = told
            if kind != "done" or told["seconds"] >= QUICK:
                self._say(f"{self._label(step)} {kind}{_seconds(told)}")

    def _output(self, step: int, text: str) -> None:
        *lines, rest = (self._rests.get(step, "") + text).split("\n")
        if len(rest) > MOST_LINE:
            lines, rest = [*lines, rest], ""
        self._rests[step] = rest
        for line in lines:
            self._line(step, line)

    def _line(self, step: int, line: str) -> None:
        # Of a line that a program has written over and over the last state counts.
        shown = printable(line.rstrip("\r").rpartition("\r")[2].replace("\t", "    "))
        self._tails[step].append(shown)
        if not self._quiet:
            talk(f"{self._label(step)} | {shown}")

    def _end(self, step: int) -> None:
        if rest := self._rests.pop(step, ""):
            self._line(step, rest)

    def failed(self) -> None:
        """Show the end of what a step said that failed, where nobody has seen it."""
        if self._quiet and self.failure:
            for line in self._tails.get(self.failure["step"], ()):
                talk(line)

    def _label(self, step: int) -> str:
        label = self._labels.get(step, "")
        return f"\x1b[36m{label}\x1b[0m" if self._colour else label

    def _say(self, text: str) -> None:
        if not self._quiet:
            talk(text)


def _seconds(told: dict[str, Any]) -> str:
    return f" ({told['seconds']:.2f} s)" if told["kind"] != "cached" else ""


def _shell(app: App, failure: dict[str, Any]) -> None:
    """A shell in the state before a step that failed; the image of it is gone afterwards."""
    from bulkhead.cli.session import run_session

    run, image = failure["run"], failure["before"]
    interactive = sys.stdin is not None and sys.stdin.isatty()
    talk(f"a shell in the state before it, behind a {run['isolation']}; leave it with exit")
    request = {
        "image": image,
        "command": ["/bin/sh"],
        "entrypoint": [],
        "env": run["env"],
        "user": run["user"],
        "workdir": run["workdir"],
        "isolation": run["isolation"],
        "network": run["network"],
        "tty": interactive,
        "stdin": True,
        "auto_remove": True,
    }
    try:
        run_session(app.client, "/v1/run", request)
    finally:
        app.client.call("POST", "/v1/images/remove", body={"reference": image, "force": True})
