"""Archives of images: `bulkhead image save` and `load`, and what other commands need of them."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack

from bulkhead.cli import registry
from bulkhead.cli.app import App
from bulkhead.cli.output import printable, write
from bulkhead.cli.parsing import Namespace, Parser, Subcommand
from bulkhead.cli.writing import written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from bulkhead.client import Response

CHUNK = 1 << 18


def stream_of(path: str, stack: ExitStack, *, remote: bool = False) -> BinaryIO | None:
    """The open file where it is a pipe or a device, or the daemon is elsewhere; None where the daemon can read it by
    its name."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
        if not remote and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        return stack.enter_context(open(path, "rb"))  # noqa: PTH123
    except OSError as error:
        from bulkhead.errors import Refused

        raise Refused(f"cannot read {path}: {error.strerror}", hint="check the path") from error


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """What a stream brings, in portions."""
    return iter(lambda: file.read(CHUNK), b"")


def made(response: Response, *, quiet: bool = False) -> int:
    """Show the steps on stderr; print what the image is called."""
    image = registry.shown(response, quiet=quiet)
    write(printable(image["references"][0] if image["references"] else image["digest"]))
    return 0


def _save_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="where to (stdout, where that is no terminal)")
    add(
        "--format",
        metavar="F",
        default="docker-archive",
        help="docker-archive, which OCI tools read too, or oci-archive",
    )
    add("names", metavar="IMAGE", nargs="+", help="name or id")


def _save(args: Namespace, app: App) -> int:
    from bulkhead.errors import Refused

    if args.output in (None, "-") and sys.stdout.isatty():
        raise Refused("an archive is not for a terminal", hint="-o FILE, or redirect stdout")
    query: dict[str, str | list[str] | None] = {"reference": args.names, "format": args.format}
    with ExitStack() as stack:
        response = stack.enter_context(app.client.stream("GET", "/v1/images/save", query=query))
        if args.output in (None, "-"):
            _copy(response, sys.stdout.buffer)
            return 0
        try:
            with written(args.output) as file:
                _copy(response, file)
        except OSError as error:
            raise Refused(f"cannot write {args.output}: {error.strerror}", hint="check the path") from error
    return 0


def _copy(response: Response, file: BinaryIO) -> None:
    for portion in response.portions():
        file.write(portion)
    file.flush()


def _load_arguments(parser: Parser) -> None:
    parser.add_argument("-i", "--input", metavar="FILE", default="-", help="an archive that save made (stdin)")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--all-platforms", action="store_true", help="of a list every platform's image, not this host's"
    )


def _load(args: Namespace, app: App) -> int:
    given: dict[str, bool] = {"all_platforms": args.all_platforms}
    with ExitStack() as stack:
        file = sys.stdin.buffer if args.input == "-" else stream_of(args.input, stack, remote=app.is_remote)
        if file is None:
            path = os.path.abspath(args.input)  # noqa: PTH100
            response = app.client.stream("POST", "/v1/images/load", query={"path": path, **given})
        else:
            response = app.client.upload("POST", "/v1/images/load", chunks(file), query=given)
        for loaded in registry.shown(stack.enter_context(response), quiet=args.quiet)["images"]:
            for name in loaded["names"] or [loaded["image"]["digest"]]:
                write(printable(name))
        return 0


SUBCOMMANDS = {
    "save": Subcommand("Write images into an archive", _save_arguments, _save),
    "load": Subcommand("Read images of an archive", _load_arguments, _load),
}
