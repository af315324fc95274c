"""bulkhead cp"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bulkhead.cli.app import App
from bulkhead.cli.each import instance_path
from bulkhead.cli.output import talk
from bulkhead.cli.parsing import Namespace, Parser
from bulkhead.errors import BulkheadError, NotFound, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bulkhead.client import Client

STREAM = "-"
CHUNK = 1 << 18
HINT = "one side is NAME:PATH, the other a path of this host or - for a tar stream"


def arguments(parser: Parser) -> None:
    """From where to where."""
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners (as the instance numbers them)")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say what was copied")
    parser.add_argument("source", metavar="SOURCE", help="NAME:PATH, or a path of this host, or - for a tar on stdin")
    parser.add_argument("target", metavar="TARGET", help="a path of this host, or - for a tar on stdout, or NAME:PATH")


def main(args: Namespace, app: App) -> int:
    """Copy in the direction that the arguments tell."""
    source, target = split(args.source), split(args.target)
    if bool(source[0]) == bool(target[0]):
        raise Refused(f"cp {args.source} {args.target}: exactly one side is an instance", hint=HINT)
    for name, path in (source, target):
        if name and not path.startswith("/"):
            raise Refused(f"{path!r}, a path inside {name}, is not absolute", hint="begin it with a slash")
    if source[0]:
        return _out(app.client, *source, target[1], archive=args.archive, quiet=args.quiet)
    return _in(app.client, source[1], *target, archive=args.archive, quiet=args.quiet)


def split(text: str) -> tuple[str, str]:
    """Name and path; the name is "" for a path of this host (which has a slash before its first colon, or none)."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and name and "/" not in name else ("", text)


def _out(client: Client, name: str, path: str, local: str, *, archive: bool, quiet: bool) -> int:
    from bulkhead.cli.unpack import unpack

    with client.stream("GET", instance_path(name, "files"), query={"path": path}) as response:
        if local == STREAM:
            for portion in response.portions():
                sys.stdout.buffer.write(portion)
            return 0
        count = unpack(response.portions(), local, contents=path.endswith("/."), keep_owners=archive)
    if not quiet:
        talk(f"copied {count} from {name}:{path} to {local}")
    return 0


def _in(client: Client, local: str, name: str, path: str, *, archive: bool, quiet: bool) -> int:
    from bulkhead.cli.pack import pack

    if local == STREAM:
        chunks = iter(lambda: sys.stdin.buffer.read(CHUNK), b"")
        client.upload("PUT", instance_path(name, "files"), chunks, query={"path": path}).close()
        return 0
    if not os.path.lexists(local):
        raise Refused(f"{local} does not exist", hint="check the path on this host")
    directory, inner = _place(client, local, name, path)
    counted: list[Path] = []
    members = pack(Path(local), inner, keep_owners=archive, seen=counted.append)
    client.upload("PUT", instance_path(name, "files"), members, query={"path": directory}).close()
    if not quiet:
        talk(f"copied {len(counted)} from {local} to {name}:{path}")
    return 0


def _place(client: Client, local: str, name: str, path: str) -> tuple[str, str]:
    """Where to unpack, and what the top of the archive is called there: as cp -r does, into a directory that exists."""
    contents = local.endswith(("/.", "/..")) or local in (".", "..")
    if _is_directory(client, name, path):
        return path, "" if contents else os.path.basename(os.path.abspath(local))  # noqa: PTH100, PTH119
    parent, _, last = path.rstrip("/").rpartition("/")
    if path.endswith("/") or not last:
        raise NotFound(f"{path} in {name} is not a directory", hint="make it first, or leave out the last slash")
    return parent or "/", last


def _is_directory(client: Client, name: str, path: str) -> bool:
    """Whether a path inside is a directory, or a link to one: only then it has an archive of its dot."""
    try:
        client.stream("GET", instance_path(name, "files"), query={"path": path.rstrip("/") + "/."}).close()
    except BulkheadError:
        # Also where the instance itself is missing: the copy will say so.
        return False
    return True
