"""`--pull` of run and create: an image that is not in the store comes from its registry first."""

from __future__ import annotations

from collections.abc import Callable

from bulkhead.cli.app import App
from bulkhead.cli.parsing import Namespace, Parser

POLICIES = ("missing", "always", "never")


def add_pull(parser: Parser) -> None:
    """Whether and how an image is pulled."""
    from bulkhead.cli.registry import add_access

    parser.add_argument("--pull", choices=POLICIES, default="missing", help="ask a registry for the image (missing)")
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an image that is pulled, such as linux/386")
    add_access(parser)


def with_image(args: Namespace, app: App, request: dict[str, object], act: Callable[[], int]) -> int:
    """Do `act`, whose request names an image; with a pull before it, or where it finds that the image is missing."""
    name = request.get("image")
    if not isinstance(name, str) or "snapshot" in request:
        return act()
    if args.pull == "always" or args.platform:
        request["image"] = _pulled(args, app, name)
        return act()
    try:
        return act()
    except Exception as error:
        # The error tree is loaded only now, where something went wrong.
        from bulkhead.errors import NoImage

        if not isinstance(error, NoImage) or args.pull == "never":
            raise
        found = app.client.call("GET", "/v1/registries/sources", query={"reference": name})
        if not found:
            raise
    request["image"] = _pulled(args, app, name)
    return act()


def _pulled(args: Namespace, app: App, name: str) -> str:
    """Pull an image; the name by which the store has it."""
    from bulkhead.cli.registry import name_of, pull

    return name_of(name, pull(args, app, name, policy=args.pull, platform=args.platform))
