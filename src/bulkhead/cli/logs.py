"""bulkhead logs"""

from __future__ import annotations

import json
import os
import sys
import time

from bulkhead.cli import values
from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.options import Problems
from bulkhead.cli.parsing import Namespace, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: Parser) -> None:
    """Which entries, and how."""
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with what is written, until the instance ends")
    add("-n", "--tail", metavar="N", help="only the last N lines, or all (all)")
    add("--since", metavar="TIME", help="only from then on: 10m ago, or 2026-01-02T03:04:05")
    add("--until", metavar="TIME", help="only up to then")
    add("-t", "--timestamps", action="store_true", help="show when each line was written")
    add("--format", choices=("text", "json"), default="text", help="how to print it (text)")
    add("instance", metavar="NAME", help="the instance; or a compose file: all of its project")


def main(args: Namespace, app: App) -> int:
    """Print the entries: stdout to stdout, stderr to stderr."""
    if args.instance.endswith((".yaml", ".yml")) and os.path.isfile(args.instance):  # noqa: PTH113
        return _of_project(args, app)
    query = times(args, "see bulkhead logs --help")
    if args.tail is not None and args.tail != "all":
        problems = Problems("see bulkhead logs --help")
        query["tail"] = problems.of(lambda: int(values.parse_number(args.tail, "--tail", low=0)))
        problems.check()
    query["follow"] = args.follow or None
    with app.client.stream("GET", instance_path(args.instance, "logs"), query=query) as response:
        if args.format == "json":
            for entry in response.json_lines():
                sys.stdout.write(json.dumps(entry) + "\n")
                if args.follow:
                    sys.stdout.flush()
            return 0
        continued: set[str] = set()
        for entry in response.json_lines():
            _print(entry, timestamps=args.timestamps, continued=continued)
            if args.follow:
                sys.stdout.flush()
    return 0


def _of_project(args: Namespace, app: App) -> int:
    """`logs [-f] compose.yaml`: the logs of a project."""
    from bulkhead.cli import composing

    of = {"file": [args.instance], "project_name": None, "project_directory": None, "env_file": [], "profile": []}
    return composing.logs(Namespace(**{**vars(args), **of}, services=[], no_color=False, no_log_prefix=False), app)


def times(args: Namespace, hint: str) -> dict[str, float | int | bool | None]:
    """The query's since and until."""
    problems, now = Problems(hint), time.time()
    query: dict[str, float | int | bool | None] = {}
    for name in ("since", "until"):
        text = getattr(args, name)
        if text is not None:
            query[name] = problems.of(lambda name=name, text=text: values.parse_when(text, f"--{name}", now))  # type: ignore[misc]
    problems.check()
    return query


def _print(entry: dict[str, Any], *, timestamps: bool, continued: set[str]) -> None:
    stream = entry["stream"]
    text = entry["text"].encode("utf-8", "surrogateescape")
    if timestamps and stream not in continued:
        text = f"{stamp(entry['when'])} ".encode() + text
    if entry["partial"]:
        continued.add(stream)
    else:
        continued.discard(stream)
        text += b"\n"
    if stream == "stderr":
        sys.stdout.flush()
        os.write(2, text)
    else:
        sys.stdout.buffer.write(text)


def stamp(when: float) -> str:
    """A time as 2026-01-02T03:04:05.678Z."""
    whole = int(when)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((when - whole) * 1000):03}Z"
