"""bulkhead clean"""

from __future__ import annotations

import json
import os

from bulkhead.cli import options
from bulkhead.cli.app import App
from bulkhead.cli.output import tell_choice
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.cli.room import describe_changes, tell
from bulkhead.cli.run import add_detach_keys
from bulkhead.cli.session import run_session
from bulkhead.cli.writing import written
from bulkhead.client.rooms import HeldRoom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def arguments(parser: Parser) -> None:
    """What is to be kept or told of it, then as of run."""
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say how it went")
    parser.add_argument("--report", metavar="FILE", help="write how it went there, as JSON")
    parser.add_argument(
        "--keep-changes", metavar="FILE", help="write what was changed there, as an OCI layer: a tar (*.gz: gzip)"
    )
    add_detach_keys(parser)
    options.add_request(parser)


def main(args: Namespace, app: App) -> int:
    """Run it in a room that nobody has been in, throw the room away; the workload's exit code."""
    if args.command and args.command[0] == "--":
        args.command = args.command[1:]
    request = options.request(args, app)
    for flag, path in (("--report", args.report), ("--keep-changes", args.keep_changes)):
        if path is not None:
            _check_target(flag, path)
    with HeldRoom(app.client, request) as room:
        tell_choice(room.record["spec"])
        code = run_session(
            app.client, room.path("run"), {"stdin": bool(args.interactive)}, detach_keys=args.detach_keys
        )
        record = app.client.call("GET", room.path())
        ended = record.get("exit") is not None
        changes = _changes(app, room) if ended and not (args.quiet and args.report is None) else None
        if args.keep_changes is not None:
            _keep(app, room, args.keep_changes, ended=ended)
    if not args.quiet:
        tell(_summary(record, changes))
    if args.report is not None:
        _write_report(args.report, record, changes, code)
    return code


def _changes(app: App, room: HeldRoom) -> dict[str, Any] | None:
    from bulkhead.errors import BulkheadError

    try:
        changes: dict[str, Any] = app.client.call("GET", room.path("changes"))
    except BulkheadError as error:
        tell(f"what it has changed cannot be counted: {error.what}")
        return None
    return changes


def _keep(app: App, room: HeldRoom, path: str, *, ended: bool) -> None:
    """Write the layer; the file is there whole or not at all."""
    import gzip

    if not ended:
        from bulkhead.errors import Refused

        raise Refused("--keep-changes: the terminal was detached before the command had ended: nothing is kept")
    with app.client.stream("GET", room.path("changes/layer")) as response, written(path) as file:
        if path.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                for portion in response.portions():
                    packed.write(portion)
        else:
            for portion in response.portions():
                file.write(portion)
        file.flush()


def _summary(record: dict[str, Any], changes: dict[str, Any] | None) -> str:
    parts = [f"started in {record['start_seconds']:.3f} s"]
    if record.get("exit"):
        parts.append(f"ran {record['exit']['ended'] - record['exit']['started']:.2f} s")
    if changes:
        parts.append(describe_changes(changes))
    return ", ".join([*parts, "thrown away"])


def _check_target(flag: str, path: str) -> None:
    """Refuse a file that cannot be written before anything is done."""
    directory = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
    if os.path.isdir(path) or not os.access(directory, os.W_OK):  # noqa: PTH112
        from bulkhead.errors import Refused

        raise Refused(f"{flag} {path}: no file can be written there", hint="name a file in a directory that exists")


def _write_report(path: str, record: dict[str, Any], changes: dict[str, Any] | None, code: int) -> None:
    ended = record.get("exit") or {}
    report = {
        "image": record["spec"]["image"],
        "isolation": record["spec"]["isolation"],
        "code": code,
        "start_seconds": record["start_seconds"],
        "seconds": ended["ended"] - ended["started"] if ended else None,
        "changes": changes,
    }
    with open(path, "w") as file:  # noqa: PTH123
        json.dump(report, file, indent=2)
        file.write("\n")
